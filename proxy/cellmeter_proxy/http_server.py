"""Requests and answers on a client's connection: aiohttp's protocol and parser, without its web framework.

``aiohttp.web.Server`` reads the requests, keeps the connections and ends them; what it hands to its handler and takes
back is ours, because its own objects for the two cost more than all else that the relay does for a call. Bytes of
headers go as they came.

Invariant: an answer ends only where ``write_eof`` says so, so that what was broken off looks broken off.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy

from cellmeter_proxy.headers import RawHeaders

Handler = Callable[["Request"], Awaitable["Response"]]
UNREAD: Final = "UNKNOWN"
"""What aiohttp calls the method of a request that it could not read, and answers by itself."""

_BODILESS: Final = frozenset({204, 304})
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Request:
    """A request whose head has come."""

    __slots__ = ("_message", "_protocol", "_task", "_writer", "content", "method")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> None:
        self.method: str = message.method
        self.content = payload
        """The body, as it comes."""
        self._message = message
        self._protocol = protocol
        self._writer = writer
        self._task: asyncio.Task[None] | None = task

    @property
    def path(self) -> str:
        """The path as received, percent-encoded, without the query."""
        path: str = self._message.url.raw_path
        return path

    @property
    def query(self) -> str:
        """The query as received, without its question mark."""
        query: str = self._message.url.raw_query_string
        return query

    @property
    def headers(self) -> "CIMultiDictProxy[str]":
        """By name in any case."""
        headers: CIMultiDictProxy[str] = self._message.headers
        return headers

    @property
    def raw_headers(self) -> RawHeaders:
        """As received."""
        headers: RawHeaders = self._message.raw_headers
        return headers

    @property
    def is_http_1_1(self) -> bool:
        """Whether the client knows chunks."""
        return bool(self._message.version >= HttpVersion11)

    @property
    def wants_more(self) -> bool:
        """Whether the client keeps its connection for another request."""
        return not self._message.should_close

    @property
    def has_client(self) -> bool:
        """Whether the connection is still there."""
        transport = self._protocol.transport
        return transport is not None and not transport.is_closing()

    def invite_body(self) -> None:
        """Have the client send its body, where it waits for a word (RFC 9110 §10.1.1)."""
        transport = self._protocol.transport
        if transport is not None and self.is_http_1_1 and self.headers.get("expect", "").lower() == "100-continue":
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def put(self, data: bytes) -> bool:
        """Send bytes; False where the client is slow to take them, so that more should wait for ``drain``.

        Raises:
            ConnectionError: the client has gone.

        """
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(data)
        return not self._protocol.writing_paused

    async def drain(self) -> None:
        """Wait while the client is slow.

        Raises:
            ConnectionError: it has gone.

        """
        await self._writer.drain()

    def break_off(self) -> None:
        """End the connection without ending the answer, so that nobody takes half an answer for a whole one."""
        transport = self._protocol.transport
        if transport is None:
            return
        if not self.is_http_1_1:
            # The end of such a connection is the end of the answer, unless it is a reset (SO_LINGER of socket(7)).
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    # What aiohttp's protocol asks of a request

    def _finish(self) -> None:
        """Nothing of a request is kept that would have to be let go."""

    def _cancel(self, exc: BaseException) -> None:
        self.content.set_exception(exc)


class Response:
    """An answer to a client: a head, then a body in as many pieces as there are.

    The head waits for the first piece of the body, unless ``flush`` sends it ahead. Where the headers name no length,
    the body goes in chunks, or to the end of the connection of a client that knows none.
    """

    __slots__ = ("_chunked", "_head", "_reason", "_request", "_silent", "headers", "keep_alive", "status")

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]], reason: bytes | None = None) -> None:
        self.status = status
        self.headers = headers
        self.keep_alive = False
        """The connection is good for another request."""
        self._reason = reason
        self._head = b""  # what of the answer waits to be sent before its body
        self._request: Request | None = None
        self._chunked = False
        self._silent = False

    @property
    def prepared(self) -> bool:
        """The answer has begun."""
        return self._request is not None

    @property
    def has_length(self) -> bool:
        """The head says how long the body is."""
        return any(name.lower() == b"content-length" for name, _ in self.headers)

    async def prepare(self, request: Request) -> None:
        """Begin the answer to a request; nothing, where it has begun."""
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
        data, self._head = self._head + data, b""
        return self._begun().put(data)

    async def drain(self) -> None:
        """Wait while the client is slow.

        Raises:
            ConnectionError: it has gone.

        """
        await self._begun().drain()

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, and wait while the client is slow.

        Raises:
            ConnectionError: the client has gone.

        """
        if not self.put(data):
            await self.drain()

    async def write_eof(self) -> None:
        """End the answer.

        Raises:
            ConnectionError: the client has gone.

        """
        rest, self._head = self._head, b""
        if self._chunked:
            self._chunked = False
            rest += _LAST_CHUNK
        if rest and not self._begun().put(rest):
            await self.drain()

    def _begun(self) -> Request:
        if self._request is None:
            raise RuntimeError("an answer is prepared before anything of it is written")
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

    async def prepare(self, request: Request) -> None:
        """Begin the answer, and give it the body."""
        if not self.prepared:
            await super().prepare(request)
            await self.write(self.body)


def make_server(handler: Handler, **options: Any) -> web.Server:
    """A server for ``aiohttp.web.ServerRunner`` that has requests handled.

    Args:
        handler: answers a request; it raises nothing but ``CancelledError``.
        options: of aiohttp's ``RequestHandler``.

    """
    # aiohttp types the two with its own classes, and asks of them no more than these have.
    factory: Any = _request
    handle: Any = handler
    return web.Server(handle, request_factory=factory, auto_decompress=False, **options)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> Request | web.BaseRequest:
    if message.method == UNREAD and not message.raw_headers:
        return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop())
    return Request(message, payload, protocol, writer, task)


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
