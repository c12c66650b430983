"""What the workers of one proxy share, kept in the process that started them.

Budgets, the queues of ``pace``, the accountant, who makes which call, and the counts. Invariant: what a worker held is
given back when it is gone, and what it spent is not: its calls are charged by their rows.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from cellmeter_proxy.accountant import Accountant
from cellmeter_proxy.budget import Ledger
from cellmeter_proxy.distant import broken_off, gone
from cellmeter_proxy.lanes import Lane, Lanes, Waiter
from cellmeter_proxy.link import Link, LinkLostError
from cellmeter_proxy.log import Log
from cellmeter_proxy.messages import (
    Account,
    Answered,
    AnswerHead,
    Begun,
    Chunks,
    Counts,
    Family,
    Found,
    HeadOf,
    Join,
    Joined,
    Learnt,
    Leave,
    Message,
    NoAnswer,
    Objection,
    Over,
    Queue,
    ReadOn,
    Ready,
    Refused,
    Release,
    Scrape,
    Seek,
    Settle,
    Stop,
    TakeOn,
    Turn,
    Unjoin,
    UsageRefused,
)
from cellmeter_proxy.metrics import lasting, together
from cellmeter_proxy.rates import Rate, RateKey
from cellmeter_proxy.record import Call
from cellmeter_proxy.till import Till

_SCRAPE_S: Final = 1.0
_M = TypeVar("_M")


@dataclass(eq=False)
class Member:
    """One worker, and what it holds."""

    link: Link
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """It accepts calls."""
    taken: set[str] = field(default_factory=set)
    """The calls that a budget has allowed it and that it has not settled."""
    places: dict[int, tuple[Lane, Waiter]] = field(default_factory=dict)
    running: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Session and endpoint of its calls that can be joined."""
    joined: list[tuple[str, "Member"]] = field(default_factory=list)
    """The calls that its own clients have joined, and who makes them."""
    counts: list[Family] = field(default_factory=list)
    """As it last told them."""


class Coordinator:
    """Hears all workers.

    Args:
        log: that the workers write.
        ledger: of the budgets.
        accountant: works for all.

    """

    def __init__(self, log: Path, ledger: Ledger, accountant: Accountant) -> None:
        self._log = log
        self._stopping = False
        self._accountant = accountant
        self._till = Till(ledger)
        accountant.on_numbers = self._till.learn
        accountant.on_rate = self._learn
        self._lanes = Lanes()
        self._members: list[Member] = []
        self._past: list[Family] = []
        self._known: list[UsageRefused | Learnt] = []
        """What every worker is told, also those that are started later."""

    async def attend(self, member: Member) -> None:
        """Serve a worker until it is gone, and take back what it held."""
        self._members.append(member)
        for message in self._known:
            member.link.tell(message)
        if self._stopping:
            member.link.tell(Stop())
        try:
            await member.link.run(partial(self._hear, member), partial(self._answer, member))
        finally:
            self._members.remove(member)
            self._part_with(member)

    async def settle_with(self, member: Member) -> None:
        """Charge the calls of a worker that is gone by their rows: it may have died between its commit and its word."""
        rows = await asyncio.to_thread(_closed_rows, self._log, member.taken)
        for call_id in member.taken:
            row = rows.get(call_id)
            if row is not None:
                self._till.settle(row)
                self._accountant.take(row)
            self._till.release(call_id)

    def stop(self) -> None:
        """Tell all workers to end, those too that are still being started."""
        self._stopping = True
        for member in self._members:
            member.link.tell(Stop())

    def _part_with(self, member: Member) -> None:
        for lane, waiter in member.places.values():
            lane.abandon(waiter)
        for call_id, owner in member.joined:
            owner.link.tell(Unjoin(call_id=call_id))
        self._past = together([self._past, lasting(member.counts)])

    def _hear(self, member: Member, message: Message) -> None:
        match message:
            case Ready():
                member.ready.set()
            case Account():
                self._accountant.take(message.call)
            case Settle():
                member.taken.discard(message.call.call_id)
                self._till.settle(message.call)
            case Release():
                member.taken.discard(message.call_id)
                self._till.release(message.call_id)
            case UsageRefused():
                self._pass_on(message)
            case Queue():
                self._queue(member, message)
            case Answered() | Refused() | Leave():
                self._in_place(member, message)
            case Begun():
                member.running[message.call_id] = (message.session, message.endpoint)
            case Over():
                member.running.pop(message.call_id, None)
            case Unjoin():
                self._unjoin(member, message)
            case _:
                raise TypeError(type(message).__name__)

    async def _answer(self, member: Member, message: Message) -> Message:
        match message:
            case TakeOn():
                return await self._take_on(member, message)
            case Seek():
                return await self._seek(member, message)
            case Join():
                return await self._join(member, message)
            case HeadOf():
                owner = self._owner(member, message.call_id)
                return gone() if owner is None else await _or(gone(), owner.link, message, AnswerHead, NoAnswer)
            case ReadOn():
                owner = self._owner(member, message.call_id)
                return broken_off() if owner is None else await _or(broken_off(), owner.link, message, Chunks)
            case Scrape():
                return Counts(families=await self._scrape())
            case _:
                raise TypeError(type(message).__name__)

    def _pass_on(self, message: UsageRefused | Learnt) -> None:
        if message not in self._known:
            self._known.append(message)
            for member in self._members:
                member.link.tell(message)

    def _learn(self, key: RateKey, rate: Rate | None) -> None:
        self._pass_on(Learnt(key=key, rate=rate))

    # Budgets

    async def _take_on(self, member: Member, message: TakeOn) -> Objection:
        reason = await self._till.take_on(message.call_id, message.session, None)
        if reason is None:
            member.taken.add(message.call_id)
        return Objection(reason=reason)

    # Queues

    def _queue(self, member: Member, message: Queue) -> None:
        lane = self._lanes.of(message.key)
        waiter = lane.queue(message.tokens, again=message.again, model=message.model)
        member.places[message.place] = (lane, waiter)

        def tell(turn: "asyncio.Future[None]") -> None:
            if not turn.cancelled():
                member.link.tell(Turn(place=message.place))

        waiter.turn.add_done_callback(tell)

    def _in_place(self, member: Member, message: Answered | Refused | Leave) -> None:
        lane, waiter = member.places.get(message.place, (None, None))
        if lane is None or waiter is None:
            return
        match message:
            case Leave():
                del member.places[message.place]
                lane.abandon(waiter)
            case Answered() if waiter.slot is not None:
                waiter.slot.answered(message.limits)
            case Refused() if waiter.slot is not None:
                waiter.slot.refused(message.limits, message.wait_s)
            case _:
                raise ValueError(f"place {message.place} has had no turn")

    # Answers

    async def _seek(self, member: Member, message: Seek) -> Found:
        wanted = (message.session, message.endpoint)
        others = [other for other in self._members if other is not member and wanted in other.running.values()]
        found = [await _or(Found(call_ids=[]), other.link, message, Found) for other in others]
        return Found(call_ids=[call_id for one in found for call_id in one.call_ids])

    async def _join(self, member: Member, message: Join) -> Joined:
        owner = next((other for other in self._members if message.call_id in other.running), None)
        if owner is None:
            return Joined(same=False)
        joined = await _or(Joined(same=False), owner.link, message, Joined)
        if joined.same:
            member.joined.append((message.call_id, owner))
            if member not in self._members:
                self._unjoin(member, Unjoin(call_id=message.call_id))
        return joined

    def _unjoin(self, member: Member, message: Unjoin) -> None:
        owner = self._owner(member, message.call_id)
        if owner is not None:
            member.joined.remove((message.call_id, owner))
            owner.link.tell(message)

    def _owner(self, member: Member, call_id: str) -> Member | None:
        return next((owner for joined, owner in member.joined if joined == call_id), None)

    # Counts

    async def _scrape(self) -> list[Family]:
        await asyncio.gather(*(self.hear_from(member, _SCRAPE_S) for member in self._members))
        return together([self._past, *(member.counts for member in self._members)])

    async def hear_from(self, member: Member, bound_s: float) -> bool:
        """Ask a worker for its counts; False where it neither replies within the bound nor is gone.

        One that does not reply counts as it did.
        """
        try:
            async with asyncio.timeout(bound_s):
                member.counts = (await member.link.ask(Scrape(), Counts)).families
        except TimeoutError:
            return False
        except LinkLostError:
            return True
        return True


async def _or(otherwise: _M, link: Link, message: Message, *types: type[_M]) -> _M:
    """What a worker replies; something else where it is gone."""
    try:
        return await link.ask(message, *types)
    except LinkLostError:
        return otherwise


def _closed_rows(path: Path, call_ids: Collection[str]) -> dict[str, Call]:
    # On a connection of its own, which needs no write: the disk may be full.
    if not call_ids:
        return {}
    with Log.read(path) as log:
        found = log.rows(Call, "state = 'closed' AND call_id IN (SELECT value FROM json_each(?))", (_json(call_ids),))
        return {row.call_id: row for row in found}


def _json(values: Collection[str]) -> str:
    return msgspec.json.encode(list(values)).decode()
