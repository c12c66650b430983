"""The log's single writer: it commits in groups, and tells nobody before the commit.

Invariant: a future that ``submit`` returned is resolved after the commit that holds its work, never before. Work that
arrives while a commit is under way shares the next one, so that a hundred calls cost as many fsyncs as the disk can do,
not a hundred.

Small work is prepared and written in the event loop's own thread, a few milliseconds at a time: passing it to another
thread and back costs more than the work, since the two would fight over the interpreter. What waits goes to a thread:
the sync of a durable commit, another process that is writing, large bodies, questions to the log, checkpoints. There is
one thread for the file and one for large bodies.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from cellmeter_proxy.log import Log, make_blob
from cellmeter_proxy.logfile import Durability
from cellmeter_proxy.record import Record
from cellmeter_proxy.transact import Job, LogUnwritableError, NotNowError, Settled, Transactor
from cellmeter_proxy.turn import Turn

__all__ = ["LogUnwritableError", "LogWriter"]

T = TypeVar("T")
P = TypeVar("P")
_GROUP: Final = 256
_SLICE_S: Final = 0.004
_LARGE: Final = 128 * 1024
_AGAIN_S: Final = 1.0
_MAX_OWED: Final = 256
_CHECKPOINT_BYTES: Final = 8 * 1024 * 1024
_ROW_BYTES: Final = 8 * 1024
"""About what a row with its indexes adds to the write-ahead file."""


class LogWriter:
    """Writes to a log from an event loop.

    Use ``await LogWriter.open(path)`` and ``await writer.aclose()``.
    """

    def __init__(
        self, log: Log, loop: asyncio.AbstractEventLoop, durability: Durability, turn: Turn | None = None
    ) -> None:
        self.path = log.path
        self.interrupted = 0
        """How many calls of processes that are gone were found open, and marked so, at the start."""
        self._file = Transactor(log, turn)
        self._syncs = durability == "full"
        # A checkpoint syncs whatever the durability, so that it is not for the event loop's thread; and SQLite's own is
        # not for a log that others write, too (see ``Transactor.checkpoint``).
        log.conn.execute("PRAGMA wal_autocheckpoint=0")
        self._unfolded = 0  # bytes that the write-ahead file has grown by, about
        self._loop = loop
        self._waiting: deque[Job[Any, Any]] = deque()
        self._owed: deque[Job[Any, Any]] = deque(maxlen=_MAX_OWED)
        self._paying: asyncio.TimerHandle | None = None
        self._scheduled = False
        self._away = False  # the thread has the file
        self._unsettled = 0
        self._quiet = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "cellmeter-log")
        self._large = ThreadPoolExecutor(1, "cellmeter-large")
        self._closed = False

    @classmethod
    async def open(cls, path: Path | str, durability: Durability = "full", turn: Turn | None = None) -> Self:
        """Open or create the log, and mark what dead processes left open.

        Args:
            path: of the log.
            durability: what a commit survives.
            turn: of the processes that write to this log all the time, where there are several.

        Raises:
            CellmeterError: the file is not a log, or cannot be written.

        """
        log = await asyncio.to_thread(Log.create, path, durability)
        writer = cls(log, asyncio.get_running_loop(), durability, turn)
        writer.interrupted = await writer.read(Log.recover)
        return writer

    @property
    def failing(self) -> bool:
        """The log did not take the last thing that was to be written."""
        return self._file.failing

    def submit(
        self,
        prepare: Callable[[], P],
        apply: Callable[[Log, P], T],
        *,
        otherwise: Callable[[P], P] | None = None,
        size: int = 0,
        aside: bool = False,
    ) -> "asyncio.Future[T]":
        """Have work done and committed.

        Args:
            prepare: work that needs no file (hashing, compression); runs before the transaction.
            apply: takes the log and what ``prepare`` gave; runs inside the transaction, and again alone
                if another piece of work in the same group failed.
            otherwise: what to write later on where the log does not take it now: it gets what ``prepare`` gave, and
                what it returns is tried again every second, and at the end once more. The newest 256 are kept.
            size: of what ``prepare`` works on, in bytes.
            aside: ``apply`` may take long.

        Returns:
            A future of what ``apply`` gave, resolved after the commit; it fails with
            ``LogUnwritableError`` where the log did not take the rows.

        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(LogUnwritableError(f"the log {self.path} is closed"))
            return future
        job = Job(prepare, apply, future, otherwise, aside or size > _LARGE)
        self._unsettled += 1
        self._unfolded += size // 2 + _ROW_BYTES
        if size > _LARGE:
            prepared = self._loop.run_in_executor(self._large, job.be_prepared)
            prepared.add_done_callback(partial(self._enqueue, job))
        else:
            self._enqueue(job)
        return future

    async def append(self, *records: Record) -> None:
        """Add rows."""
        await self.submit(_nothing, lambda log, _: log.append(*records))

    async def replace(self, record: Record) -> None:
        """Put a row in place of the one with its key."""
        await self.submit(_nothing, lambda log, _: log.replace(record))

    async def store(self, content: bytes) -> str:
        """Store content as a blob and return its digest."""

        def put(log: Log, blob: Any) -> str:
            log.put_blob(blob)
            return str(blob.digest)

        return await self.submit(lambda: make_blob(content), put, size=len(content))

    async def read(self, query: Callable[[Log], T]) -> T:
        """Ask the log something on the writer's own connection; everything that was resolved before is there."""
        return await self.submit(_nothing, lambda log, _: query(log), aside=True)

    async def aclose(self) -> None:
        """Commit what is left, fold the write-ahead file back into the log and close it."""
        if self._closed:
            return
        self._closed = True
        while self._unsettled or self._away:
            self._quiet.clear()
            await self._quiet.wait()
        if self._paying is not None:
            self._paying.cancel()
        await self._loop.run_in_executor(self._thread, self._close, list(self._owed))
        self._thread.shutdown()
        self._large.shutdown()

    def _close(self, owed: Sequence[Job[Any, Any]]) -> None:
        if owed:
            self._file.transact(owed)
        self._file.log.close()

    # Turns: what waits is prepared and written, one group at a time

    def _enqueue(self, job: Job[Any, Any], _: object = None) -> None:
        self._waiting.append(job)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled and not self._away:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._away:  # since this was scheduled; it goes on when the thread comes back
            return
        group = self._take()
        if group and group[0].aside:
            self._give_away(self._file.transact, group)
        elif group:
            self._write(group)
        self._schedule()

    def _take(self) -> list[Job[Any, Any]]:
        """What is written next, prepared: one piece that takes long, or as many others as a slice has time for."""
        group: list[Job[Any, Any]] = []
        end = time.perf_counter() + _SLICE_S
        while self._waiting and len(group) < _GROUP and time.perf_counter() < end:
            if group and self._waiting[0].aside:
                break
            job = self._waiting.popleft()
            job.be_prepared()
            if job.error is not None:
                self._settle([Settled(job, None, job.error)])
                continue
            group.append(job)
            if job.aside:
                break
        return group

    def _write(self, group: list[Job[Any, Any]]) -> None:
        try:
            written = self._file.write(group)
        except NotNowError:
            self._give_away(self._file.transact, group)
            return
        if self._syncs:
            self._give_away(self._file.commit, written)
            return
        self._settle(self._file.commit(written))
        self._fold()

    def _fold(self) -> None:
        """Have the write-ahead file brought into the log once it has grown."""
        if self._unfolded > _CHECKPOINT_BYTES:
            self._unfolded = 0
            self._give_away(self._file.checkpoint)

    def _give_away(self, work: Callable[..., list[Settled]], *arguments: Any) -> None:
        """Have the thread do something with the file, which is its own until it comes back."""
        self._away = True
        self._loop.run_in_executor(self._thread, work, *arguments).add_done_callback(self._come_back)

    def _come_back(self, done: "asyncio.Future[list[Settled]]") -> None:
        self._away = False
        self._settle(done.result())
        self._fold()
        self._schedule()

    def _settle(self, settled: Sequence[Settled]) -> None:
        for job, result, error in settled:
            self._unsettled -= 1
            if isinstance(error, LogUnwritableError):
                self._owe(job)
            if job.future.done():
                continue
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)
        self._quiet.set()

    # What the log did not take, and must

    def _owe(self, job: Job[Any, Any]) -> None:
        if job.otherwise is None:
            return
        late = job.otherwise(job.prepared)
        self._owed.append(Job(job.prepare, job.apply, job.future, _as_it_is, prepared=late, is_prepared=True))
        self._pay_later()

    def _pay_later(self) -> None:
        if self._paying is None:
            self._paying = self._loop.call_later(_AGAIN_S, self._pay)

    def _pay(self) -> None:
        """Try again what the log did not take; nobody waits for it any more."""
        self._paying = None
        if self._away:
            self._pay_later()
        elif self._owed and not self._closed:
            owed = list(self._owed)
            self._owed.clear()
            self._unsettled += len(owed)
            self._give_away(self._file.transact, owed)


def _as_it_is(prepared: P) -> P:
    return prepared


def _nothing() -> None:
    return None
