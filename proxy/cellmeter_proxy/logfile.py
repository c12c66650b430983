"""The file of a captured log: opened to write or to read it, brought up to date, or refused with a sentence.

Invariant: a file that is no log, or a newer cellmeter's, is left as it is; a migration happens as a whole or not at
all, whichever process does it.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from sqlite_utils import Database

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import now_us
from cellmeter_proxy.schema import SCHEMA_VERSION, migrate

Durability = Literal["full", "process"]
BUSY_MS: Final = 10_000
"""How long a lock that another process holds is waited for."""
SALT: Final = "fingerprint_salt"
"""The fact of a log (table ``meta``) that its fingerprints of keys are made with."""
_SET_VERSION: Final = """
    INSERT INTO meta (key, value) VALUES ('schema_version', ?)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE value IS NOT excluded.value"""
_AGAIN_S: Final = 0.01
_MAX_VERSION_DIGITS: Final = 9


@contextmanager
def open_for_writing(path: Path, durability: Durability) -> Iterator[sqlite3.Connection]:
    """A connection to a log, created or migrated where needed; it stays open unless the block fails.

    Raises:
        CellmeterError: the file is not a log, is of a newer version, or cannot be written.

    """
    with _usable(path), _closed_on_error(_connect(path, "rwc")) as conn:
        _refuse_foreign(conn, path, allow_empty=True)
        _use_wal(conn)
        conn.execute(f"PRAGMA synchronous={'FULL' if durability == 'full' else 'NORMAL'}")
        _bring_up_to_date(conn, path)
        yield conn


@contextmanager
def open_for_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a log of this version or an older one; it stays open unless the block fails.

    Raises:
        CellmeterError: there is no such file, it is not a log, or it is of a newer version.

    """
    if not path.exists():
        raise CellmeterError(
            f"there is no log at {path}",
            hint="record one with `cellmeter proxy`, `cellmeter run` or `cellmeter demo`",
        )
    with _usable(path), _closed_on_error(_connect_for_reading(path)) as conn:
        _refuse_foreign(conn, path, allow_empty=False)
        yield conn


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise _unusable(path, error) from None


@contextmanager
def _closed_on_error(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield conn
    except BaseException:
        conn.close()
        raise


class _Reader(sqlite3.Connection):
    """One that takes the empty files away that SQLite has made beside a log for it.

    A connection that may only read leaves them behind. One that may write removes them when it is the last that is
    closed, which only SQLite can tell. See https://www.sqlite.org/walformat.html#file_lifecycles.
    """

    path: Path | None = None

    def close(self) -> None:
        super().close()
        if self.path is not None and _is_empty(_wal_of(self.path)):
            with suppress(sqlite3.Error), closing(_connect(self.path, "rw")) as conn:
                conn.execute("SELECT 1 FROM sqlite_master")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    kind = _Reader if mode == "ro" else sqlite3.Connection
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, factory=kind)
    if isinstance(conn, _Reader):
        conn.path = path
    conn.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    return conn


def _is_empty(file: Path) -> bool:
    try:
        return file.stat().st_size == 0
    except OSError:
        return False


def _wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _connect_for_reading(path: Path) -> sqlite3.Connection:
    conn = _connect(path, "ro")
    try:
        with _closed_on_error(conn):
            conn.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.Error as error:
        if not _lacks_shared_memory(path, error):
            raise
        return _connect(path, "ro&immutable=1")
    return conn


def _lacks_shared_memory(path: Path, error: sqlite3.Error) -> bool:
    """Whether a whole log cannot be read only because the file that its readers share cannot be made beside it.

    Where it cannot, nobody writes there either. What a writer left in a -wal could not be read, so it must be empty.
    See https://www.sqlite.org/wal.html#read_only_databases.
    """
    wal = _wal_of(path)
    cannot = error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
    return cannot and not (wal.exists() and wal.stat().st_size > 0)


def _use_wal(conn: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. SQLite's busy handler is not asked where two processes do so at once."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            conn.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)
        else:
            return


def _bring_up_to_date(conn: sqlite3.Connection, path: Path) -> None:
    """Migrations and facts in one transaction: whoever looks sees the log as it was, or as it is from now on."""
    facts = {
        "creator": "cellmeter",
        "created_at": str(now_us()),
        SALT: os.urandom(16).hex(),
    }
    with conn:
        conn.execute("BEGIN IMMEDIATE")
        # Another process, perhaps of a newer version, may have been here since.
        _refuse_foreign(conn, path, allow_empty=True)
        migrate(Database(conn, execute_plugins=False))
        conn.executemany("INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)", facts.items())
        conn.execute(_SET_VERSION, (str(SCHEMA_VERSION),))


def _refuse_foreign(conn: sqlite3.Connection, path: Path, *, allow_empty: bool) -> None:
    tables = {str(row[0]) for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables and allow_empty:
        return
    if not {"meta", "calls"} <= tables:
        raise CellmeterError(
            f"{path} is not a cellmeter log: it is a database of something else",
            hint="name the file that `cellmeter proxy --log` or `cellmeter run` wrote",
        )
    row = conn.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    version = str(row[0]) if row else "0"
    if not (version.isascii() and version.isdecimal() and len(version) <= _MAX_VERSION_DIGITS):
        raise CellmeterError(
            f"{path} says that its schema is version {version[:40]!r}, which no cellmeter wrote",
            hint="take a copy that nobody has changed",
        )
    if int(version) > SCHEMA_VERSION:
        raise CellmeterError(
            f"{path} was written by a newer cellmeter: its schema is version {version},"
            f" this one reads {SCHEMA_VERSION}",
            hint="upgrade with `pip install -U cellmeter`",
        )


def _unusable(path: Path, error: Exception) -> CellmeterError:
    if "not a database" in str(error):
        return CellmeterError(f"{path} is not a cellmeter log: it is not an SQLite file")
    if "malformed" in str(error):
        return CellmeterError(
            f"the log {path} is damaged: {error}",
            hint="`cellmeter verify` names what is damaged; keep the file, and record into another one with --log",
        )
    return CellmeterError(f"the log {path} cannot be opened: {error}", hint="check the path and its permissions")
