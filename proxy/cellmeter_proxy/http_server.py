"""Requests and answers on clients' connections: asyncio's protocol and aiohttp's parser, without a web framework.

One request of a connection is read at a time, and answered by a task of its own; what a client sends ahead waits. Bytes
of headers go as they came. Invariant: an answer ends only where ``end`` says so, so that what was broken off looks
broken off.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import StreamReader

from cellmeter_proxy.headers import HEADER_LIMIT, RawHeaders

Handler = Callable[["Request"], Awaitable["Response"]]

_READ_BYTES: Final = 64 * 1024
_AHEAD_BYTES: Final = 256 * 1024
_KEEP_IDLE_S: Final = 3630.0
"""Longer than proxies and clients keep theirs, so that they need not find one closed under a request."""
_BODILESS: Final = frozenset({204, 304})
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Request:
    """A request whose head has come."""

    __slots__ = (
        "_connection",
        "_message",
        "content",
        "headers",
        "is_http_1_1",
        "method",
        "path",
        "query",
        "raw_headers",
    )

    def __init__(self, message: RawRequestMessage, content: StreamReader, connection: "Connection") -> None:
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
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(data)
        return not self._connection.writing_paused

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
        return self._begun().put(data)

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

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body, if there is one, and end the answer. Nothing, where it has ended.

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
        if data and not self._begun().put(data):
            await self.drain()

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

    async def end(self, data: bytes = b"") -> None:
        """See ``Response``."""
        body, self.body = self.body, b""
        await super().end(body + data)


class Server:
    """Gives requests to a handler, from as many addresses as it is put behind; a factory of asyncio's protocols.

    Args:
        handler: answers a request; it raises nothing but ``CancelledError``.
        refuse: gives the answer to what is no HTTP, by the name of what is wrong with it.
        linger_s: how long a client that was answered before it had sent all of its request gets to read the answer.

    """

    def __init__(self, handler: Handler, refuse: Callable[[str], Reply], *, linger_s: float) -> None:
        self.handler = handler
        self.refuse = refuse
        self.linger_s = linger_s
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.is_ending = False
        """No connection is kept for another request."""

    def __call__(self) -> "Connection":
        return Connection(self)

    async def shutdown(self, patience_s: float) -> None:
        """End all connections: what is being answered gets a while, and is cancelled then, which is not waited for."""
        self.is_ending = True
        for connection in list(self.connections):
            connection.end_if_idle()
        tasks = {connection.task for connection in self.connections if connection.task is not None}
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()


class Connection(BaseProtocol):
    """One connection of a client."""

    __slots__ = ("_ahead", "_content", "_server", "_since", "_timer", "task")

    def __init__(self, server: Server) -> None:
        parser = HttpRequestParser(
            self,
            server.loop,
            _READ_BYTES,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=1,
        )
        super().__init__(server.loop, parser)
        self._server = server
        self._content: StreamReader | None = None  # of the request that is being answered
        self._ahead = b""  # what came after it
        self._since = 0.0  # when the connection began to wait for a request
        self._timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        """What answers the request."""

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._server.connections.add(self)
        self._since = self._loop.time()
        self._timer = self._loop.call_later(_KEEP_IDLE_S, self._look)
        if self._server.is_ending:
            self.end()

    def data_received(self, data: bytes) -> None:
        content = self._content
        if content is not None and content.is_eof():
            self._ahead += data
            if len(self._ahead) > _AHEAD_BYTES and not self._buffer_paused:
                self._pause_reading_for_buffer()
            return
        parser = self._parser
        if parser is None:
            return
        try:
            messages, is_upgrade, _ = parser.feed_data(data)
        except HttpProcessingError as error:
            self._refuse(error)
            return
        for message, body in messages:
            self._content = body
            self.task = self._loop.create_task(self._answer(Request(message, body, self)))
        if is_upgrade:
            # The connection ends with the answer.
            self._parser = None

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's signature
        # A reader says so after every piece; only what was paused has anything to resume, which is costly.
        if self._reading_paused:
            super().resume_reading(resume_parser and self._parser is not None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.connections.discard(self)
        super().connection_lost(exc)
        self._parser = None
        if self._timer is not None:
            self._timer.cancel()
        if self._content is not None and not self._content.is_eof():
            self._content.set_exception(exc or ConnectionResetError("Connection lost"))

    # The requests

    async def drain(self) -> None:
        """See ``Request``."""
        if self._paused and self.transport is not None:
            await self._drain_helper()

    def end_if_idle(self) -> None:
        """End the connection, unless a request is being answered."""
        if self.task is None:
            self.end()

    def end(self) -> None:
        """End the connection once what was written has gone out."""
        if self.transport is not None:
            self.transport.close()

    async def _answer(self, request: Request) -> None:
        content = request.content
        try:
            response = await self._server.handler(request)
            response.begin(request)
            await response.end()
            keeps = response.keep_alive and (content.is_eof() or await self._is_read(content))
        except ConnectionError:
            keeps = False
        except BaseException:
            self.task = None
            request.break_off()
            raise
        self.task = self._content = None
        if keeps and self._parser is not None and not self._server.is_ending:
            self._go_on()
        else:
            self.end()

    async def _is_read(self, content: StreamReader) -> bool:
        """Whether the rest of a request comes soon. A client that is cut off while it sends may not read the answer."""
        try:
            async with asyncio.timeout(self._server.linger_s):
                while await content.readany():
                    pass
        except (TimeoutError, ConnectionError, web.RequestPayloadError):
            return False
        return True

    def _go_on(self) -> None:
        """Take the next request."""
        self._since = self._loop.time()
        ahead, self._ahead = self._ahead, b""
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        if self._parser is not None:
            self._parser.message_consumed()
            self.data_received(ahead)

    def _refuse(self, error: HttpProcessingError) -> None:
        """What came is not HTTP, or goes on as none."""
        self._parser = None
        if self._content is not None:
            if self._content.exception() is None:
                self._content.set_exception(web.RequestPayloadError(error.message))
            return
        reply = self._server.refuse(type(error).__name__)
        if self.transport is not None:
            self.transport.write(reply.alone())
            self.transport.close()

    def _look(self) -> None:
        """End a connection that has been idle for long."""
        left_s = self._since + _KEEP_IDLE_S - self._loop.time()
        if self.task is None and left_s <= 0:
            self.end()
        else:
            self._timer = self._loop.call_later(max(left_s, 1.0), self._look)


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
