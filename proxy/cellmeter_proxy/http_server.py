"""Clients' connections: asyncio's protocol and aiohttp's parser, without a web framework.

Invariant: one request of a connection is read and answered at a time; what a client sends ahead waits. A connection
has one task for all its requests, which outlives it where a call is still to be recorded.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from cellmeter_proxy.headers import HEADER_LIMIT
from cellmeter_proxy.http_heads import Heads, Whole, whole
from cellmeter_proxy.http_message import Reply, Request, Response

Handler = Callable[[Request], Awaitable[Response]]

_READ_BYTES: Final = 64 * 1024
_AHEAD_BYTES: Final = 256 * 1024
_ROWS_S: Final = 15.0
"""Longer than a commit takes, also one that another process holds up (the log's busy timeout is 10 s)."""
_KEEP_IDLE_S: Final = 3630.0
"""Longer than proxies and clients keep theirs, so that they need not find one closed under a request."""


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
        self.tasks: set[asyncio.Task[None]] = set()
        """What answers requests, one for a connection, also those whose clients have gone."""
        self.heads = Heads()
        self.is_ending = False
        """No connection is kept for another request."""

    def __call__(self) -> "Connection":
        return Connection(self)

    async def shutdown(self, patience_s: float) -> None:
        """End all connections.

        Clients that wait for an answer get it if it comes in a while, unless that wait is cancelled. All that is being
        answered then is cancelled, and has ended when this returns.
        """
        self.is_ending = True
        for connection in list(self.connections):
            connection.end_if_idle()
        awaited = {connection.task for connection in self.connections if connection.is_busy and connection.task}
        try:
            if awaited:
                await asyncio.wait(awaited, timeout=patience_s)
        finally:
            left = set(self.tasks)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=_ROWS_S)


class Connection(BaseProtocol):
    """One connection of a client."""

    # A client that says it sends nothing more (FIN) counts as gone: the connection of a killed agent looks the same
    # until a write fails, and what it asked for is not to go on till then.

    __slots__ = (
        "_ahead",
        "_content",
        "_is_between",
        "_next",
        "_server",
        "_since",
        "_timer",
        "is_busy",
        "is_slow",
        "task",
    )

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
        self._next: asyncio.Future[Request | None] | None = None  # the next request, where it is waited for
        self._is_between = True  # what has come is whole requests, so that the next bytes begin one
        self.is_busy = False
        """A request is being answered."""
        self.is_slow = False
        """The client takes less than it is sent."""
        self.task: asyncio.Task[None] | None = None
        """What answers the requests, from the first one on."""

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
        if self._parser is None:
            return
        request = whole(data) if self._is_between else None
        known = None if request is None else self._server.heads.find(request.head)
        if request is None or known is None:
            self._parse(data, request)
        else:
            self._take(Request(known, EMPTY_PAYLOAD, self, request.body))

    def _parse(self, data: bytes, request: Whole | None) -> None:
        """Have the parser read what has come; where that looks like a whole request, it is given taken apart, too."""
        parser: Any = self._parser  # that of C, whose types aiohttp does not tell
        messages: Sequence[tuple[RawRequestMessage, StreamReader]]
        try:
            messages, is_upgrade, _ = parser.feed_data(data)
        except HttpProcessingError as error:
            self._refuse(error)
            return
        if is_upgrade:
            # The connection ends with the answer.
            self._parser = None
        self._is_between = False
        for message, content in messages:
            if request is not None and request.is_said(message) and content.is_eof():
                self._is_between = True
                self._server.heads.learn(request.head, message)
            self._take(Request(message, content, self))

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_slow = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_slow = False

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
        if self._next is not None and not self._next.done():
            self._next.set_result(None)

    # The requests

    async def drain(self) -> None:
        """See ``Request``."""
        if self._paused and self.transport is not None:
            await self._drain_helper()

    def end_if_idle(self) -> None:
        """End the connection, unless a request is being answered."""
        if not self.is_busy:
            self.end()

    def end(self) -> None:
        """End the connection once what was written has gone out."""
        if self.transport is not None:
            self.transport.close()

    def _take(self, request: Request) -> None:
        """Have a request answered."""
        self._content, self.is_busy = request.content, True
        if self._next is not None and not self._next.done():
            self._next.set_result(request)
            return
        self.task = self._loop.create_task(self._answer_all(request))
        self._server.tasks.add(self.task)
        self.task.add_done_callback(self._server.tasks.discard)

    async def _answer_all(self, request: Request | None) -> None:
        """Answer one request after another, for as long as the connection is kept."""
        try:
            while request is not None and await self._answer(request):
                self._next = following = self._loop.create_future()
                request = None  # nothing of a call stays while the next one is waited for
                self._go_on()
                request = await following
        finally:
            self.end()

    async def _answer(self, request: Request) -> bool:
        """Answer a request; whether the connection takes another one."""
        content, keeps = request.content, False
        try:
            response = await self._server.handler(request)
            response.begin(request)
            if not response.end():
                await response.drain()
            keeps = response.keep_alive and (content.is_eof() or await self._is_read(content))
        except ConnectionError:
            pass
        except BaseException:
            request.break_off()
            raise
        finally:
            self._content, self.is_busy = None, False
        return keeps and self._parser is not None and not self._server.is_ending

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
            if ahead or not self._is_between:
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
        if not self.is_busy and left_s <= 0:
            self.end()
        else:
            self._timer = self._loop.call_later(max(left_s, 1.0), self._look)
