"""Transactions on the log's file: several pieces of work in one commit, as long as the file is the one that was opened.

Invariant: a piece of work that is reported as written is committed; one that fails takes none of its neighbours along.

A log that cannot be written fails all that waits, at once, and while it is so (``failing``) each further try is a probe
that does not wait for locks. Files beside the log that were deleted are made anew, if their rows can be saved.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.intact import Files
from cellmeter_proxy.log import Log
from cellmeter_proxy.logfile import BUSY_MS
from cellmeter_proxy.turn import Turn

T = TypeVar("T")
P = TypeVar("P")
_CHECKPOINT_BUSY_MS: Final = 200
"""How long a checkpoint waits for those who write or read; all that is to be written waits with it."""


class LogUnwritableError(CellmeterError):
    """The log did not take a row; what the row describes must not be served."""


class Begun(NamedTuple):
    """Work that another piece was put in place of; it is done alone where that one fails by itself."""

    prepared: Any
    apply: Callable[[Log, Any], Any]
    future: "asyncio.Future[Any]"
    otherwise: Callable[[Any], Any] | None


@dataclass(eq=False, slots=True)
class Job(Generic[P, T]):
    """One piece of work, and who waits for it."""

    prepare: Callable[[], P]
    apply: Callable[[Log, P], T]
    future: "asyncio.Future[T]"
    otherwise: Callable[[P], P] | None = None
    aside: bool = False
    """It may take long, and is not done in the event loop's thread."""
    patient: bool = False
    """Nobody needs it written at once."""
    refused: bool = False
    """It is for a call that is refused, and not sent, where this fails."""
    since: float = 0.0
    """When it came, by the event loop's clock, where it is patient."""
    number: int = 0
    """Its place among all that was ever to be written, from 1, while it waits; else 0."""
    prepared: P | None = None
    is_prepared: bool = False
    error: Exception | None = None
    """Why it could not be prepared."""
    begun: "Begun | None" = None
    """The work that this one completes, and takes along."""

    def be_prepared(self) -> None:
        """Do what comes before the transaction, once; an error belongs to whoever submitted the work."""
        if self.is_prepared:
            return
        self.is_prepared = True
        try:
            self.prepared = self.prepare()
        except Exception as error:  # noqa: BLE001 - see above
            self.error = error


class Settled(NamedTuple):
    """What became of a piece of work."""

    job: Job[Any, Any]
    result: Any = None
    error: Exception | None = None


class NotNowError(Exception):
    """It would take longer than the event loop can wait."""


class Transactor:
    """Writes into one log, whichever thread it is called from, by one at a time.

    Args:
        log: to write into.
        turn: of the processes that write to it all the time, where there are several.

    """

    def __init__(self, log: Log, turn: Turn | None = None) -> None:
        self.log = log
        self._turn = turn
        self.failing = False
        """The log did not take the last thing that was to be written."""
        self._files = Files(log.path)
        self._busy_ms: int | None = None

    def transact(self, jobs: Sequence[Job[Any, Any]]) -> list[Settled]:
        """Write and commit; waits for another process that is writing, for as long as the log is not failing."""
        busy_ms = 0 if self.failing else BUSY_MS
        try:
            if self._turn is not None:
                busy_ms = max(busy_ms - round(self._turn.take(busy_ms / 1000) * 1000), 0)
            return self._transact(jobs, busy_ms)
        finally:
            self._end_turn()

    def _transact(self, jobs: Sequence[Job[Any, Any]], busy_ms: int) -> list[Settled]:
        try:
            moved = self._files.moved()
            if moved:
                self._files.renew(moved, self.log.conn)
                self._busy_ms = 0
            self._begin(busy_ms)
        except (sqlite3.Error, OSError) as error:
            return self._failed(jobs, error)
        try:
            written = [Settled(job, job.apply(self.log, job.prepared)) for job in jobs]
        except Exception as error:  # noqa: BLE001 - one piece of work must not fail its neighbours, nor end the thread
            return self._undo(jobs, error)
        return self.commit(written)

    def write(self, jobs: Sequence[Job[Any, Any]]) -> list[Settled]:
        """Write and leave it to ``commit``, which ends the turn too; waits for nobody.

        Raises:
            NotNowError: somebody else is writing, a file was moved, or a piece of work failed. Nothing was written;
                ``transact`` may.

        """
        try:
            moved = self._files.moved()
        except OSError as error:
            return self._failed(jobs, error)
        if moved or not (self._turn is None or self._turn.take_free()):
            raise NotNowError
        try:
            return self._write(jobs)
        finally:
            if not self.log.conn.in_transaction:
                self._end_turn()

    def _write(self, jobs: Sequence[Job[Any, Any]]) -> list[Settled]:
        try:
            self._begin(0)
        except (sqlite3.Error, OSError) as error:
            if not self.failing and _is_locked(error):
                raise NotNowError from error
            return self._failed(jobs, error)
        try:
            return [Settled(job, job.apply(self.log, job.prepared)) for job in jobs]
        except Exception as error:
            self.log.roll_back()
            raise NotNowError from error

    def commit(self, written: Sequence[Settled]) -> list[Settled]:
        """Commit what was written, and tell what became of it."""
        if not self.log.conn.in_transaction:
            return list(written)  # they had failed before
        try:
            self.log.commit()
        except Exception as error:  # noqa: BLE001 - as above
            return self._undo([settled.job for settled in written], error)
        finally:
            self._end_turn()
        self.failing = False
        return list(written)

    def checkpoint(self) -> list[Settled]:
        """Bring what the write-ahead file holds into the log, as far as nobody reads it there.

        Nobody writes meanwhile: SQLite before 3.51.3 may damage a log in which another process begins a write-ahead
        file anew during a checkpoint (https://www.sqlite.org/wal.html#walresetbug).
        """
        self._busy_ms = None
        try:
            self.log.conn.execute(f"PRAGMA busy_timeout={_CHECKPOINT_BUSY_MS}")
            self.log.conn.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        except sqlite3.Error:
            return []  # the next write meets the same, and has somebody to tell
        return []

    def _begin(self, busy_ms: int) -> None:
        if busy_ms != self._busy_ms:
            self.log.conn.execute(f"PRAGMA busy_timeout={busy_ms}")
            self._busy_ms = busy_ms
        self.log.begin()

    def _undo(self, jobs: Sequence[Job[Any, Any]], error: Exception) -> list[Settled]:
        self.log.roll_back()
        of_the_file = _is_the_files(error)
        if not of_the_file and len(jobs) > 1:
            return [settled for job in jobs for settled in self.transact([job])]
        return self._failed(jobs, error, failing=self.failing or of_the_file)

    def _failed(self, jobs: Sequence[Job[Any, Any]], error: Exception, *, failing: bool = True) -> list[Settled]:
        self.failing = failing
        return [Settled(job, None, self._explain(error)) for job in jobs]

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.end()

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, (sqlite3.Error, OSError)):
            return LogUnwritableError(f"the log {self.log.path} cannot be written: {error}")
        return error


def _is_the_files(error: Exception) -> bool:
    """Whether it is the file that failed rather than one row: locked, full, gone, or damaged."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _is_locked(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
