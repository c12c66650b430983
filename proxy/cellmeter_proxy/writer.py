"""The log's single writer: it commits in groups, and tells nobody before the commit.

Invariant: a future that ``submit`` returned is resolved after the commit that holds its work, never before. Work that
arrives while a commit is under way shares the next one, so that a hundred calls cost as many fsyncs as the disk can do,
not a hundred. What is written was submitted before all that is written after it.

Patient work (the row of a call that begins) waits for up to a few milliseconds, prepared meanwhile, until somebody
needs it: if what completes it (the answer) comes first, the two are written as one.

Small work is prepared and written in the event loop's own thread, a few milliseconds at a time: passing it to another
thread and back costs more than the work, since the two would fight over the interpreter. What waits goes to a thread:
the sync of a durable commit, another process that is writing, large bodies, questions to the log, checkpoints. There is
one thread for the file and one for large bodies.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from cellmeter_proxy.log import Log, make_blob
from cellmeter_proxy.logfile import Durability
from cellmeter_proxy.owed import Owed
from cellmeter_proxy.record import Record
from cellmeter_proxy.transact import Begun, Job, LogUnwritableError, NotNowError, Settled, Transactor
from cellmeter_proxy.turn import Turn
from cellmeter_proxy.waitlist import Waiting

__all__ = ["LogUnwritableError", "LogWriter"]

T = TypeVar("T")
P = TypeVar("P")
Q = TypeVar("Q")
_GROUP: Final = 256
_SLICE_S: Final = 0.004
LARGE: Final = 128 * 1024
"""Work on so many bytes is prepared in a thread of its own."""
_AGAIN_S: Final = 1.0
_MOMENT_S: Final = 0.004
"""Patient work waits so long: the time of a fast answer, and of no use to a crash."""
_TICK_S: Final = 0.001
"""The timers of an event loop are no finer than this."""
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
        self._waiting = Waiting()
        self._moment: asyncio.TimerHandle | None = None
        self._owed = Owed()
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
                what it returns is tried again every second, and at the end once more; see ``Owed``.
            size: of what ``prepare`` works on, in bytes.
            aside: ``apply`` may take long.

        Returns:
            A future of what ``apply`` gave, resolved after the commit; it fails with
            ``LogUnwritableError`` where the log did not take the rows.

        """
        return self._submit(Job(prepare, apply, self._loop.create_future(), otherwise, aside or size >= LARGE), size)

    def defer(
        self,
        prepare: Callable[[], P],
        apply: Callable[[Log, P], T],
        *,
        otherwise: Callable[[P], P] | None = None,
        size: int = 0,
    ) -> Job[P, T]:
        """Have work done and committed within a few milliseconds, or before any that is submitted after it.

        The arguments are those of ``submit``. The future of what it returns is that which ``submit`` would return.
        Where the log is failing already, nothing is to be begun before the work is written (see ``Owed``).
        """
        future = self._loop.create_future()
        job = Job(prepare, apply, future, otherwise, size >= LARGE, patient=True, refused=self._file.failing)
        self._submit(job, size)
        return job

    def hurry(self, job: Job[Any, Any]) -> None:
        """Have deferred work written now: somebody needs it."""
        job.patient = False
        if job.number:
            self._waiting.make_due(job.number)
            self._schedule()

    def complete(
        self,
        job: Job[Any, T],
        prepare: Callable[[P], Q],
        apply: Callable[[Log, Q], T],
        *,
        otherwise: Callable[[Q], Q] | None = None,
        size: int = 0,
    ) -> "asyncio.Future[T] | None":
        """Have what completes deferred work written with it, as one, if it has not been written yet.

        Args:
            job: the work that waits.
            prepare: gets what was prepared for it, and gives what is to be applied in its place.
            apply: in place of that of ``job``.
            otherwise: in place of that of ``job``.
            size: of what ``prepare`` works on, in bytes.

        Returns:
            A future as of ``submit``, with which that of ``job`` is resolved; None where the two cannot be one. Where
            it fails by itself, and not for the log, ``job`` is done without it.

        """
        if not job.number or job.begun is not None or size >= LARGE:
            return None
        job.be_prepared()
        if job.error is None:
            begun: Any = job.prepared
            job.begun = Begun(begun, job.apply, job.future, job.otherwise)
            job.prepare, job.is_prepared = partial(prepare, begun), False
            job.apply, job.otherwise, job.future = apply, otherwise, self._loop.create_future()
            self._unfolded += size // 2
        self.hurry(job)
        return job.future

    def _submit(self, job: Job[P, T], size: int) -> "asyncio.Future[T]":
        if self._closed:
            job.future.set_exception(LogUnwritableError(f"the log {self.path} is closed"))
            return job.future
        self._unsettled += 1
        self._unfolded += size // 2 + _ROW_BYTES
        if size >= LARGE:
            prepared = self._loop.run_in_executor(self._large, job.be_prepared)
            prepared.add_done_callback(partial(self._enqueue, job))
        else:
            self._enqueue(job)
        return job.future

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
        self._waiting.make_due()
        self._schedule()
        while self._unsettled or self._away:
            self._quiet.clear()
            await self._quiet.wait()
        for timer in (self._paying, self._moment):
            if timer is not None:
                timer.cancel()
        await self._loop.run_in_executor(self._thread, self._close, self._owed.take())
        self._thread.shutdown()
        self._large.shutdown()

    def _close(self, owed: Sequence[Job[Any, Any]]) -> None:
        if owed:
            self._file.transact(owed)
        self._file.log.close()

    # Turns: what waits is prepared and written, one group at a time

    def _enqueue(self, job: Job[Any, Any], _: object = None) -> None:
        job.since = self._loop.time() if job.patient else 0.0
        self._waiting.add(job)
        if self._closed:
            self._waiting.make_due()
        elif job.patient and self._moment is None:
            self._moment = self._loop.call_at(job.since + _MOMENT_S, self._end_moment)
        self._schedule()

    def _end_moment(self) -> None:
        oldest = self._waiting.expire(self._loop.time() - _MOMENT_S + _TICK_S)
        self._moment = None if oldest is None else self._loop.call_at(oldest + _MOMENT_S, self._end_moment)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._waiting.has_work and not self._away:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._away:  # since this was scheduled; it goes on when the thread comes back
            return
        end = time.perf_counter() + _SLICE_S
        group = [job for job in self._waiting.take(_GROUP, end) if self._is_ready(job)]
        if group and group[0].aside:
            self._give_away(self._file.transact, group)
        elif group:
            self._write(group)
        self._waiting.prepare(end)
        self._schedule()

    def _is_ready(self, job: Job[Any, Any]) -> bool:
        """Whether a job could be prepared; if not, whoever waits for it is told."""
        if job.error is not None:
            self._settle([Settled(job, None, job.error)])
        return job.error is None

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
                self._owed.add(job)
                self._pay_later()
            _resolve(job.future, result, error)
            if job.begun is not None:
                self._settle_begun(job.begun, result, error)
        self._quiet.set()

    def _settle_begun(self, begun: Begun, result: Any, error: Exception | None) -> None:
        """What was completed has the end of what completed it, unless that failed by itself."""
        if error is None or isinstance(error, LogUnwritableError):
            _resolve(begun.future, result, error)
            if error is not None:
                begun.future.exception()  # it is told by the other one, too: nobody need ask
            return
        self._unsettled += 1
        self._enqueue(
            Job(_nothing, begun.apply, begun.future, begun.otherwise, prepared=begun.prepared, is_prepared=True)
        )

    # What the log did not take, and must

    def _pay_later(self) -> None:
        if self._paying is None:
            self._paying = self._loop.call_later(_AGAIN_S, self._pay)

    def _pay(self) -> None:
        """Try again what the log did not take; nobody waits for it any more."""
        self._paying = None
        if self._away:
            self._pay_later()
        elif self._owed and not self._closed:
            owed = self._owed.take()
            self._unsettled += len(owed)
            self._give_away(self._file.transact, owed)


def _resolve(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _nothing() -> None:
    return None
