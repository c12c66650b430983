"""Real counterparts for tests: a provider and a client that speak in literal bytes.

They use sockets on 127.0.0.1 and nothing else, so that what a test shows is what a wire carries.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self

Step = bytes | Callable[[], Awaitable[object]]
"""Bytes to send, or something to wait for before the next step."""

EVENT_STREAM: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\ntransfer-encoding: chunked\r\nx-request-id: r1\r\n\r\n"
)
"""The head of a streamed answer; its body is chunks, and then ``LAST_CHUNK``."""
LAST_CHUNK: Final = b"0\r\n\r\n"
_HEAD_END: Final = b"\r\n\r\n"


def json_answer(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    """A whole answer with a Content-Length."""
    lines = [b"HTTP/1.1 " + status, b"content-type: application/json", *headers, b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + _HEAD_END + body


def chunk(data: bytes) -> bytes:
    """Bytes as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class LiteralProvider:
    """A provider that answers its requests with given bytes, one script after another.

    Each script is a sequence of steps. ``reset`` and ``close`` end the connection; without one it stays open
    for the next request. ``received`` holds every request, head and body, exactly as it came.
    """

    def __init__(self, *scripts: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self.received: list[bytes] = []
        self.url = ""
        self._scripts = iter(scripts)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._met = asyncio.Event()  # somebody has connected

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=64 * 1024 * 1024, ssl=self._tls)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http{'s' if self._tls else ''}://{host}:{port}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def hang_up(self) -> None:
        """Close every connection in order, at least one, and return when its end is with the other side."""
        await self._met.wait()
        for writer in list(self._writers):
            writer.close()
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._met.set()
        try:
            while (request := await read_message(reader)) is not None:
                self.received.append(request)
                await self._answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        for step in next(self._scripts, (reset,)):
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif step is reset:
                reset_connection(writer.transport)
                raise ConnectionResetError
            elif step is close:
                writer.close()
                raise ConnectionResetError
            else:
                await step()


def reset_connection(transport: asyncio.BaseTransport) -> None:
    """Break a TCP connection off, so that the other side is told (RST) rather than left with an end (socket(7))."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.close()


async def reset() -> None:
    """The step that breaks the connection off."""


async def close() -> None:
    """The step that closes the connection in order."""


async def read_message(reader: asyncio.StreamReader) -> bytes | None:
    """One HTTP message with a Content-Length, or with no body, as it came; None at the end of the connection."""
    try:
        head = await reader.readuntil(_HEAD_END)
    except asyncio.IncompleteReadError:
        return None
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length)


class LiteralClient:
    """A client that sends given bytes and sees every byte that comes back, as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect to ``http://HOST:PORT``."""
        host, _, port = url.removeprefix("http://").partition("/")[0].rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def post(self, path: str, body: bytes, *headers: bytes) -> None:
        """Send a POST with exactly these headers and this body."""
        head = [f"POST {path} HTTP/1.1".encode(), b"Host: proxy", *headers, b"Content-Length: %d" % len(body)]
        self._writer.write(b"\r\n".join(head) + _HEAD_END + body)
        await self._writer.drain()

    async def send(self, data: bytes) -> None:
        """Send exactly these bytes."""
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def until(self, end: bytes) -> bytes:
        """Everything up to and with ``end``."""
        return await self._reader.readuntil(end)

    async def exactly(self, size: int) -> bytes:
        """The next bytes."""
        return await self._reader.readexactly(size)

    async def rest(self) -> tuple[bytes, bool]:
        """Everything to the end of the connection, and whether it was broken off rather than closed in order."""
        data, broken = bytearray(), False
        try:
            while chunk := await self._reader.read(65536):
                data += chunk
        except ConnectionError:
            broken = True
        await self.close()
        return bytes(data), broken

    def abort(self) -> None:
        """Go away without a word."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection in order."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return
