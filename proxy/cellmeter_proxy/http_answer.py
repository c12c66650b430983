"""An answer of a provider as it arrives: the head, then the body (see ``http_body``).

Invariant: an answer is whole only where its own framing says so; any other end of its connection is an error.
"""

import asyncio
from typing import Final

import aiohttp
import httptools
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from cellmeter_proxy.headers import HEADER_LIMIT
from cellmeter_proxy.http_body import ArrivingBody, ProviderLine

_MAX_HEADERS: Final = 256
_MAX_HEAD: Final = 1024 * 1024
_SWITCHING: Final = 101
_UNCHUNKED: Final = "Not enough data to satisfy transfer length header."
_NO_STATUS: Final = "the answer has no status between 100 and 999"
_NUL: Final = "a header of the answer holds a NUL"
_TOO_LONG: Final = "the head of the answer is too long"
_SHORT: Final = "Not enough data to satisfy content length header."


class ProviderAnswer(ArrivingBody):
    """An answer.

    Args:
        line: the connection that it comes over.
        loop: the event loop that runs.
        bodiless: it has no body, whatever its head says.

    """

    __slots__ = (
        "_bodiless",
        "_fed",
        "_needs_end",
        "_parser",
        "head",
        "headers",
        "overrun",
        "raw_headers",
        "reason",
        "status",
    )

    def __init__(self, line: ProviderLine, loop: asyncio.AbstractEventLoop, *, bodiless: bool) -> None:
        super().__init__(line, loop)
        self.head: asyncio.Future[None] = loop.create_future()
        """Done when the head has come."""
        self.status = 0
        """0 until the head has come."""
        self.reason = b""
        """The phrase after the status."""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        """As received."""
        self.headers: CIMultiDictProxy[str]
        """By name in any case."""
        self.overrun = False
        """More has come than the answer."""
        self._bodiless = bodiless
        self._fed = 0  # bytes until the head had come, and what came with its end
        self._needs_end: str | None = None  # what is missing where the connection ends before the body has ended
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # As browsers and other clients have it: some providers end lines with a mere LF, or pad the sizes of chunks.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def close(self) -> None:
        """Read no more of the answer. Its connection ends, unless the answer has."""
        line, self._line, self._parser = self._line, None, None
        if line is not None:
            line.close()

    # What the connection tells

    def feed(self, data: bytes) -> None:
        """Take what has come over the connection."""
        parser = self._parser
        if parser is None:
            return
        if not self.status:
            self._fed += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # what follows is in another protocol
        except httptools.HttpParserError as error:
            self._misread(error)
            return
        if self.status:
            self._tell()
        elif self._fed > _MAX_HEAD:
            self._break(HttpProcessingError(code=400, message=_TOO_LONG))

    def lose(self, error: BaseException | None) -> None:
        """The connection has ended."""
        if self.is_whole or self._error is not None:
            return
        if not self.status:
            lost = aiohttp.ClientOSError(*error.args) if isinstance(error, OSError) else None
            self._give_head(lost or aiohttp.ServerDisconnectedError())
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
        if not self.status:
            self.reason += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else it is a trailer
            self.raw_headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or self.status:
            return
        status = parser.get_status_code()
        if status < 100:  # RFC 9110 §15; the parser lets it pass
            raise ValueError(_NO_STATUS)
        if 100 <= status < 200 and status != _SWITCHING:
            # Said before the answer itself (RFC 9110 §15.2).
            self.raw_headers, self.reason = [], b""
            return
        self._check()
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
        self._give_head()
        if self._bodiless:
            # The parser would wait for what the head announces.
            self._end(keep=False)

    def _check(self) -> None:
        """Refuse headers that no provider sends or no reader should see, and take the space behind names and values.

        Raises:
            ValueError: for the parser, which hands it on.

        """
        headers = self.raw_headers
        sizes = [len(name) + len(value) for name, value in headers] if self._fed > HEADER_LIMIT else []
        if len(headers) > _MAX_HEADERS or max(sizes, default=0) > HEADER_LIMIT:
            raise ValueError(_TOO_LONG)
        if b"\0" in b"".join([value for _, value in headers]):  # RFC 9110 §5.5
            raise ValueError(_NUL)
        # Nothing may stand between a name and its colon, and a proxy removes it (RFC 9112 §5.1): the next reader could
        # take the name for another one.
        self.raw_headers = [(name.rstrip(b" \t"), value.rstrip(b" \t")) for name, value in headers]

    def on_message_complete(self) -> None:
        parser = self._parser
        if self.status and not self.is_whole and parser is not None:
            self._end(keep=parser.should_keep_alive() and self.status != _SWITCHING)

    # How it ends

    def _give_head(self, error: BaseException | None = None) -> None:
        """Tell whoever waits for the head, unless it waits no longer."""
        if self.head.done():
            return
        if error is None:
            self.head.set_result(None)
        else:
            self.head.set_exception(error)

    def _misread(self, error: httptools.HttpParserError) -> None:
        # What follows a whole answer changes nothing of it.
        self.overrun = self.is_whole
        if not self.is_whole:
            why = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
            self._break(HttpProcessingError(code=400, message=str(why)))

    def _end(self, *, keep: bool) -> None:
        line, self._line, self._parser = self._line, None, None
        self.is_whole = True
        self._stop()
        if line is not None:
            line.done(keep=keep)

    def _break(self, error: BaseException) -> None:
        """Nothing more can be had of this answer."""
        self._parser = None
        if not self.status:
            self._give_head(error)
        elif isinstance(error, TimeoutError):
            self._error = error
        else:
            self._error = aiohttp.ClientPayloadError(f"Response payload is not completed: {error!r}")
        self.close()
        self._tell()
