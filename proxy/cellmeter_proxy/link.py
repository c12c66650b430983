"""The line between two processes of one proxy: messages over a socket pair, told, or asked and replied to.

A frame is a head of nine bytes (what it is, which question, how long) and a message as MessagePack.

Invariant: what is told, and what is asked, arrives in the order in which it was said; when the line is lost, every
question that waits for its reply fails.
"""

import asyncio
import itertools
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Self, TypeVar

import msgspec

from cellmeter_proxy.messages import Message

_HEAD: Final = struct.Struct(">BII")
_TOLD, _ASKED, _REPLY, _FAILED = range(4)
_M = TypeVar("_M")
_logger: Final = logging.getLogger("cellmeter")


class LinkLostError(Exception):
    """The other process is gone, or could not reply."""


class Link:
    """One end. Whoever opens it runs ``run`` for as long as the line is to be heard."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Message)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._replying: set[asyncio.Task[None]] = set()
        self.lost = False

    @classmethod
    async def open(cls, sock: socket.socket) -> Self:
        """Speak over a connected socket, which is the link's from then on."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    def tell(self, message: Message) -> None:
        """Say something. Once the line is lost, nobody hears it."""
        self._send(_TOLD, 0, message)

    async def ask(self, message: Message, *types: type[_M]) -> _M:
        """Say something and wait for the reply, which is of one of these types.

        Raises:
            LinkLostError: there is none.

        """
        if self.lost:
            raise LinkLostError("the proxy's other process is gone")
        number = next(self._numbers) & 0xFFFFFFFF
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(_ASKED, number, message)
            reply = await waiting
        finally:
            del self._waiting[number]
        if not isinstance(reply, types):
            raise LinkLostError(f"the other process replied with {type(reply).__name__}")
        return reply

    async def run(self, hear: Callable[[Message], None], answer: Callable[[Message], Awaitable[Message]]) -> None:
        """Hand on what is told and asked, until the other end closes the line.

        Args:
            hear: takes what is told.
            answer: gives the reply to what is asked.

        """
        try:
            while True:
                kind, number, size = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                self._take(kind, number, await self._reader.readexactly(size), hear, answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._lose()

    async def aclose(self) -> None:
        """Say what is still to be said, and close the line."""
        with suppress(ConnectionError):
            self._writer.close()
            await self._writer.wait_closed()
        self._lose()

    def _take(
        self,
        kind: int,
        number: int,
        data: bytes,
        hear: Callable[[Message], None],
        answer: Callable[[Message], Awaitable[Message]],
    ) -> None:
        if kind == _FAILED:
            self._settle(number, LinkLostError(data.decode()))
            return
        message = self._decoder.decode(data)
        if kind == _REPLY:
            self._settle(number, message)
        elif kind == _ASKED:
            task = asyncio.create_task(self._reply(number, message, answer))
            self._replying.add(task)
            task.add_done_callback(self._replying.discard)
        else:
            hear(message)

    async def _reply(self, number: int, message: Message, answer: Callable[[Message], Awaitable[Message]]) -> None:
        try:
            reply = await answer(message)
        except LinkLostError as error:
            self._write(_FAILED, number, str(error).encode())
        except Exception:
            # The other end must not wait for ever for what a bug of ours has kept back.
            _logger.exception("a question of another process of the proxy could not be replied to")
            self._write(_FAILED, number, b"the proxy's other process failed")
        else:
            self._send(_REPLY, number, reply)

    def _settle(self, number: int, reply: Message | LinkLostError) -> None:
        waiting = self._waiting.get(number)
        if waiting is None or waiting.done():
            return
        if isinstance(reply, LinkLostError):
            waiting.set_exception(reply)
        else:
            waiting.set_result(reply)

    def _send(self, kind: int, number: int, message: Message) -> None:
        self._write(kind, number, self._encoder.encode(message))

    def _write(self, kind: int, number: int, data: bytes) -> None:
        if not self.lost and not self._writer.is_closing():
            self._writer.write(_HEAD.pack(kind, number, len(data)) + data)

    def _lose(self) -> None:
        self.lost = True
        for number in list(self._waiting):
            self._settle(number, LinkLostError("the proxy's other process is gone"))
        for task in self._replying:
            task.cancel()
        self._writer.close()
