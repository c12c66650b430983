"""Back to the client: one answer, released as it arrives, its last bytes only once the row is committed.

Invariant: bytes are released in the order they came; those that complete the answer after the row is closed. Where the
client has gone, the answer is still read for the record, within bounds. Where the provider breaks off, so does the
client's connection, for otherwise half an answer would pass for a whole one.
"""

import asyncio
import dataclasses
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiohttp
from aiohttp import HttpVersion11, web

from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.headers import answer_headers, printable
from cellmeter_proxy.late import Envelope
from cellmeter_proxy.outcome import Broken, Head, Limits, broke_off
from cellmeter_proxy.record import now_us
from cellmeter_proxy.recording import Answer
from cellmeter_proxy.sending import Incoming, request_id
from cellmeter_proxy.watch import watch

Close = Callable[[Exchange, Answer], Awaitable[None]]
"""Closes the row from the answer as far as it has come, and returns after the commit."""


class Drain(NamedTuple):
    """How much is still read once nobody waits for it: the client has gone, or has the terminal event."""

    seconds: float
    size: int


class Passage:
    """Passes one answer on."""

    def __init__(self, exchange: Exchange, incoming: Incoming, limits: Limits, drain: Drain, close: Close) -> None:
        upstream = incoming.response
        head = Head(
            upstream.status,
            exchange.ms(),
            upstream.headers.get("Content-Type"),
            upstream.headers.get("Content-Encoding"),
            request_id(upstream.headers),
            told_late=exchange.early is not None,
        )
        self._watcher = watch(exchange.call.dialect, upstream.headers, strip_usage=incoming.asked)
        self._answer = Answer(head, self._watcher)
        self._response = exchange.early or web.StreamResponse(
            status=upstream.status,
            reason=None if upstream.reason is None else printable(upstream.reason),
            headers=answer_headers(upstream.raw_headers, shortened=self._watcher.strips),
        )
        self._envelope: Envelope | None = None
        if exchange.early is not None:
            streamed = self._watcher.frames is not None
            self._envelope = Envelope(exchange.early, streamed=streamed, encoding=head.content_encoding)
        self._exchange = exchange
        self._incoming = incoming
        self._limits = limits
        self._drain = drain
        self._close = close

    async def run(self) -> web.StreamResponse:
        """Pass the answer on to its end, and close the row on the way."""
        await self._release_head()
        broken = await self._pass_body()
        held = self._watcher.finish()
        if broken is None:
            await self._complete(held)
            if self._envelope is not None:
                await self._write(self._envelope.end())
            return self._response
        if not self._exchange.closed:
            await self._close(self._exchange, dataclasses.replace(self._answer, broken=broken))
        return break_off(self._exchange.request, self._response)

    async def _pass_body(self) -> Broken | None:
        """Pass the body on as it arrives; return why it broke off, or None where it ended."""
        exchange, watcher = self._exchange, self._watcher
        drained = 0
        patience = asyncio.timeout(None)
        try:
            async with patience:
                async for chunk in self._incoming.chunks():
                    await self._release(watcher.feed(chunk, exchange.ms()))
                    if watcher.terminal and not exchange.closed:
                        await self._complete(watcher.take_held())
                    if exchange.awaited and not exchange.closed:
                        patience.reschedule(None)
                        continue
                    if patience.when() is None:
                        patience.reschedule(asyncio.get_running_loop().time() + self._drain.seconds)
                    drained += len(chunk)
                    if drained > self._drain.size:
                        return _too_much(f"{drained} further bytes")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if patience.expired():
                return _too_much(f"{self._drain.seconds:g} s")
            return broke_off(error, self._limits)
        return None

    async def _complete(self, held: bytes) -> None:
        """Commit the row, then let go of the bytes that complete the answer."""
        if held or not self._exchange.closed:
            await self._close(self._exchange, self._answer)
        if not await self._release(held):
            await self._close(self._exchange, self._answer)

    async def _release_head(self) -> None:
        if self._exchange.early is not None:
            return
        try:
            await self._response.prepare(self._exchange.request)
            self._exchange.response = self._response
        except ConnectionError:
            self._exchange.client_gone_at = now_us()

    async def _release(self, data: bytes) -> bool:
        """Let bytes go to the client; False where it has just been found gone."""
        return await self._write(data if self._envelope is None else self._envelope.put(data))

    async def _write(self, data: bytes) -> bool:
        if not data or self._exchange.client_gone_at is not None:
            return True
        try:
            await self._response.write(data)
        except ConnectionError:
            self._exchange.client_gone_at = now_us()
            return False
        return True


def break_off(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """End the client's connection without ending its answer, so that nobody takes half an answer for a whole one."""
    transport = request.transport
    if transport is None:
        return response
    if request.version < HttpVersion11:
        # The end of such a connection is the end of the answer, unless it is a reset (SO_LINGER of socket(7)).
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return response


def _too_much(what: str) -> Broken:
    return Broken("client_gone", f"the client had gone, and the answer did not end within {what}")
