"""A request of a client, and the answer to it.

Bytes of headers go as they came. Invariant: an answer ends only where ``end`` says so: what was broken off looks
broken off.
"""

import asyncio
import socket
import struct
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, Protocol

from aiohttp import HttpVersion11
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from cellmeter_proxy.headers import RawHeaders

_BODILESS: Final = frozenset({204, 304})
_LAST_CHUNK: Final = b"0\r\n\r\n"


class ClientLine(Protocol):
    """The connection that a request came over."""

    transport: asyncio.Transport | None
    """None once it has ended."""
    is_slow: bool
    """The client takes less than it is sent."""

    async def drain(self) -> None:
        """Wait while the client is slow."""


class Request:
    """A request whose head has come."""

    __slots__ = (
        "_connection",
        "_message",
        "body",
        "content",
        "headers",
        "is_http_1_1",
        "method",
        "path",
        "query",
        "raw_headers",
    )

    def __init__(
        self, message: RawRequestMessage, content: StreamReader, connection: ClientLine, body: bytes | None = None
    ) -> None:
        self.method: str = message.method
        self.path: str = message.url.raw_path
        """As received, percent-encoded, without the query."""
        self.query: str = message.url.raw_query_string
        """As received, without its question mark."""
        self.headers = message.headers
        """By name in any case."""
        self.raw_headers: RawHeaders = message.raw_headers
        """As received."""
        self.is_http_1_1: bool = message.version >= HttpVersion11
        """Whether the client knows chunks."""
        self.content = content
        """The body, as it comes."""
        self.body = body
        """The body, where it has come with the head, and nothing is to be read."""
        self._message = message
        self._connection = connection

    @property
    def wants_more(self) -> bool:
        """Whether the client keeps its connection for another request."""
        # Nobody switches to another protocol here, and what follows such a request may be in one.
        return not self._message.should_close and not self._message.upgrade

    @property
    def has_client(self) -> bool:
        """Whether the connection is still there."""
        transport = self._connection.transport
        return transport is not None and not transport.is_closing()

    def invite_body(self) -> None:
        """Have the client send its body, where it waits for a word (RFC 9110 §10.1.1)."""
        transport = self._connection.transport
        if transport is not None and self.is_http_1_1 and self.headers.get("expect", "").lower() == "100-continue":
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def put(self, data: bytes) -> bool:
        """Send bytes; False where the client is slow to take them, so that more should wait for ``drain``.

        Raises:
            ConnectionError: the client has gone.

        """
        connection = self._connection
        transport = connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(data)
        return not connection.is_slow

    async def drain(self) -> None:
        """Wait while the client is slow.

        Raises:
            ConnectionError: it has gone.

        """
        await self._connection.drain()

    def break_off(self) -> None:
        """End the connection without ending the answer, so that nobody takes half an answer for a whole one."""
        transport = self._connection.transport
        if transport is None:
            return
        if not self.is_http_1_1:
            # The end of such a connection is the end of the answer, unless it is a reset (SO_LINGER of socket(7)).
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


class Response:
    """An answer to a client: a head, then a body in as many pieces as there are.

    The head waits for the first piece of the body, unless ``flush`` sends it ahead. Where the headers name no length,
    the body goes in chunks, or to the end of the connection of a client that knows none.
    """

    __slots__ = ("_chunked", "_head", "_reason", "_request", "_silent", "has_length", "headers", "keep_alive", "status")

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]], reason: bytes | None = None) -> None:
        self.status = status
        self.headers = headers
        self.has_length = b"content-length" in [name.lower() for name, _ in headers]
        """The head says how long the body is."""
        self.keep_alive = False
        """The connection is good for another request."""
        self._reason = reason
        self._head = b""  # what of the answer waits to be sent before its body
        self._request: Request | None = None
        self._chunked = False
        self._silent = False

    @property
    def begun(self) -> bool:
        """The answer has been given to a request."""
        return self._request is not None

    def begin(self, request: Request) -> None:
        """Make it the answer to a request; nothing, where it is one."""
        if self._request is not None:
            return
        self._request = request
        self._silent = request.method == "HEAD" or self.status in _BODILESS
        framed = self._silent or self.has_length
        self._chunked = not framed and request.is_http_1_1
        self.keep_alive = request.wants_more and (framed or self._chunked)
        self._head = self._serialised(request)

    def _serialised(self, request: Request) -> bytes:
        reason = _phrase(self.status) if self._reason is None else self._reason
        version = b"1.1" if request.is_http_1_1 else b"1.0"
        lines = [b"HTTP/%b %d %b" % (version, self.status, reason)]
        lines += [b"%b: %b" % header for header in self.headers]
        if self._chunked:
            lines.append(b"Transfer-Encoding: chunked")
        if not self.keep_alive and request.is_http_1_1:
            lines.append(b"Connection: close")
        elif self.keep_alive and not request.is_http_1_1:
            lines.append(b"Connection: keep-alive")
        lines.append(b"\r\n")
        return b"\r\n".join(lines)

    async def flush(self) -> None:
        """Send the head, if it waits.

        Raises:
            ConnectionError: the client has gone.

        """
        head, self._head = self._head, b""
        if head and not self._begun().put(head):
            await self.drain()

    def put(self, data: bytes) -> bool:
        """Send a piece of the body; False where the client is slow, so that the next one should wait for ``drain``.

        Raises:
            ConnectionError: the client has gone.

        """
        if not data or self._silent:
            return True
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:
            data, self._head = self._head + data, b""
        request = self._request
        return request.put(data) if request is not None else self._begun().put(data)

    async def drain(self) -> None:
        """Wait while the client is slow.

        Raises:
            ConnectionError: the client has gone.

        """
        await self._begun().drain()

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, and wait while the client is slow.

        Raises:
            ConnectionError: the client has gone.

        """
        if not self.put(data):
            await self.drain()

    def end(self, data: bytes = b"") -> bool:
        """Send the last piece of the body, if there is one, and end the answer. Nothing, where it has ended.

        False where the client is slow, as of ``put``.

        Raises:
            ConnectionError: the client has gone.

        """
        if self._silent:
            data = b""
        if self._chunked:
            self._chunked = False
            data = b"%x\r\n%b\r\n%b" % (len(data), data, _LAST_CHUNK) if data else _LAST_CHUNK
        if self._head:
            data, self._head = self._head + data, b""
        return self._begun().put(data) if data else True

    def _begun(self) -> Request:
        if self._request is None:
            raise RuntimeError("an answer is given to a request before anything of it is written")
        return self._request


class Reply(Response):
    """A whole answer of the proxy's own."""

    __slots__ = ("body",)

    def __init__(self, status: int, body: bytes, content_type: bytes, **headers: str) -> None:
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        date = (b"Date", formatdate(usegmt=True).encode())
        length = (b"Content-Length", b"%d" % len(body))
        super().__init__(status, [(b"Content-Type", content_type), length, date, *named])
        self.body = body

    def alone(self) -> bytes:
        """All of it, for one who has made no request that could be read."""
        lines = [b"HTTP/1.1 %d %b" % (self.status, _phrase(self.status))]
        lines += [b"%b: %b" % header for header in self.headers]
        return b"\r\n".join([*lines, b"Connection: close", b"", self.body])

    def end(self, data: bytes = b"") -> bool:
        """See ``Response``."""
        body, self.body = self.body, b""
        return super().end(body + data)


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
