"""A client that drops its call and makes it again gets the answer that is under way, so that nothing is paid twice.

Invariant: only a call whose own client has left is joined: requests that are equal and whose clients are both there
are two requests. The call that was joined keeps the usage; the one that joined it names it and has none of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import aiohttp

from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.http_body import Take, each_of
from cellmeter_proxy.outcome import Broken
from cellmeter_proxy.record import Call
from cellmeter_proxy.sending import Incoming, NoAnswerError
from cellmeter_proxy.waiting import has_left


class Playable(Protocol):
    """An answer that was joined."""

    @property
    def head(self) -> "asyncio.Future[None]":
        """Done when the answer has begun, or will not."""
        ...

    def play(self) -> Incoming:
        """The answer for one who joined, from its beginning.

        Raises:
            NoAnswerError: there is none.

        """
        ...


class Elsewhere(Protocol):
    """The answers that are under way in other processes of the same proxy."""

    def begun(self, call: Call) -> None:
        """A call that can be joined has begun here."""
        ...

    def over(self, call_id: str) -> None:
        """It has ended."""
        ...

    async def join(self, exchange: Exchange) -> Playable | None:
        """See ``Tapes.join``."""
        ...


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

    async def take_on(self, request_hash: str, query: str) -> bool:
        """Count one more of those who wait for this answer, if it is the answer to their request."""
        known = (await self.exchange.opened()).request_hash
        same = known == request_hash and self.exchange.request.query == query and not self.over
        self.exchange.followers += same
        return same

    def let_go(self) -> None:
        """Count one less."""
        self.exchange.followers -= 1

    def play(self) -> Incoming:
        """See ``Playable``."""
        incoming = self.incoming()
        return _Played(incoming.response, incoming.asked, tape=self)

    def incoming(self) -> Incoming:
        """The answer itself, once it has begun.

        Raises:
            NoAnswerError: there is none.

        """
        if self._incoming is None:
            if isinstance(self._trouble, NoAnswerError):
                raise self._trouble
            raise NoAnswerError(Broken("upstream_unreachable", "the call that was joined had no answer"))
        return self._incoming

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
        while chunks := await self.after(position):
            for chunk in chunks:
                yield chunk
            position += len(chunks)

    async def after(self, position: int) -> list[bytes]:
        """The chunks from this one on, once there are any; none where the answer has ended.

        Raises:
            TimeoutError, aiohttp.ClientError, OSError: it broke off.

        """
        while position >= len(self._chunks):
            if self._whole:
                return []
            if self._trouble is not None:
                raise self._trouble
            if self.over:
                raise aiohttp.ClientPayloadError("the call that was joined was broken off")
            await self._news.wait()
        return self._chunks[position:]

    def _begin(self) -> None:
        if not self.head.done():
            self.head.set_result(None)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class _Taped(Incoming, frozen=True):
    """An answer whose pieces are given by ``chunks`` alone."""

    @property
    def is_whole(self) -> bool:
        """Never told: what has come to the call that was joined may still not be read to its end."""
        return False

    def each(self, take: Take) -> AsyncIterator[None]:
        return each_of(self.chunks(), take)


class _Recorded(_Taped, frozen=True, kw_only=True):
    tape: Tape

    def chunks(self) -> AsyncIterator[bytes]:
        return self.tape.read_on(self)


class _Played(_Taped, frozen=True, kw_only=True):
    tape: Tape

    def chunks(self) -> AsyncIterator[bytes]:
        return self.tape.play_on()


class Tapes:
    """The answers that are under way.

    Args:
        elsewhere: those of other processes, where there are any.

    """

    def __init__(self, elsewhere: Elsewhere | None = None) -> None:
        self._running: dict[str, Tape] = {}
        self._elsewhere = elsewhere

    def start(self, exchange: Exchange) -> Tape:
        """Keep the answer of a call until the call ends."""
        call = exchange.call
        tape = self._running[call.call_id] = Tape(exchange)
        exchange.ends.callback(self._running.pop, call.call_id, None)
        exchange.ends.callback(tape.close)
        if self._elsewhere is not None:
            self._elsewhere.begun(call)
            exchange.ends.callback(self._elsewhere.over, call.call_id)
        return tape

    async def join(self, exchange: Exchange) -> Playable | None:
        """The answer that the same session has asked for before, and whose client has left; None if there is none.

        The exchange counts as one of those who wait for it from then on.
        """
        left = self.left(exchange.call.session, exchange.call.endpoint)
        wanted = (await exchange.opened()).request_hash if left else None
        for tape in left:
            if wanted is not None and await tape.take_on(wanted, exchange.request.query):
                exchange.ends.callback(tape.let_go)
                exchange.attached_to = tape.exchange.call.call_id
                return tape
        return None if self._elsewhere is None else await self._elsewhere.join(exchange)

    def left(self, session: str, endpoint: str) -> list[Tape]:
        """The answers that a session has asked for, and whose clients have left."""
        return [
            tape
            for tape in self._running.values()
            if has_left(tape.exchange)
            and (tape.exchange.call.session, tape.exchange.call.endpoint) == (session, endpoint)
        ]

    def find(self, call_id: str) -> Tape | None:
        """The answer to a call that is under way."""
        return self._running.get(call_id)
