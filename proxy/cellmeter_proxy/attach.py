"""A client that drops its call and makes it again gets the answer that is under way, so that nothing is paid twice.

Invariant: only a call whose own client has left is joined: requests that are equal and whose clients are both there
are two requests. The call that was joined keeps the usage; the one that joined it names it and has none of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.http_client import Take
from cellmeter_proxy.outcome import Broken
from cellmeter_proxy.sending import Incoming, NoAnswerError
from cellmeter_proxy.waiting import has_left


class Tape:
    """One answer as it arrives, for whoever joins its call later."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.head: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the answer has begun, or will not."""
        self._incoming: Incoming | None = None
        self._trouble: Exception | None = None
        self._chunks: list[bytes] = []
        self._whole = False
        self.over = False
        """The call has ended."""
        self._news = asyncio.Event()

    def record(self, incoming: Incoming) -> Incoming:
        """The same answer, kept as it is read."""
        self._incoming = _Recorded(incoming.response, incoming.asked, incoming.read, tape=self)
        self._begin()
        return self._incoming

    def fail(self, trouble: Exception) -> None:
        """There is no answer."""
        self._trouble = trouble
        self._begin()

    def close(self) -> None:
        """The call is over, however it ended."""
        self.over = True
        self._begin()

    def play(self) -> Incoming:
        """The answer for one who joined, from its beginning.

        Raises:
            NoAnswerError: there is none.

        """
        if self._incoming is None:
            if isinstance(self._trouble, NoAnswerError):
                raise self._trouble
            raise NoAnswerError(Broken("upstream_unreachable", "the call that was joined had no answer"), unsent=False)
        return _Played(self._incoming.response, self._incoming.asked, tape=self)

    async def read_on(self, incoming: Incoming) -> AsyncIterator[bytes]:
        """The answer's chunks, kept on their way."""
        try:
            async for chunk in Incoming.chunks(incoming):
                self._chunks.append(chunk)
                self._tell()
                yield chunk
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._trouble = error
            raise
        self._whole = True
        self._tell()

    async def play_on(self) -> AsyncIterator[bytes]:
        """The chunks that were kept, and those that still come."""
        position = 0
        while True:
            while position < len(self._chunks):
                yield self._chunks[position]
                position += 1
            if self._whole:
                return
            if self._trouble is not None:
                raise self._trouble
            if self.over:
                raise aiohttp.ClientPayloadError("the call that was joined was broken off")
            news = self._news
            await news.wait()

    def _begin(self) -> None:
        if not self.head.done():
            self.head.set_result(None)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class _Taped(Incoming):
    """An answer whose pieces are given by ``chunks`` alone."""

    async def each(self, take: Take) -> AsyncIterator[None]:
        async for chunk in self.chunks():
            if not take(chunk):
                yield


@dataclass(frozen=True, kw_only=True)
class _Recorded(_Taped):
    tape: Tape

    def chunks(self) -> AsyncIterator[bytes]:
        return self.tape.read_on(self)


@dataclass(frozen=True, kw_only=True)
class _Played(_Taped):
    tape: Tape

    def chunks(self) -> AsyncIterator[bytes]:
        return self.tape.play_on()


class Tapes:
    """The answers that are under way."""

    def __init__(self) -> None:
        self._running: dict[str, Tape] = {}

    def start(self, exchange: Exchange) -> Tape:
        """Keep the answer of a call until the call ends."""
        tape = self._running[exchange.call.call_id] = Tape(exchange)
        exchange.ends.callback(self._running.pop, exchange.call.call_id, None)
        exchange.ends.callback(tape.close)
        return tape

    async def join(self, exchange: Exchange) -> Tape | None:
        """The answer that the same session has asked for before, and whose client has left; None if there is none.

        The exchange counts as one of those who wait for it from then on.
        """
        call = exchange.call
        left = [
            tape
            for tape in self._running.values()
            if has_left(tape.exchange)
            and (tape.exchange.call.session, tape.exchange.call.endpoint) == (call.session, call.endpoint)
        ]
        if not left:
            return None
        wanted = (await exchange.opened()).request_hash
        for tape in left:
            known = (await tape.exchange.opened()).request_hash
            same = tape.exchange.request.query == exchange.request.query
            if same and wanted is not None and known == wanted and not tape.over:
                tape.exchange.followers += 1
                exchange.ends.callback(_leave, tape.exchange)
                exchange.attached_to = tape.exchange.call.call_id
                return tape
        return None


def _leave(exchange: Exchange) -> None:
    exchange.followers -= 1
