"""The accountant: a thread that works out the cost and the estimates of each call after its answer.

Invariant: it is never in the way of a call. A row reaches it after the answer's last bytes were let go, texts are
counted in a process of their own, and what was found reaches the row as an update of exactly the columns that are the
accountant's. What it did not come to before the proxy stopped, or for all that waits already (``MOST_WAITING``), is
null in the log, and can be worked out from it at any time.
A rate that it has learnt (``rates``) is used as the row is closed, and spares the next calls of its model all this.
"""

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from cellmeter_proxy.counts import is_unmetered
from cellmeter_proxy.estimator import EstimatorProcess, Reply
from cellmeter_proxy.log import CALIBRATION, Log
from cellmeter_proxy.rates import Rate, RateKey, Rates, key_of
from cellmeter_proxy.record import Call, Numbers
from cellmeter_proxy.writer import LogWriter

if TYPE_CHECKING:
    from cellmeter_proxy.prices import Overrides

MOST_WAITING: Final = 10_000
"""So many rows wait in memory, a few KiB each; an estimate takes milliseconds, so that calls can come faster."""
_GROUP: Final = 64
_PAUSE_S: Final = 0.05
"""Rows that come within it share a commit."""
_ONE_CALL_S: Final = 3.0
"""The largest prompts take about that long to count."""
_logger: Final = logging.getLogger("cellmeter")


class Accounting(Protocol):
    """What a relay has of the accountant, wherever it works."""

    def take(self, call: Call) -> None:
        """Take the row of a call that has just been committed; to be called on the event loop."""
        ...

    def priced(self, call: Call) -> Call:
        """The call with its cost, where that is known already; in any thread."""
        ...


class Accountant:
    """Takes closed rows on the event loop, and fills their numbers in.

    Use ``await Accountant.start(writer)`` and ``await accountant.aclose(bound_s)``, the latter before the writer's.
    """

    def __init__(self, writer: LogWriter, overrides: "Overrides | None" = None) -> None:
        self._writer = writer
        self.rates: Rates | None = Rates() if overrides is None else None
        """The rates that hold for all calls of a model; None where the user's own prices come first."""
        self._overrides = overrides
        self.on_numbers: Callable[[Numbers], object] | None = None
        """Told on the event loop what was found, before it is stored."""
        self.on_rate: Callable[[RateKey, Rate | None], object] | None = None
        """Told on the event loop what was learnt (see ``Rates.learn``)."""
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._deadline = math.inf
        self._left_out = 0
        self._too_many = 0
        """How many calls came when as many waited as may."""
        self._estimator = EstimatorProcess(writer.path)
        self._thread = threading.Thread(target=self._run, name="cellmeter-accountant", daemon=True)

    @classmethod
    async def start(cls, writer: LogWriter, prices: Path | None = None) -> Self:
        """Read the user's prices, if there are any, and start the thread.

        Raises:
            CellmeterError: the file of prices cannot be used.

        """
        overrides = None if prices is None else await asyncio.to_thread(_load_overrides, prices)
        accountant = cls(writer, overrides)
        accountant._thread.start()
        return accountant

    def take(self, call: Call) -> None:
        """See ``Accounting``."""
        is_due = needs_numbers(call, self.rates)
        if is_due and self._queue.qsize() < MOST_WAITING:
            # Whoever had the row committed lets the rest of the answer go in this same turn of the loop.
            self._loop.call_soon(self._queue.put, call)
            return
        if is_due:
            self._leave_out()
        if self.on_numbers is not None and (is_due or call.usage_source == "provider"):
            self.on_numbers(Numbers(call_id=call.call_id, cost=call.cost, price_source=call.price_source))

    def priced(self, call: Call) -> Call:
        """See ``Accounting``."""
        return call if self.rates is None else self.rates.priced(call)

    async def aclose(self, bound_s: float) -> None:
        """Work off what is waiting, beginning no call after so many seconds, and stop."""
        self._deadline = time.monotonic() + bound_s
        self._stopping.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, max(bound_s, 0) + _ONE_CALL_S)
        self._estimator.kill()
        if self._left_out:
            _logger.warning("calls left without cost or estimate when the proxy stopped: %d", self._left_out)
        if self._too_many:
            _logger.warning("calls left without cost or estimate because too many waited: %d", self._too_many)

    def _leave_out(self) -> None:
        self._too_many += 1
        if self._too_many == 1:
            _logger.warning(
                "%d calls wait for their cost or estimate: further ones are left without until fewer do"
                " (cellmeter audit --estimate works them out from the log)",
                MOST_WAITING,
            )

    def _store(self, numbers: list[Numbers], learned: str | None) -> None:
        for one in numbers:
            if self.on_numbers is not None:
                self.on_numbers(one)

        told = [one for one in numbers if one != Numbers(call_id=one.call_id)]
        if not told and learned is None:
            return

        def write(log: Log, _: None) -> None:
            for one in told:
                log.set_numbers(one)
            if learned is not None:
                log.set_meta(CALIBRATION, learned)

        self._writer.submit(_nothing, write).add_done_callback(_complain)

    # In the thread

    def _run(self) -> None:
        try:
            for group in self._groups():
                self._work(group)
        except Exception:
            # Calls go on being recorded: nobody waits for this thread.
            _logger.exception("costs and estimates are no longer worked out")
        finally:
            self._estimator.close()

    def _groups(self) -> Iterator[list[Call]]:
        """What is waiting, some calls at a time, until the end."""
        while (call := self._queue.get()) is not None:
            self._stopping.wait(_PAUSE_S)
            group = [call]
            while len(group) < _GROUP and not self._queue.empty():
                call = self._queue.get()
                if call is None:
                    yield group
                    return
                group.append(call)
            yield group

    def _work(self, group: list[Call]) -> None:
        found: list[Numbers] = []
        learned: str | None = None
        for call in group:
            if time.monotonic() > self._deadline:
                self._left_out += 1
                continue
            try:
                reply = self._estimator.estimate(call) if is_unmetered(call) else Reply()
                found.append(_numbers(call, reply, self._overrides))
                learned = reply.learned or learned
                if self.rates is not None:
                    self._learn(self.rates, call)
            except Exception:
                _logger.exception("call %s has neither cost nor estimate", call.call_id)
        if found:
            self._loop.call_soon_threadsafe(self._store, found, learned)

    def _learn(self, rates: Rates, call: Call) -> None:
        key = key_of(call)
        if key is None or not rates.lacks(key):
            return
        from cellmeter_proxy.prices import rate_of  # noqa: PLC0415 - loads the table of prices: not at start

        rate = rate_of(call)
        rates.learn(key, rate)
        if self.on_rate is not None:
            self._loop.call_soon_threadsafe(self.on_rate, key, rate)


def needs_numbers(call: Call, rates: Rates | None) -> bool:
    """Whether there is anything to be worked out about a closed call that its row does not say already."""
    return not _is_settled(call, rates) if call.usage_source == "provider" else is_unmetered(call)


def _is_settled(call: Call, rates: Rates | None) -> bool:
    """Whether its row says what it cost, or no price is known."""
    if call.price_source is not None:
        return True
    rate = None if rates is None else rates.of(call)
    return rate is not None and rate.source is None


def _numbers(call: Call, reply: Reply, overrides: "Overrides | None") -> Numbers:
    from cellmeter_proxy.prices import cost_of  # noqa: PLC0415 - loads the table of prices: not at start

    if reply.error is not None:
        _logger.warning("call %s cannot be estimated: %s", call.call_id, reply.error)
    cost = cost_of(call, overrides)
    return Numbers(
        call_id=call.call_id,
        cost=cost.usd if cost else None,
        price_source=cost.source if cost else None,
        estimated_prompt_tokens=reply.prompt_tokens,
        estimated_completion_tokens=reply.completion_tokens,
        estimate_method=reply.method,
    )


def _load_overrides(path: Path) -> "Overrides":
    from cellmeter_proxy.prices import load_overrides  # noqa: PLC0415 - loads the table of prices: for who asks for it

    return load_overrides(path)


def _nothing() -> None:
    return None


def _complain(stored: "asyncio.Future[None]") -> None:
    if not stored.cancelled() and (error := stored.exception()) is not None:
        _logger.warning("costs and estimates were not stored: %s", error)
