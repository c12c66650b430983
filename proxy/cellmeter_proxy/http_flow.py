"""One connection to a provider, and the body that is on its way over it.

aiohttp's connector makes the connection and its parser reads what comes; what comes is given, in the callback that
brought it, to whoever waits. Invariant: every piece of a body is taken once, in order; what is not taken at once waits
in the connection's own buffer, which holds the provider back when it is full.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser, RawResponseMessage
from aiohttp.streams import StreamReader

from cellmeter_proxy.headers import HEADER_LIMIT

Take = Callable[[bytes], bool]
"""Takes a piece of a body the moment it arrives; False where there is more to do for it than can be done at once."""
Head = tuple[RawResponseMessage, StreamReader]
"""The head of an answer, and its body as it comes."""

_READ_BYTES: Final = 64 * 1024
_SWITCHING: Final = 101
_HANG_UP: Final = sum(getattr(select, name, 0) for name in ("POLLHUP", "POLLERR", "POLLRDHUP"))


class Wire(BaseProtocol):
    """A connection to a provider, for one request after another.

    Args:
        connection: fresh from the connector; nothing has been sent over it.
        silence_s: how long the provider may be silent while an answer is due.

    """

    __slots__ = (
        "_connection",
        "_content",
        "_head",
        "_heard",
        "_poll",
        "_silence_s",
        "_timer",
        "due",
        "on_news",
        "spent",
    )

    def __init__(self, connection: Connection, silence_s: float) -> None:
        super().__init__(asyncio.get_running_loop())
        self._connection = connection
        self._silence_s = silence_s
        self._head: asyncio.Future[Head] | None = None
        self._content: StreamReader | None = None
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.due = False
        """Something is to come, and its silence counts."""
        self.spent = False
        """The connection takes no request: it has ended, or something has come that answers none."""
        self.on_news: Callable[[], None] | None = None
        """Is told of whatever comes."""
        self.transport = connection.transport
        made = connection.protocol
        if self.transport is None or self.transport.is_closing() or made is None or made.should_close:
            self.spent = True
            return
        self.transport.set_protocol(self)
        sock = self.transport.get_extra_info("socket")
        self._poll = select.poll()
        if sock is not None and sock.fileno() >= 0:
            self._poll.register(sock.fileno(), _HANG_UP)

    def is_spent(self) -> bool:
        """Whether the connection takes no request, also where the event loop has not come to see it (poll(2)).

        Servers say 408 on an idle connection before they close it
        (https://www.rfc-editor.org/rfc/rfc9110#section-15.5.9).
        """
        if self.spent or self.transport is None or self.transport.is_closing():
            return True
        return bool(self._poll.poll(0))

    async def ask(self, request: bytes, body: bytes, *, bodiless: bool) -> Head:
        """Send a request at once and whole, and wait for the head of its answer.

        Args:
            request: its head.
            body: what follows it.
            bodiless: the answer has no body, whatever its head says.

        Raises:
            TimeoutError: it did not come in time.
            aiohttp.ClientError: the connection was lost.
            aiohttp.http_exceptions.HttpProcessingError: what came is not HTTP.

        """
        loop, transport = self._loop, self.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        self._parser = HttpResponseParser(
            self,
            loop,
            _READ_BYTES,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
            payload_exception=aiohttp.ClientPayloadError,
            response_with_body=not bodiless,
            read_until_eof=True,
            auto_decompress=False,
        )
        self._content = None
        head: asyncio.Future[Head] = loop.create_future()
        self._head = head
        if body:
            transport.writelines((request, body))
        else:
            transport.write(request)
        self.listen()
        return await head

    def listen(self) -> None:
        """Count the provider's silence from now on."""
        self.due = True
        self._heard = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence_s, self._look)

    def rest(self) -> None:
        """Nothing more is due of this answer."""
        self.due = False
        self.on_news = None
        self._parser = None
        self._content = None

    def close(self) -> None:
        """End the connection; what of a request has not gone out is not wanted, and its provider may never take it."""
        self.spent = True
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()
        elif transport is not None:
            transport.close()
        self._connection.close()

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            self.spent = self.spent or bool(data)
            return
        self._heard = self._loop.time()
        news = self.on_news  # as it was before the answer ended, with which the connection is anybody's
        try:
            messages, _, _ = parser.feed_data(data)
        except HttpProcessingError as error:
            self._fail(HttpProcessingError(code=error.code, message=error.message, headers=error.headers))
            return
        except Exception:  # noqa: BLE001 - the parser's own trouble with what came
            self._fail(HttpProcessingError())
            return
        for message, content in messages:
            self._take(message, content)
        if news is not None:
            news()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's signature
        # A reader says so after every piece; only what was paused has anything to resume, which is costly.
        if self._reading_paused:
            super().resume_reading(resume_parser and self._parser is not None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.spent = True
        news = self.on_news
        self._end_body(exc)
        if self._head is not None and not self._head.done():
            lost = aiohttp.ClientOSError(*exc.args) if isinstance(exc, OSError) else aiohttp.ServerDisconnectedError()
            self._head.set_exception(lost)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        made = self._connection.protocol
        if made is not None:
            made.connection_lost(exc)
        self._connection.close()
        if news is not None:
            news()

    def _take(self, message: RawResponseMessage, content: StreamReader) -> None:
        """A head has come; those before the answer's own (RFC 9110 §15.2) are passed over."""
        if 100 <= message.code < 200 and message.code != _SWITCHING:
            return
        if self._head is None or self._head.done():
            self.spent = True
            return
        self.spent = self.spent or message.should_close or message.code == _SWITCHING
        self._content = content
        self._head.set_result((message, content))

    def _end_body(self, exc: BaseException | None) -> None:
        parser, content = self._parser, self._content
        self._parser = None
        if parser is None:
            return
        try:
            parser.feed_eof()
        except Exception as error:  # noqa: BLE001 - the parser's word for a body that is not whole
            if content is not None:
                self._break(content, error, "" if exc is None else f". {exc!r}")

    def _fail(self, error: Exception) -> None:
        """Nothing more can be had of this connection."""
        self.spent = True
        self._parser = None
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        elif self._content is not None:
            self._break(self._content, error)
        if self.transport is not None:
            self.transport.close()
        if self.on_news is not None:
            self.on_news()

    @staticmethod
    def _break(content: StreamReader, error: Exception, more: str = "") -> None:
        if content.is_eof() or content.exception() is not None:
            return
        if not isinstance(error, TimeoutError):
            error = aiohttp.ClientPayloadError(f"Response payload is not completed: {error!r}{more}")
        content.set_exception(error)

    def _look(self) -> None:
        """Whether the provider has been silent for too long."""
        self._timer = None
        if self.transport is None:
            return
        left_s = self._heard + self._silence_s - self._loop.time() if self.due else self._silence_s
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._fail(aiohttp.SocketTimeoutError("nothing more of the answer came"))


class Flow:
    """One body on its way from its connection to whoever takes it."""

    __slots__ = ("_content", "_take", "_waiter", "_wire")

    def __init__(self, content: StreamReader, wire: Wire | None, take: Take) -> None:
        self._content = content
        self._wire = wire
        self._take = take
        self._waiter: asyncio.Future[bool] | None = None

    async def left(self) -> bool:
        """Wait until a piece was not taken; False at the end of the body."""
        found = self._look()
        if found is not None:
            return found
        wire = self._wire
        if wire is None:
            raise RuntimeError("of an answer that was closed no more is read")
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        wire.on_news = self._on_news
        wire.listen()
        try:
            return await waiter
        finally:
            # A client that is slow to take a piece is not the provider's silence.
            if wire.on_news == self._on_news:
                wire.on_news, wire.due = None, False

    def _look(self) -> bool | None:
        """Have everything taken that is there: whether something was left; None where more is to come."""
        while data := self._next():
            if not self._take(data):
                return True
        error = self._content.exception()
        if error is not None:
            raise error
        return False if self._content.at_eof() else None

    def _next(self) -> bytes:
        if self._content.exception() is None:
            return self._content.read_nowait()
        # aiohttp gives nothing more once the connection has broken, not even what came before.
        return self._content._read_nowait(-1)  # noqa: SLF001 - see above

    def _on_news(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        try:
            found = self._look()
        except Exception as error:  # noqa: BLE001 - goes to whoever waits
            waiter.set_exception(error)
        else:
            if found is not None:
                waiter.set_result(found)
