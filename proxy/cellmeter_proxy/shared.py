"""What a worker shares with the other workers of its proxy: budgets, queues, answers and counts.

They are the coordinator's, in another process. Invariant: what depends on it is refused where it is gone
(``LinkLostError``); nothing goes on without it.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from cellmeter_proxy.accountant import needs_numbers
from cellmeter_proxy.attach import Tapes
from cellmeter_proxy.budget import Budget, Ledger
from cellmeter_proxy.commons import Commons
from cellmeter_proxy.distant import Lender, Neighbours
from cellmeter_proxy.link import Link
from cellmeter_proxy.messages import (
    Account,
    Counts,
    Family,
    HeadOf,
    Join,
    Learnt,
    Message,
    Objection,
    ReadOn,
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
from cellmeter_proxy.metrics import Metrics
from cellmeter_proxy.queues import DistantLanes
from cellmeter_proxy.rates import Rates
from cellmeter_proxy.record import Call
from cellmeter_proxy.sending import Refusals
from cellmeter_proxy.till import Till


class Shared:
    """One worker's share.

    Args:
        link: to the coordinator.
        sockets: that the worker listens on; they are bound.
        metrics: of this worker.
        budgeted: there is a budget.
        stop: what to do when the coordinator says that it is time to stop.

    """

    def __init__(
        self,
        link: Link,
        sockets: Sequence[socket.socket],
        metrics: Metrics,
        *,
        budgeted: bool,
        stop: Callable[[], object],
    ) -> None:
        tapes = Tapes(Neighbours(link))
        self._link = link
        self._stop = stop
        self._metrics = metrics
        self._lanes = DistantLanes(link)
        self._lender = Lender(tapes)
        self._accountant = _DistantAccountant(link, budgeted=budgeted)
        self.commons = Commons(
            till=_DistantTill(link) if budgeted else Till(Ledger()),
            accountant=self._accountant,
            lane_of=self._lanes.of,
            tapes=tapes,
            refusals=Refusals(lambda model: link.tell(UsageRefused(model=model))),
            metrics=metrics,
            counts=self._counts,
            sockets=sockets,
        )

    async def run(self) -> None:
        """Hear the coordinator, until it is gone."""
        try:
            await self._link.run(self._hear, self._answer)
        finally:
            self._lanes.lose()
            self._stop()

    async def give_back(self, bound_s: float) -> None:
        """Wait until nobody reads an answer of this worker any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                await self._lender.idle.wait()

    async def _counts(self) -> list[Family]:
        return (await self._link.ask(Scrape(), Counts)).families

    def _hear(self, message: Message) -> None:
        match message:
            case Turn():
                self._lanes.turn(message.place)
            case Unjoin():
                self._lender.unjoin(message)
            case UsageRefused():
                self.commons.refusals.note(message.model)
            case Learnt():
                self._accountant.rates.learn(message.key, message.rate)
            case Stop():
                self._stop()
            case _:
                raise TypeError(type(message).__name__)

    async def _answer(self, message: Message) -> Message:
        match message:
            case Seek():
                return self._lender.seek(message)
            case Join():
                return await self._lender.join(message)
            case HeadOf():
                return await self._lender.head(message)
            case ReadOn():
                return await self._lender.read_on(message)
            case Scrape():
                return Counts(families=self._metrics.families())
            case _:
                raise TypeError(type(message).__name__)


class _DistantTill:
    """The budgets, as ``Charging`` has them."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def take_on(self, call_id: str, session: str, cell_budget: Budget | None) -> str | None:
        if cell_budget is not None:
            raise ValueError("cells belong to a proxy of one process")
        return (await self._link.ask(TakeOn(call_id=call_id, session=session), Objection)).reason

    def settle(self, call: Call) -> None:
        self._link.tell(Settle(call=call))

    def release(self, call_id: str) -> None:
        self._link.tell(Release(call_id=call_id))


class _DistantAccountant:
    """The accountant, which is one for all workers: tokenizers and tables of prices are large.

    The rates that it has learnt are here too. A budget is told of every call, for it is charged when the cost is.
    """

    def __init__(self, link: Link, *, budgeted: bool) -> None:
        self.rates = Rates()
        self._link = link
        self._budgeted = budgeted

    def take(self, call: Call) -> None:
        charged = self._budgeted and call.usage_source == "provider"
        if charged or needs_numbers(call, self.rates):
            self._link.tell(Account(call=call))

    def priced(self, call: Call) -> Call:
        return self.rates.priced(call)
