"""The captured log: one SQLite file, the only thing that passes between the three rooms.

``Log`` is synchronous and belongs to one thread. The relay writes through ``writer.LogWriter``,
which owns a ``Log`` in a thread of its own; everybody else opens one to read, or to append scores.

Invariants kept here: a row is decoded into the type it was written from or the log is refused by
name; a blob is stored under the SHA-256 of its content; nothing is ever deleted.
"""

import hashlib
import os
import re
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec
import zstandard

from cellmeter_proxy.blobs import BlobReader, BlobStore, Content
from cellmeter_proxy.logfile import Durability, open_for_reading, open_for_writing
from cellmeter_proxy.record import Attempt, BlobRow, Call, Numbers, Record
from cellmeter_proxy.schema import SCHEMA_VERSION, TABLES
from cellmeter_proxy.sessions import Sessions
from cellmeter_proxy.statements import CallRows, Statements

R = TypeVar("R", bound=Record)
_ZSTD_LEVEL: Final = 3
_WRITER: Final = re.compile(r"(.*)/([0-9]{1,10})/([0-9]+)")
CALIBRATION: Final = "calibration"
"""The fact of a log (table ``meta``) that holds what its calls taught, as JSON of ``estimates.Learned``."""
_SET_NUMBERS: Final = """
    UPDATE calls SET cost = :cost, price_source = :price_source, estimate_method = :estimate_method,
        estimated_prompt_tokens = :estimated_prompt_tokens, estimated_completion_tokens = :estimated_completion_tokens,
        usage_source = CASE
            WHEN usage_source != 'none' THEN usage_source
            WHEN :estimated_prompt_tokens IS NULL AND :estimated_completion_tokens IS NULL THEN 'none'
            ELSE 'estimated' END
    WHERE call_id = :call_id"""


class Log:
    """An open captured log.

    ``durability`` is "full" (a commit survives the loss of power, ``synchronous=FULL``) or
    "process" (a commit survives kill -9, no fsync per commit).
    """

    def __init__(self, conn: sqlite3.Connection, path: Path) -> None:
        self.conn = conn
        self.path = path
        self._statements = {row: Statements(row, conn) for row in TABLES}
        self._rows = CallRows()
        self._is_older = self.meta("schema_version") != str(SCHEMA_VERSION)
        self._reader = BlobReader(conn)
        self._store = BlobStore(conn, self._reader)
        self._sessions = Sessions(conn)
        self._version: int | None = None

    @classmethod
    def create(cls, path: Path | str, durability: Durability = "full") -> Self:
        """Open a log for writing, creating or migrating the file where needed.

        Raises:
            CellmeterError: the file is not a log, is of a newer version, or cannot be written.

        """
        path = Path(path)
        with open_for_writing(path, durability) as conn:
            return cls(conn, path)

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Open an existing log for reading, also where its directory cannot be written.

        Raises:
            CellmeterError: there is no such file, it is not a log, or it is of a newer version.

        """
        path = Path(path)
        with open_for_reading(path) as conn:
            return cls(conn, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self.conn.close()

    # Reading

    def meta(self, key: str) -> str | None:
        """A fact about the file, or None."""
        row = self.conn.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def lacks(self, type_: type[Record]) -> bool:
        """Whether the log is of a version before a table, so that there are no rows of its type."""
        return self._is_older and not self._statements[type_].there

    def rows(self, type_: type[R], where: str = "1", params: Sequence[object] = ()) -> Iterator[R]:
        """The rows of a table, in the order they were written, as values of their type.

        Args:
            type_: the row type; it names the table.
            where: an SQL condition with ``?`` for each of ``params``, and an ``ORDER BY`` if wanted.
            params: the values for the condition.

        """
        statements = self._statements[type_]
        if self.lacks(type_):
            return
        tail = where if "order by" in where.lower() else f"{where} ORDER BY rowid"
        for row in self.conn.execute(f"{statements.select} WHERE {tail}", params):
            yield statements.decode(row)

    def blob(self, digest: str) -> bytes:
        """The content stored under a digest.

        Raises:
            KeyError: nothing is stored under it.
            CellmeterError: it cannot be read, or something that it is built from is not there.

        """
        return self._reader.read(digest)

    def blob_size(self, digest: str) -> int | None:
        """How many bytes the content of a digest is said to have; None where nothing is stored under it."""
        return self._reader.size(digest)

    def stored(self) -> list[tuple[str, int]]:
        """Digest and size of everything that is stored, in the order in which reading it costs least."""
        return self._reader.stored()

    # Transactions. What is remembered of the log makes them shorter, and is asked for again without them.

    def begin(self) -> None:
        """Begin a transaction that writes."""
        self.conn.execute("BEGIN IMMEDIATE")
        # It moves where another connection has written: https://www.sqlite.org/pragma.html#pragma_data_version.
        (version,) = self.conn.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._sessions.catch_up()
            self._store.forget()
            self._version = version
        self._sessions.trusted = self._store.trusted = True

    def commit(self) -> None:
        """Commit a transaction that ``begin`` has begun; where that fails, it is to be rolled back."""
        self._sessions.trusted = self._store.trusted = False
        self.conn.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo what was written since ``begin``, if anything can have been."""
        self._sessions.trusted = self._store.trusted = False
        self._sessions.forget()
        self._store.forget()
        self._version = None
        if self.conn.in_transaction:
            self.conn.execute("ROLLBACK")

    # Writing; the caller holds a transaction, or accepts one per statement

    def append(self, *records: Record) -> None:
        """Add rows as they are."""
        for record in records:
            if isinstance(record, BlobRow):
                self._store.put_row(record)
                continue
            self.conn.execute(*self._statements[type(record)].insert(record))
            if isinstance(record, Call):
                self._sessions.forget(record.session)

    def replace(self, record: Record) -> None:
        """Put a row in place of the one with its key. For a row that its own writer completes, nothing else."""
        self.conn.execute(*self._statements[type(record)].replace(record))
        if isinstance(record, Call):
            self._sessions.forget(record.session)

    def put_blob(self, blob: BlobRow) -> None:
        """Store content once; a second copy of the same content is nothing new."""
        if not self.has_blob(blob.digest):
            self._store.put_row(blob)

    def keep(self, content: Content, session: str, link: str | None = None) -> None:
        """Store a body of a session once, as what is new in it; see ``blobs``.

        Args:
            content: what to store.
            session: the bodies of one are compressed together.
            link: of a request, the last link of its prefix chain that an earlier call of the session ended in, if any.

        """
        self._store.put(content, session, lambda: self._sessions.base_of(session, link))

    def has_blob(self, digest: str) -> bool:
        """Whether content is stored under a digest."""
        return self._reader.has(digest)

    def open_call(self, call: Call) -> int:
        """Write a call's row before its answer, and return its place within the session."""
        seq = self.next_seq(call.session)
        self.add_call(msgspec.structs.replace(call, seq=seq))
        return seq

    def next_seq(self, session: str) -> int:
        """The place of the next call within a session."""
        return self._sessions.seq(session) + 1

    def add_call(self, call: Call) -> None:
        """Write the row of the next call of a session, as much of it as is known."""
        begun = self._rows.open(call) if call.state == "open" else None
        written = self.conn.execute(*(self._statements[Call].insert(call) if begun is None else begun))
        self._sessions.note(call, written.lastrowid)

    def close_call(self, call: Call, attempts: Iterable[Attempt]) -> None:
        """Complete an open row, with its attempts, once the whole answer is known.

        What the row said of the request when it was opened stays as it is.
        """
        self.conn.execute(*self._rows.close(call))
        for attempt in attempts:
            self.replace(attempt)

    def set_numbers(self, numbers: Numbers) -> None:
        """Fill in what was worked out about a call, and touch nothing else of its row.

        An estimate becomes the source of the call's usage where the provider gave none; it never replaces any.
        """
        self.conn.execute(_SET_NUMBERS, msgspec.structs.asdict(numbers))

    def set_meta(self, key: str, value: str) -> None:
        """Note a fact about the file, in place of what the key said before."""
        self.conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def known_prefixes(self, session: str, links: Sequence[str]) -> set[str]:
        """Those of the links of a prefix chain that an earlier call of the session ended in."""
        return self._sessions.known_prefixes(session, links)

    def recover(self) -> int:
        """Mark the open rows of processes that are gone as ``interrupted``, and return how many."""
        writers = [str(row[0]) for row in self.conn.execute("SELECT DISTINCT writer FROM calls WHERE state = 'open'")]
        gone = [writer for writer in writers if not writer_is_alive(writer)]
        count = 0
        for writer in gone:
            count += self.conn.execute(
                "UPDATE calls SET state = 'interrupted', outcome = 'interrupted',"
                " error = 'the recording process ended before the answer did' WHERE state = 'open' AND writer = ?",
                (writer,),
            ).rowcount
        return count


def make_blob(content: bytes) -> BlobRow:
    """A blob row for content: its digest, its size, its compressed bytes."""
    return BlobRow(
        digest=digest_of(content),
        size=len(content),
        data=zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content),
    )


def make_content(data: bytes, *, grows: bool = False) -> Content:
    """A body with its digest."""
    return Content(digest_of(data), data, grows)


def digest_of(content: bytes) -> str:
    """``sha256:<hex>`` of exact bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def writer_name() -> str:
    """The name of this process as an owner of open rows: host, process id, and when the process started."""
    pid = os.getpid()
    return f"{socket.gethostname()}/{pid}/{_process_start(pid) or 0}"


def writer_is_alive(writer: str) -> bool:
    """Whether the process of a writer's name still runs. One of another host counts as alive: nobody here can tell.

    What is no such name is nobody's.
    """
    named = _WRITER.fullmatch(writer)
    if named is None:
        return False
    host, process, start = named.groups()
    if host != socket.gethostname():
        return True
    pid = int(process)
    running_since = _process_start(pid)
    if running_since is not None:
        return str(running_since) == start
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _process_start(pid: int) -> int | None:
    """Start of a process in clock ticks since boot (proc(5), ``/proc/<pid>/stat`` field 22), or None without one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
