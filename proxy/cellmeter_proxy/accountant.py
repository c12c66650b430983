"""The accountant: a thread that works out the cost and the estimates of each call after its answer.

Invariant: it is never in the way of a call. A row reaches it after the answer's last bytes were let go, it reads the
log on a connection of its own, and what it finds reaches the row as an update of exactly the columns that are its own.
What it did not come to before the proxy stopped is null in the log, and can be worked out again from it.
"""

import asyncio
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from cellmeter_proxy.log import CALIBRATION, Log
from cellmeter_proxy.record import Call, Numbers
from cellmeter_proxy.unmetered import is_unmetered
from cellmeter_proxy.writer import LogWriter

if TYPE_CHECKING:
    from cellmeter_proxy.numbers import Numbering
    from cellmeter_proxy.prices import Overrides

_GROUP: Final = 64
_PAUSE_S: Final = 0.05
"""Rows that come within it share a commit."""
_ONE_CALL_S: Final = 3.0
"""The largest prompts take about that long to count."""
_logger: Final = logging.getLogger("cellmeter")


class Accountant:
    """Takes closed rows on the event loop, and fills their numbers in.

    Use ``await Accountant.start(writer)`` and ``await accountant.aclose(bound_s)``, the latter before the writer's.
    """

    def __init__(self, writer: LogWriter, overrides: "Overrides | None" = None) -> None:
        self._writer = writer
        self._overrides = overrides
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._deadline = math.inf
        self._left_out = 0
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
        """Take the row of a call that has just been committed; to be called on the event loop."""
        if call.usage_source == "provider" or is_unmetered(call):
            # Whoever had the row committed lets the rest of the answer go in this same turn of the loop.
            self._loop.call_soon(self._queue.put, call)

    async def aclose(self, bound_s: float) -> None:
        """Work off what is waiting, beginning no call after so many seconds, and stop."""
        self._deadline = time.monotonic() + bound_s
        self._stopping.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, bound_s + _ONE_CALL_S)
        if self._left_out:
            _logger.warning("calls left without cost or estimate when the proxy stopped: %d", self._left_out)

    def _store(self, numbers: list[Numbers], learned: str | None) -> None:
        def write(log: Log, _: None) -> None:
            for one in numbers:
                log.set_numbers(one)
            if learned is not None:
                log.set_meta(CALIBRATION, learned)

        self._writer.submit(_nothing, write).add_done_callback(_complain)

    # In the thread

    def _run(self) -> None:
        try:
            groups = self._groups()
            first = next(groups, None)
            if first is None:
                return
            with Log.read(self._writer.path) as log:
                numbering = _numbering(log, self._overrides)
                for group in itertools.chain([first], groups):
                    self._work(numbering, group)
        except Exception:
            # Calls go on being recorded: nobody waits for this thread.
            _logger.exception("costs and estimates are no longer worked out")

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

    def _work(self, numbering: "Numbering", group: list[Call]) -> None:
        before = numbering.learned
        found = [numbers for call in group if (numbers := self._numbers(numbering, call)) is not None]
        learned = None if numbering.learned is before else msgspec.json.encode(numbering.learned).decode()
        if found:
            self._loop.call_soon_threadsafe(self._store, found, learned)

    def _numbers(self, numbering: "Numbering", call: Call) -> Numbers | None:
        if time.monotonic() > self._deadline:
            self._left_out += 1
            return None
        try:
            return numbering.of(call)
        except Exception:
            _logger.exception("call %s has neither cost nor estimate", call.call_id)
            return None


def _load_overrides(path: Path) -> "Overrides":
    from cellmeter_proxy.prices import load_overrides  # noqa: PLC0415 - loads the table of prices: for who asks for it

    return load_overrides(path)


def _numbering(log: Log, overrides: "Overrides | None") -> "Numbering":
    from cellmeter_proxy.numbers import Numbering  # noqa: PLC0415 - loads tokenizer and prices: not at start

    return Numbering(log, overrides)


def _nothing() -> None:
    return None


def _complain(stored: "asyncio.Future[None]") -> None:
    if not stored.cancelled() and (error := stored.exception()) is not None:
        _logger.warning("costs and estimates were not stored: %s", error)
