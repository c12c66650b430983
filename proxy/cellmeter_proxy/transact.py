"""Transactions on the log's file: several pieces of work in one commit, as long as the file is the one that was opened.

Invariant: a piece of work that is reported as written is committed; one that fails takes none of its neighbours along.

A log that cannot be written fails all that waits, at once, and while it is so (``failing``) each further try is a probe
that does not wait for locks.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import BUSY_MS, Log

T = TypeVar("T")
P = TypeVar("P")
_BESIDE: Final = ("-wal", "-shm")


class LogUnwritableError(CellmeterError):
    """The log did not take a row; what the row describes must not be served."""


@dataclass(eq=False)
class Job(Generic[P, T]):
    """One piece of work, and who waits for it."""

    prepare: Callable[[], P]
    apply: Callable[[Log, P], T]
    future: "asyncio.Future[T]"
    otherwise: Callable[[P], P] | None = None
    aside: bool = False
    """It may take long, and is not done in the event loop's thread."""
    prepared: P | None = None
    is_prepared: bool = False
    error: Exception | None = None
    """Why it could not be prepared."""

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
    """It would take longer than the event loop can wait: another process is writing, or one by one is the way."""


class Transactor:
    """Writes into one log, whichever thread it is called from, by one at a time."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.failing = False
        """The log did not take the last thing that was to be written."""
        self._path = str(log.path)
        self._files = {self._path: _inode(self._path)}
        self._busy_ms: int | None = None

    def transact(self, jobs: Sequence[Job[Any, Any]]) -> list[Settled]:
        """Write and commit; waits for another process that is writing, for as long as the log is not failing."""
        try:
            self._begin(0 if self.failing else BUSY_MS)
        except (sqlite3.Error, OSError) as error:
            return self._failed(jobs, error)
        try:
            written = [Settled(job, job.apply(self.log, job.prepared)) for job in jobs]
        except Exception as error:  # noqa: BLE001 - one piece of work must not fail its neighbours, nor end the thread
            return self._undo(jobs, error)
        return self.commit(written)

    def write(self, jobs: Sequence[Job[Any, Any]]) -> list[Settled]:
        """Write and leave it to ``commit``; waits for nobody.

        Raises:
            NotNowError: somebody else is writing, or a piece of work failed. Nothing was written; ``transact`` may.

        """
        try:
            self._begin(0)
        except (sqlite3.Error, OSError) as error:
            if not self.failing and _is_locked(error):
                raise NotNowError from error
            return self._failed(jobs, error)
        try:
            return [Settled(job, job.apply(self.log, job.prepared)) for job in jobs]
        except Exception as error:
            self._roll_back()
            raise NotNowError from error

    def commit(self, written: Sequence[Settled]) -> list[Settled]:
        """Commit what was written, and tell what became of it."""
        if not self.log.conn.in_transaction:
            return list(written)  # they had failed before
        try:
            self.log.conn.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - as above
            return self._undo([settled.job for settled in written], error)
        self.failing = False
        return list(written)

    def checkpoint(self) -> list[Settled]:
        """Bring what the write-ahead file holds into the log, as far as nobody reads it there."""
        try:
            self.log.conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error:
            return []  # the next write meets the same, and has somebody to tell
        return []

    def _begin(self, busy_ms: int) -> None:
        self._check_files()
        if busy_ms != self._busy_ms:
            self.log.conn.execute(f"PRAGMA busy_timeout={busy_ms}")
            self._busy_ms = busy_ms
        self.log.conn.execute("BEGIN IMMEDIATE")

    def _undo(self, jobs: Sequence[Job[Any, Any]], error: Exception) -> list[Settled]:
        self._roll_back()
        if not isinstance(error, sqlite3.OperationalError) and len(jobs) > 1:
            return [settled for job in jobs for settled in self.transact([job])]
        return self._failed(jobs, error, failing=self.failing or isinstance(error, sqlite3.OperationalError))

    def _failed(self, jobs: Sequence[Job[Any, Any]], error: Exception, *, failing: bool = True) -> list[Settled]:
        self.failing = failing
        return [Settled(job, None, self._explain(error)) for job in jobs]

    def _check_files(self) -> None:
        # SQLite goes on writing into a file that has lost its name, and those rows would be gone with the process.
        for path, inode in self._files.items():
            if _inode(path) != inode:
                raise OSError(f"{Path(path).name} is gone, and may be another file by now")
        if len(self._files) <= len(_BESIDE):
            beside = {self._path + suffix: _inode(self._path + suffix) for suffix in _BESIDE}
            self._files |= {path: inode for path, inode in beside.items() if inode is not None}

    def _roll_back(self) -> None:
        if self.log.conn.in_transaction:
            self.log.conn.execute("ROLLBACK")

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, (sqlite3.Error, OSError)):
            return LogUnwritableError(f"the log {self._path} cannot be written: {error}")
        return error


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino  # noqa: PTH116 - three for every commit, and a Path takes four times as long
    except FileNotFoundError:
        return None


def _is_locked(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
