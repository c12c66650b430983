"""An answer of a provider as it arrives: the head, then the body in as many pieces as there are.

What the HTTP parser finds is given, in the callback of the event loop that brought it, to whoever waits for it: a token
of a stream need not wait for a task to be woken. Invariant: every piece of a body is taken once, in order; what is not
taken at once waits here, and when that is much, the provider is held back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Protocol, Self

import aiohttp
import httptools
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from cellmeter_proxy.headers import HEADER_LIMIT

Take = Callable[[bytes], bool]
"""Takes a piece of a body the moment it arrives; False where there is more to do for it than can be done at once."""

_MAX_HEADERS: Final = 256
_MAX_HEAD: Final = 1024 * 1024
_MAX_WAITING: Final = 128 * 1024
_SWITCHING: Final = 101
_UNCHUNKED: Final = "Not enough data to satisfy transfer length header."
_NO_STATUS: Final = "the answer has no status between 100 and 999"
_NUL: Final = "a header of the answer holds a NUL"
_TOO_LONG: Final = "the head of the answer is too long"
_SHORT: Final = "Not enough data to satisfy content length header."


class Line(Protocol):
    """What an answer asks of the connection that it comes over."""

    def listen(self) -> None:
        """Count the provider's silence from now on."""

    def be_patient(self) -> None:
        """Count it no longer."""

    def hold(self) -> None:
        """Read nothing more for now."""

    def go_on(self) -> None:
        """Read on."""

    def done(self, *, keep: bool) -> None:
        """The answer has ended. ``keep``: its provider takes another request on the same connection."""

    def close(self) -> None:
        """End the connection."""


class ProviderAnswer:
    """An answer. Leaving its context closes the connection, unless the answer has ended.

    Args:
        line: the connection that it comes over.
        bodiless: it has no body, whatever its head says.

    """

    __slots__ = (
        "_bodiless",
        "_error",
        "_fed",
        "_is_held",
        "_line",
        "_needs_end",
        "_parser",
        "_pieces",
        "_take",
        "_waiter",
        "head",
        "headers",
        "is_whole",
        "on_body",
        "overrun",
        "raw_headers",
        "reason",
        "status",
    )

    def __init__(self, line: Line, *, bodiless: bool) -> None:
        self.head: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the head has come."""
        self.status = 0
        self.reason = b""
        """The phrase after the status."""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        """As received."""
        self.headers: CIMultiDictProxy[str]
        """By name in any case."""
        self.is_whole = False
        """Nothing of the body is still to come."""
        self.overrun = False
        """More has come than the answer."""
        self._line: Line | None = line
        self._bodiless = bodiless
        self._error: Exception | None = None
        self._fed = 0  # bytes before the end of the head
        self._needs_end: str | None = None  # what is missing where the connection ends before the body has ended
        self._pieces: list[bytes] = []
        self._is_held = False
        self._take: Take | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # As browsers and other clients have it: some providers end lines with a mere LF, or pad the sizes of chunks.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    @property
    def waiting(self) -> int:
        """How many pieces of the body have come and are not taken."""
        return len(self._pieces)

    @property
    def is_broken(self) -> bool:
        """Nothing more of the body will come, though it has not ended."""
        return self._error is not None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece as it arrives.

        Raises:
            TimeoutError: the provider fell silent.
            aiohttp.ClientError: it broke off.

        """
        taken: list[bytes] = []

        def take(piece: bytes) -> bool:
            taken.append(piece)
            return False

        async for _ in self.each(take):
            yield taken.pop()

    async def each(self, take: Take) -> AsyncIterator[None]:
        """Have the body taken piece by piece as it arrives; the iterator yields for each piece that ``take`` left.

        Nothing more is taken until the iterator is asked on.

        Raises:
            TimeoutError: the provider fell silent.
            aiohttp.ClientError: it broke off.

        """
        while await self._left(take):
            yield

    def take_all(self) -> bytes:
        """What has come of the body and was not taken."""
        return self._joined() if self._pieces else b""

    def close(self) -> None:
        """Read no more of the answer."""
        line, self._line, self._parser = self._line, None, None
        if line is not None:
            line.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _left(self, take: Take) -> bool:
        """Wait until a piece was not taken; False at the end of the body."""
        if self._pieces and not take(self._joined()):
            return True
        if self._error is not None:
            raise self._error
        if self.is_whole:
            return False
        line = self._line
        if line is None:
            raise aiohttp.ClientPayloadError("the answer was closed")
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._take, self._waiter = take, waiter
        line.listen()
        try:
            return await waiter
        finally:
            self._take = self._waiter = None
            if self._line is not None:
                # A client that is slow to take a piece is not the provider's silence.
                self._line.be_patient()

    def _joined(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if self._is_held and self._line is not None:
            self._is_held = False
            self._line.go_on()
        return data

    # What the connection tells

    def feed(self, data: bytes) -> None:
        """Take what has come over the connection."""
        parser = self._parser
        if parser is None:
            return
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # what follows is in another protocol
        except httptools.HttpParserError as error:
            # What follows a whole answer changes nothing of it.
            self.overrun = self.is_whole
            if not self.is_whole:
                why = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
                self._break(HttpProcessingError(code=400, message=str(why)))
            return
        if not self.head.done():
            self._fed += len(data)
            if self._fed > _MAX_HEAD:
                self._break(HttpProcessingError(code=400, message=_TOO_LONG))
            return
        if self._take is not None:
            self._tell()
        elif not self._is_held and sum(map(len, self._pieces)) > _MAX_WAITING and self._line:
            self._is_held = True
            self._line.hold()

    def lose(self, error: BaseException | None) -> None:
        """The connection has ended."""
        if self.is_whole or self._error is not None:
            return
        if not self.head.done():
            lost = aiohttp.ClientOSError(*error.args) if isinstance(error, OSError) else None
            self.head.set_exception(lost or aiohttp.ServerDisconnectedError())
        elif self._needs_end is not None or error is not None:
            self._break(error or HttpProcessingError(code=400, message=self._needs_end or ""))
        else:
            self._end(keep=False)
            self._tell()

    def fall_silent(self) -> None:
        """Nothing has come for too long."""
        self._break(aiohttp.SocketTimeoutError("nothing more of the answer came"))

    # What the parser calls

    def on_message_begin(self) -> None:
        self.overrun = self.is_whole

    def on_status(self, phrase: bytes) -> None:
        if not self.head.done():
            self.reason += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head.done():  # a trailer
            return
        if len(name) + len(value) > HEADER_LIMIT or len(self.raw_headers) >= _MAX_HEADERS:
            raise ValueError(_TOO_LONG)
        if b"\0" in value:  # RFC 9110 §5.5; the parser lets it pass
            raise ValueError(_NUL)
        # Nothing may stand between a name and its colon, and a proxy removes it (RFC 9112 §5.1): the next reader could
        # take the name for another one.
        self.raw_headers.append((name.rstrip(b" \t"), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or self.head.done():
            return
        status = parser.get_status_code()
        if status < 100:  # RFC 9110 §15; the parser lets it pass
            raise ValueError(_NO_STATUS)
        if 100 <= status < 200 and status != _SWITCHING:
            # Said before the answer itself (RFC 9110 §15.2).
            self.raw_headers, self.reason = [], b""
            return
        self.status = status
        headers = [
            (name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in self.raw_headers
        ]
        self.headers = CIMultiDictProxy(CIMultiDict(headers))
        if "transfer-encoding" in self.headers:
            # What was applied last tells where the body ends, in whichever line it stands (RFC 9112 §6.3).
            last = ",".join(self.headers.getall("transfer-encoding")).rpartition(",")[2]
            self._needs_end = _UNCHUNKED if last.strip().lower() == "chunked" else None
        elif "content-length" in self.headers:
            self._needs_end = _SHORT
        self.head.set_result(None)
        if self._bodiless:
            # The parser would wait for what the head announces.
            self._end(keep=False)

    def on_message_complete(self) -> None:
        parser = self._parser
        if self.head.done() and not self.is_whole and parser is not None:
            self._end(keep=parser.should_keep_alive() and self.status != _SWITCHING)

    # How it ends

    def _tell(self) -> None:
        """Have what has come taken, or its end noticed, where somebody waits for it."""
        take, waiter = self._take, self._waiter
        if take is None or waiter is None or waiter.done():
            return
        try:
            if self._pieces and not take(self._joined()):
                self._take = None
                waiter.set_result(True)
            elif self._error is not None:
                waiter.set_exception(self._error)
            elif self.is_whole:
                waiter.set_result(False)
        except Exception as error:  # noqa: BLE001 - goes to whoever waits
            waiter.set_exception(error)

    def _end(self, *, keep: bool) -> None:
        line, self._line, self._parser = self._line, None, None
        self.is_whole = True
        self._pieces = self._pieces[:]  # where the parser goes on, it is with something else
        if line is not None:
            line.done(keep=keep)

    def _break(self, error: BaseException) -> None:
        """Nothing more can be had of this answer."""
        self._parser = None
        if not self.head.done():
            self.head.set_exception(error)
        elif isinstance(error, TimeoutError):
            self._error = error
        else:
            self._error = aiohttp.ClientPayloadError(f"Response payload is not completed: {error!r}")
        self.close()
        self._tell()
