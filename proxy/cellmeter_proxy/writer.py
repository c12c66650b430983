"""The log's single writer: a thread that owns the file and commits in groups.

Invariant: a future that ``submit`` returned is resolved after the commit that holds its work, never
before. Work that arrives while a commit is under way shares the next one, so that a hundred calls
cost as many fsyncs as the disk can do, not a hundred.

A log that cannot be written fails all that waits, at once. While it is so (``failing``) each further try is a probe
that does not wait for locks, and what must get into the log in any case is tried again until it does.
"""

import asyncio
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import BUSY_MS, Durability, Log, make_blob
from cellmeter_proxy.record import Record
from cellmeter_proxy.turn import Turn

T = TypeVar("T")
P = TypeVar("P")
_GROUP: Final = 256
_AGAIN_S: Final = 1.0
_MAX_OWED: Final = 256


class LogUnwritableError(CellmeterError):
    """The log did not take a row; what the row describes must not be served."""


@dataclass(eq=False)
class _Job(Generic[P, T]):
    prepare: Callable[[], P]
    apply: Callable[[Log, P], T]
    future: asyncio.Future[T]
    prepared: P | None = None
    otherwise: Callable[[P], P] | None = None


_Settled = tuple[_Job[Any, Any], Any, Exception | None]


class LogWriter:
    """Writes to a log from an event loop.

    Use ``await LogWriter.open(path)`` and ``await writer.aclose()``.
    """

    def __init__(self, log: Log, loop: asyncio.AbstractEventLoop, turn: Turn | None = None) -> None:
        self.path = log.path
        self.interrupted = 0
        """How many calls of processes that are gone were found open, and marked so, at the start."""
        self._log = log
        self.failing = False
        """The log did not take the last thing that was to be written."""
        self._files = {log.path: log.path.stat().st_ino}
        self._owed: deque[_Job[Any, Any]] = deque(maxlen=_MAX_OWED)
        self._loop = loop
        self._turn = turn
        self._queue: queue.SimpleQueue[_Job[Any, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="cellmeter-log", daemon=True)
        self._closed = False

    @classmethod
    async def open(cls, path: Path | str, durability: Durability = "full", turn: Turn | None = None) -> Self:
        """Open or create the log, mark what dead processes left open, and start the thread.

        Args:
            path: of the log.
            durability: what a commit survives.
            turn: of the processes that write to this log all the time, where there are several.

        Raises:
            CellmeterError: the file is not a log, or cannot be written.

        """
        log = await asyncio.to_thread(Log.create, path, durability)
        writer = cls(log, asyncio.get_running_loop(), turn)
        writer._thread.start()
        writer.interrupted = await writer.read(Log.recover)
        return writer

    def submit(
        self,
        prepare: Callable[[], P],
        apply: Callable[[Log, P], T],
        *,
        otherwise: Callable[[P], P] | None = None,
    ) -> "asyncio.Future[T]":
        """Have work done in the writer's thread and committed.

        Args:
            prepare: heavy work that needs no file (hashing, compression); runs before the transaction.
            apply: takes the log and what ``prepare`` gave; runs inside the transaction, and again alone
                if another piece of work in the same group failed.
            otherwise: what to write later on where the log does not take it now: it gets what ``prepare`` gave, and
                what it returns is tried again every second, and at the end once more. The newest 256 are kept.

        Returns:
            A future of what ``apply`` gave, resolved after the commit; it fails with
            ``LogUnwritableError`` where the log did not take the rows.

        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(LogUnwritableError(f"the log {self.path} is closed"))
        else:
            self._queue.put(_Job(prepare, apply, future, otherwise=otherwise))
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

        return await self.submit(lambda: make_blob(content), put)

    async def read(self, query: Callable[[Log], T]) -> T:
        """Ask the log something on the writer's own connection, after all that was submitted before."""
        return await self.submit(_nothing, lambda log, _: query(log))

    async def aclose(self) -> None:
        """Commit what is left, fold the write-ahead file back into the log and close it."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # In the thread

    def _run(self) -> None:
        stopping = False
        while not stopping:
            group, stopping = self._take()
            settled = self._commit(group)
            if settled:
                self._loop.call_soon_threadsafe(_settle, settled)
            if self._owed and (stopping or not (group and self.failing)):
                self._pay()
        self._log.close()

    def _take(self) -> tuple[list[_Job[Any, Any]], bool]:
        """Everything that waits, at least one piece of work unless some is owed, and whether to stop after it."""
        group: list[_Job[Any, Any]] = []
        try:
            job = self._queue.get(timeout=_AGAIN_S if self._owed else None)
            while job is not None:
                group.append(job)
                if len(group) == _GROUP:
                    return group, False
                job = self._queue.get_nowait()
        except queue.Empty:
            return group, False
        return group, True

    def _pay(self) -> None:
        """Try again what the log did not take; nobody waits for it any more."""
        owed = list(self._owed)
        self._owed.clear()
        self._owed.extend(job for job, _, error in self._transact(owed) if isinstance(error, LogUnwritableError))

    def _owe(self, job: _Job[Any, Any]) -> None:
        if job.otherwise is not None:
            self._owed.append(_Job(job.prepare, job.apply, job.future, job.otherwise(job.prepared)))

    def _commit(self, group: Sequence[_Job[Any, Any]]) -> list[_Settled]:
        ready: list[_Job[Any, Any]] = []
        settled: list[_Settled] = []
        for job in group:
            try:
                job.prepared = job.prepare()
                ready.append(job)
            except Exception as error:  # noqa: BLE001 - belongs to whoever submitted the work, not to the thread
                settled.append((job, None, error))
        written = self._transact(ready) if ready else []
        for job, _, why in written:
            if isinstance(why, LogUnwritableError):
                self._owe(job)
        return settled + written

    def _transact(self, group: Sequence[_Job[Any, Any]]) -> list[_Settled]:
        if self._turn is None:
            return self._transact_within(group, BUSY_MS)
        try:
            waited_s = self._turn.take(0 if self.failing else BUSY_MS / 1000)
            return self._transact_within(group, max(BUSY_MS - round(waited_s * 1000), 0))
        finally:
            self._turn.end()

    def _transact_within(self, group: Sequence[_Job[Any, Any]], busy_ms: int) -> list[_Settled]:
        try:
            self._begin(busy_ms)
        except (sqlite3.Error, OSError) as error:
            return [(job, None, self._explain(error)) for job in group]
        try:
            results: list[_Settled] = [(job, job.apply(self._log, job.prepared), None) for job in group]
            self._log.conn.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - one piece of work must not fail its neighbours, nor end the thread
            self._roll_back()
            if isinstance(error, sqlite3.OperationalError):
                self.failing = True
            elif len(group) > 1:
                return [settled for job in group for settled in self._transact_within([job], busy_ms)]
            return [(job, None, self._explain(error)) for job in group]
        self._succeeded()
        return results

    def _begin(self, busy_ms: int) -> None:
        try:
            self._check_files()
            self._log.conn.execute(f"PRAGMA busy_timeout={0 if self.failing else busy_ms}")
            self._log.conn.execute("BEGIN IMMEDIATE")
        except (sqlite3.Error, OSError):
            self.failing = True
            raise

    def _succeeded(self) -> None:
        self.failing = False
        for suffix in ("-wal", "-shm"):
            path = self.path.with_name(self.path.name + suffix)
            if path not in self._files and path.exists():
                self._files[path] = path.stat().st_ino

    def _check_files(self) -> None:
        # SQLite goes on writing into a file that has lost its name, and those rows would be gone with the process.
        for path, inode in self._files.items():
            if path.stat().st_ino != inode:
                raise OSError(f"another file stands in the place of {path.name}")

    def _roll_back(self) -> None:
        if self._log.conn.in_transaction:
            self._log.conn.execute("ROLLBACK")

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, (sqlite3.Error, OSError)):
            return LogUnwritableError(f"the log {self.path} cannot be written: {error}")
        return error


def _nothing() -> None:
    return None


def _settle(settled: Sequence[_Settled]) -> None:
    for job, result, error in settled:
        if job.future.cancelled():
            continue
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
