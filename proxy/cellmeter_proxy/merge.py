"""Joining captured logs: the rows of several in one, each once.

Invariants: a log that is joined is only read. The one that is written is as it was before, or holds every row of them
all; what cannot be joined without losing something is refused by name. So the same logs give the same rows again, in
whatever order and however often they are joined.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import msgspec
from msgspec.structs import replace

from cellmeter_proxy.blobs import STRAND, Place, at_of
from cellmeter_proxy.conflict import Conflict, conflict_of, conflict_of_place, refusal
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log, digest_of
from cellmeter_proxy.logfile import SALT
from cellmeter_proxy.moments import later
from cellmeter_proxy.record import UNNAMED, BlobRow, Call, Record, ScoreRow
from cellmeter_proxy.schema import TABLES

R = TypeVar("R", bound=Record)

_SCORE_KEY: Final = ("cell_id", "cell_attempt", "methodology", "axis", "scorer_version", "scored_at")
"""Scores are appended: what makes two of them the same one is also when they were made."""


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of one log were to the log that they were joined to."""

    log: Path
    added: int = 0
    completed: int = 0
    """Rows that were there, but not as far."""
    known: int = 0
    """Rows that were there as they are, or further."""


def merge(out: Path | str, logs: Sequence[Path | str]) -> list[Merged]:
    """Join logs to one, which is created where there is none.

    A log that is being recorded is joined as it is at this moment; joined again later, its open rows are completed. One
    of an older schema is read as it is. Calls that nobody named are kept apart by their logs: what was ``anonymous`` in
    one becomes ``anonymous@1f2e3d4c``.

    Returns:
        What each log brought, in their order.

    Raises:
        MergeConflictError: two rows of one key contradict each other; ``out`` is as it was.
        CellmeterError: a file is not a log, is damaged or of a newer version, or is named twice; ``out`` is as it was.

    """
    out, sources = Path(out), [Path(log) for log in logs]
    for source in sources:
        if out.exists() and source.exists() and out.samefile(source):
            raise CellmeterError(f"{source} is the log that is to be written", hint="name another OUT", exit_code=2)
    try:
        if out.exists():
            with Log.create(out) as target:
                return _join_all(target, sources, out)
        with _published_when_whole(out) as new, Log.create(new) as target:
            merged = _join_all(target, sources, out)
            # Closing would do the same, and keep silent where the disk is full.
            target.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return merged
    except (sqlite3.Error, msgspec.MsgspecError, OSError) as error:
        raise CellmeterError(f"{out} cannot be written: {error}", hint="it is as it was") from None


@contextmanager
def _published_when_whole(out: Path) -> Iterator[Path]:
    """A path for a log that gets its name, on disk, once the block has closed it."""
    directory = out.absolute().parent
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=directory) as scratch:
        new = Path(scratch) / out.name
        yield new
        for left in (out.with_name(f"{out.name}{suffix}") for suffix in ("-wal", "-journal")):
            if left.exists() and left.stat().st_size > 0:
                raise FileExistsError(f"{left} is left of another log, and would be read as a part of this one")
        # Unlike a rename it never takes the place of a log that somebody has begun meanwhile.
        out.hardlink_to(new)
        _sync(directory)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _join_all(target: Log, sources: Sequence[Path], out: Path) -> list[Merged]:
    merged: list[Merged] = []
    with target.conn:
        target.conn.execute("BEGIN IMMEDIATE")
        for path in sources:
            with Log.read(path) as source:
                merged.append(_Join(source, target, out).run())
    return merged


class _Join:
    """One log that is joined to another, within a transaction of either."""

    def __init__(self, source: Log, target: Log, out: Path) -> None:
        self._source = source
        self._target = target
        self._out = out
        self._tally = Counter[str]()
        self._conflicts: list[Conflict] = []
        self._here, self._there = _origin(target), _origin(source)

    def run(self) -> Merged:
        self._source.conn.execute("BEGIN")  # one moment of a log that is being recorded
        # Content last: what it is built from may be rows of other tables.
        for type_ in sorted(TABLES, key=lambda type_: type_ is BlobRow):
            key = key_of(self._target, type_)
            if type_ is BlobRow:
                self._join_blobs()
            elif key:
                self._join_rows(type_, key)
            else:
                self._join_alike(type_)
            # What follows from a conflict, such as the calls of a cell that was run twice, is not told apart from it.
            if self._conflicts:
                raise refusal(self._source.path, self._out, self._conflicts)
        return Merged(log=self._source.path, **self._tally)

    def _join_rows(self, type_: type[Record], key: tuple[str, ...]) -> None:
        where = " AND ".join(f'"{name}" IS ?' for name in key)
        for read in self._read(type_):
            theirs = self._of_its_log(read) if isinstance(read, Call) else read
            values = [getattr(theirs, name) for name in key]
            ours = next(self._target.rows(type_, where, values), None)
            if ours is None:
                self._add(theirs)
            else:
                self._settle(ours, theirs, values)

    def _of_its_log(self, call: Call) -> Call:
        """A call that nobody named, in a session that cannot be taken for that of another log."""
        name, _, origin = call.session.partition("@")
        if name not in UNNAMED or origin not in {"", self._here}:
            return call
        origin = origin or self._there
        return replace(call, session=name if origin == self._here else f"{name}@{origin}")

    def _add(self, row: Record) -> None:
        if isinstance(row, Call):
            taken = next(self._target.rows(Call, "session = ? AND seq = ?", (row.session, row.seq)), None)
            if taken is not None:
                self._conflicts.append(conflict_of_place(taken, row))
                return
        self._target.append(row)
        self._tally["added"] += 1

    def _settle(self, ours: Record, theirs: Record, key: Sequence[object]) -> None:
        row = later(ours, theirs)
        if row is None:
            self._conflicts.append(conflict_of(ours, theirs, key))
        elif row is ours:
            self._tally["known"] += 1
        else:
            self._complete(row)
            self._tally["completed"] += 1

    def _complete(self, row: Record) -> None:
        if isinstance(row, Call):
            self._target.close_call(row, [])
        else:
            self._target.replace(row)

    def _join_alike(self, type_: type[Record]) -> None:
        """Rows without a key that are alike in everything are as many as in the log that has more of them."""
        known = Counter(self._target.rows(type_))
        for row in self._read(type_):
            if known[row] > 0:
                known[row] -= 1
                self._tally["known"] += 1
            else:
                self._add(row)

    def _join_blobs(self) -> None:
        """Rows of strands as they are, for later ones go on from them; other content once."""
        brought: list[str] = []
        for row in self._read(BlobRow):
            known = self._target.has_blob(row.digest)
            if self._stands_there(row) if row.codec == STRAND else known:
                self._tally["known"] += 1
                continue
            self._add(replace(row, digest="") if known else row)
            brought += [row.digest] if row.digest and not known else []
        for digest in brought:
            self._check(digest)

    def _stands_there(self, row: BlobRow) -> bool:
        """Whether the log has a row of a strand; one that has another in its place is not joined."""
        there = next(self._target.rows(BlobRow, "at = ?", (at_of(Place(row.strand or 0, row.place or 0)),)), None)
        if there is not None and (there.codec, there.data) != (row.codec, row.data):
            self._conflicts.append(conflict_of(there, row, (row.strand, row.place)))
        return there is not None

    def _check(self, digest: str) -> None:
        """Make sure that what was copied is what its digest names, as it can be read from here on."""
        try:
            content = self._target.blob(digest)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - damaged bytes may break a decompressor in any way
            self._unreadable(f"the content of {digest}: {error}")
        if digest_of(content) != digest:
            self._unreadable(f"the content of {digest} is something else")

    def _read(self, type_: type[R], where: str = "1", params: Sequence[object] = ()) -> Iterator[R]:
        with self._reading():
            yield from self._source.rows(type_, where, params)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError, UnicodeError) as error:
            self._unreadable(str(error))

    def _unreadable(self, why: str) -> NoReturn:
        raise CellmeterError(
            f"{self._source.path} cannot be merged, because it is damaged: {why}",
            hint=f"see what else is wrong with `cellmeter verify {self._source.path}`",
        ) from None


def _origin(log: Log) -> str:
    """Eight hex digits that tell a log from others; a copy of it has the same."""
    return hashlib.sha256((log.meta(SALT) or "").encode()).hexdigest()[:8]


def key_of(log: Log, type_: type[Record]) -> tuple[str, ...]:
    """The columns that make two rows of a table the same row; none where only all of them do."""
    table = TABLES[type_]
    if type_ is ScoreRow:
        return _SCORE_KEY
    columns = [(row[5], str(row[1])) for row in log.conn.execute(f"PRAGMA table_info({table})")]
    primary = tuple(name for place, name in sorted(columns) if place)
    if primary:
        return primary
    unique = [str(row[1]) for row in log.conn.execute(f"PRAGMA index_list({table})") if row[2]]
    return tuple(str(row[2]) for row in log.conn.execute(f"PRAGMA index_info({unique[0]})")) if unique else ()
