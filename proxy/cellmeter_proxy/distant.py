"""Answers that are under way in another worker, for clients that come back to this one.

The worker that makes the call lends its answer, the one that the client came back to borrows it, and the coordinator
hands on what they say. Invariant: a borrowed answer breaks off where its lender is gone, and never ends cleanly then.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from cellmeter_proxy.attach import Playable, Tape, Tapes
from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.headers import RawHeaders
from cellmeter_proxy.http_body import Take, each_of
from cellmeter_proxy.link import Link, LinkLostError
from cellmeter_proxy.messages import (
    AnswerHead,
    Begun,
    Chunks,
    Found,
    HeadOf,
    Join,
    Joined,
    NoAnswer,
    Over,
    ReadOn,
    Seek,
    Unjoin,
)
from cellmeter_proxy.outcome import Broken
from cellmeter_proxy.record import Call
from cellmeter_proxy.sending import Incoming, NoAnswerError

_GONE: Final = "the process that made the call is gone"


class Neighbours:
    """The answers of the other workers; ``attach.Elsewhere`` for this one."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def begun(self, call: Call) -> None:
        """See ``Elsewhere``."""
        self._link.tell(Begun(call_id=call.call_id, session=call.session, endpoint=call.endpoint))

    def over(self, call_id: str) -> None:
        """See ``Elsewhere``."""
        self._link.tell(Over(call_id=call_id))

    async def join(self, exchange: Exchange) -> Playable | None:
        """See ``Elsewhere``."""
        call = exchange.call
        found = await self._link.ask(Seek(session=call.session, endpoint=call.endpoint), Found)
        wanted = (await exchange.opened()).request_hash if found.call_ids else None
        if wanted is None:
            return None
        for call_id in found.call_ids:
            request = Join(call_id=call_id, query=exchange.request.query, request_hash=wanted)
            if (await self._link.ask(request, Joined)).same:
                exchange.ends.callback(self._link.tell, Unjoin(call_id=call_id))
                exchange.attached_to = call_id
                return _Borrowed(self._link, call_id)
        return None


class _Borrowed:
    """A ``Playable`` of another worker."""

    def __init__(self, link: Link, call_id: str) -> None:
        self._link = link
        self._call_id = call_id
        self._fetching = asyncio.create_task(link.ask(HeadOf(call_id=call_id), AnswerHead, NoAnswer))
        self.head: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fetching.add_done_callback(self._begin)

    def _begin(self, _: object) -> None:
        if not self.head.done():
            self.head.set_result(None)

    def play(self) -> Incoming:
        """See ``Playable``."""
        head = self._fetching.result()
        if isinstance(head, NoAnswer):
            raise NoAnswerError(head.broken)
        if not isinstance(head, AnswerHead):
            raise TypeError(type(head).__name__)
        return Incoming(_DistantAnswer(head, self._link, self._call_id), head.asked)


@dataclass(frozen=True)
class _DistantAnswer:
    """A ``ProviderResponse`` whose connection another process has."""

    head: AnswerHead
    link: Link
    call_id: str
    is_whole: bool = False

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def reason(self) -> bytes:
        return self.head.reason

    @property
    def raw_headers(self) -> RawHeaders:
        return tuple(self.head.headers)

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        pairs = [(name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in self.raw_headers]
        return CIMultiDictProxy(CIMultiDict(pairs))

    async def chunks(self) -> AsyncIterator[bytes]:
        position = 0
        while True:
            try:
                more = await self.link.ask(ReadOn(call_id=self.call_id, position=position), Chunks)
            except LinkLostError as error:
                raise aiohttp.ClientPayloadError(str(error)) from None
            for chunk in more.chunks:
                yield chunk
            position += len(more.chunks)
            if more.whole:
                return
            if more.silent:
                raise TimeoutError
            if more.broken is not None:
                raise aiohttp.ClientPayloadError(more.broken)

    def each(self, take: Take) -> AsyncIterator[None]:
        return each_of(self.chunks(), take)

    def take_all(self) -> bytes:
        """Nothing: every piece is asked for."""
        return b""

    def close(self) -> None:
        """Nothing: it is its lender's to close."""


class Lender:
    """Lends the answers of this worker to others."""

    def __init__(self, tapes: Tapes) -> None:
        self._tapes = tapes
        self._lent: dict[str, list[Tape]] = {}
        self.idle = asyncio.Event()
        """Nothing is lent."""
        self.idle.set()

    def seek(self, message: Seek) -> Found:
        """The calls that may be joined."""
        left = self._tapes.left(message.session, message.endpoint)
        return Found(call_ids=[tape.exchange.call.call_id for tape in left])

    async def join(self, message: Join) -> Joined:
        """Lend an answer, if it is the one that is wanted."""
        tape = self._tapes.find(message.call_id)
        if tape is None or not await tape.take_on(message.request_hash, message.query):
            return Joined(same=False)
        self._lent.setdefault(message.call_id, []).append(tape)
        self.idle.clear()
        return Joined(same=True)

    def unjoin(self, message: Unjoin) -> None:
        """Take it back from one who waits no longer."""
        tapes = self._lent.get(message.call_id)
        if tapes:
            tapes.pop().let_go()
            if not tapes:
                del self._lent[message.call_id]
        if not self._lent:
            self.idle.set()

    async def head(self, message: HeadOf) -> AnswerHead | NoAnswer:
        """The head of an answer that was lent, once it has come."""
        tape = self._tape(message.call_id)
        await asyncio.wait({tape.head})
        try:
            incoming = tape.incoming()
        except NoAnswerError as error:
            return NoAnswer(broken=error.broken)
        response = incoming.response
        headers = [(bytes(name), bytes(value)) for name, value in response.raw_headers]
        return AnswerHead(status=response.status, reason=response.reason, headers=headers, asked=incoming.asked)

    async def read_on(self, message: ReadOn) -> Chunks:
        """More of an answer that was lent, once there is any."""
        try:
            chunks = await self._tape(message.call_id).after(message.position)
        except TimeoutError:
            return Chunks(silent=True)
        except (aiohttp.ClientError, OSError) as error:
            return Chunks(broken=str(error) or type(error).__name__)
        return Chunks(chunks=chunks, whole=not chunks)

    def _tape(self, call_id: str) -> Tape:
        tapes = self._lent.get(call_id)
        if not tapes:
            raise LinkLostError(_GONE)
        return tapes[0]


def gone() -> NoAnswer:
    """What is said of an answer whose lender is gone."""
    return NoAnswer(broken=Broken("upstream_unreachable", _GONE))


def broken_off() -> Chunks:
    """What is said of the rest of such an answer."""
    return Chunks(broken=_GONE)
