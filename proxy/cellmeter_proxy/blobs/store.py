"""Storing bodies once and small, inside the caller's transaction.

Invariant: a body goes into the log in a form that can be read back from the rows that this transaction sees. What is
remembered between transactions only makes it smaller: each time it is looked up whether the last row of the strand is
still there, since a transaction that was rolled back took it along, and then a new strand is begun.
"""

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import zstandard

from cellmeter_proxy.blobs.digests import packed
from cellmeter_proxy.blobs.recipe import Base, Place, delta_recipe, recipe
from cellmeter_proxy.blobs.strands import HAS, STRAND, WHOLE, BlobReader, at_of
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import BlobRow

MAX_PLACES: Final = 256
MAX_STRAND_BYTES: Final = 8 * 1024 * 1024
MAX_FAR: Final = 2048
"""So many rows of other strands may have to be read for a body, before it is stored by itself again."""
_MAX_OPEN: Final = 64
_MAX_RECENT_BYTES: Final = 32 * 1024 * 1024
_MIN_DELTA: Final = 256
_ENOUGH: Final = 8
"""A recipe this many times smaller than its body will not be much smaller from another base."""
_NAME_BYTES: Final = 6
_INSERT: Final = "INSERT INTO blobs (at, sha256, size, data) VALUES (?, ?, ?, ?)"
_INSERT_ROW: Final = "INSERT INTO blobs (at, sha256, size, data, base, coded) VALUES (?, ?, ?, ?, ?, ?)"
_FIRST_WHOLE: Final = -(1 << 62)
_PARAMETERS: Final = zstandard.ZstdCompressionParameters(
    window_log=20, hash_log=17, chain_log=15, search_log=3, min_match=4, strategy=zstandard.STRATEGY_LAZY
)
"""Measured on sessions of source text: 8 % less than with the strategy of level 3, in 15 µs more for a body of which
2 KB are new. Tables of half the size would give 2 % more."""


def _unknown() -> None:
    return None


class Content(NamedTuple):
    """A body that is to be stored."""

    digest: str
    data: bytes
    grows: bool = False
    """It is a request: the next one of its session is likely to send it again."""
    recipe: bytes | None = None
    """Its recipe, where that was found on the way."""


class _Recent(NamedTuple):
    """A body that was stored or read a while ago."""

    data: bytes
    at: Place
    far: int


class _Made(NamedTuple):
    """The recipe of a body from an older one, and how many rows of other strands that needs."""

    recipe: bytes
    far: int


class _Open:
    """A strand that this process goes on writing."""

    def __init__(self, strand: int, compressor: zstandard.ZstdCompressor) -> None:
        self.strand = strand
        self.places = 0
        self.size = 0
        self.is_there = False
        """All that was added to it is in the log, as far as nothing was forgotten since."""
        self.newest: str | None = None
        """The digest of the last request in it."""
        self.compressor = compressor
        self._stream = compressor.compressobj()

    def add(self, recipe: bytes) -> bytes:
        """The next piece of the stream."""
        # Counted first: where this fails, the place stays empty, and that is how the strand is known to be broken.
        self.places += 1
        self.is_there = False
        self.size += len(recipe)
        return self._stream.compress(recipe) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    @property
    def is_full(self) -> bool:
        return self.places >= MAX_PLACES or self.size >= MAX_STRAND_BYTES


def _compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(compression_params=_PARAMETERS)


class BlobStore:
    """Puts bodies into a log. It belongs to the thread of its connection."""

    def __init__(self, conn: sqlite3.Connection, reader: BlobReader) -> None:
        self._conn = conn
        self._reader = reader
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._recent: OrderedDict[str, _Recent] = OrderedDict()
        self._recent_bytes = 0
        self._there: set[str] = set()  # of the recent ones, and of nothing else
        self.trusted = False
        """What was found in the log, or put there, since it was last forgotten still stands there."""

    def forget(self) -> None:
        """Look again for all that is needed: a transaction was rolled back, or somebody else has written."""
        self._there.clear()
        for strand in self._open.values():
            strand.is_there = False

    def put(self, content: Content, line: str, base: Callable[[], str | None] = _unknown) -> None:
        """Store a body, unless it is stored already.

        Args:
            content: the body.
            line: bodies of the same name stand in one strand: what belongs to one session.
            base: finds the digest of an older body that this one is likely to share much with; asked only where the
                last one of the line is not as good as any.

        """
        key = packed(content.digest)
        if self._has(content.digest, key):
            if content.grows and line in self._open:
                self._open[line].newest = content.digest
            return
        strand = self._strand(line)
        at, made = Place(strand.strand, strand.places), None
        if content.grows and len(content.data) >= _MIN_DELTA:
            made = self._delta(at, content.data, strand.newest, base)
        data = strand.add((content.recipe or recipe(content.data)) if made is None else made.recipe)
        self._conn.execute(_INSERT, (at_of(at), key, len(content.data), data))
        strand.is_there = self.trusted
        if content.grows:
            strand.newest = content.digest
            self._remember(content.digest, _Recent(content.data, at, 0 if made is None else made.far))

    def _has(self, digest: str, key: bytes | str | None) -> bool:
        if self.trusted and digest in self._there:
            return True
        return self._conn.execute(HAS, (key,)).fetchone() is not None

    def put_row(self, row: BlobRow) -> None:
        """Store content as a row of another log has it, or as it stands by itself."""
        if row.strand is None or row.place is None:
            (last,) = self._conn.execute("SELECT max(at) FROM blobs WHERE at < 0").fetchone()
            at = _FIRST_WHOLE if last is None else last + 1
        else:
            at = at_of(Place(row.strand, row.place))
        coded = None if row.codec == (STRAND if at >= 0 else WHOLE) else row.codec
        self._conn.execute(_INSERT_ROW, (at, packed(row.digest), row.size, row.data, row.base, coded))

    def _strand(self, line: str) -> _Open:
        """The strand that a line goes on with."""
        strand = self._open.get(line)
        before = None if strand is None else strand.newest
        if strand is None or strand.is_full or not self._goes_on(strand):
            # A compressor's tables are megabytes that the system has to clear: one that is done with is used again.
            spent = strand
            if spent is None and len(self._open) >= _MAX_OPEN:
                spent = self._open.popitem(last=False)[1]
            strand = self._open[line] = _Open(self._name(), _compressor() if spent is None else spent.compressor)
            strand.newest = before
        self._open.move_to_end(line)
        return strand

    def _goes_on(self, strand: _Open) -> bool:
        """Whether all that was added to a strand is in the log."""
        if self.trusted and strand.is_there:
            return True
        return not strand.places or self._has_piece(Place(strand.strand, strand.places - 1))

    def _name(self) -> int:
        """The name of a new strand: by chance, so that it is no other's, here or in a log that is merged with this."""
        while True:
            name = int.from_bytes(os.urandom(_NAME_BYTES), "big")
            if not self._has_piece(Place(name, 0)):
                return name

    def _has_piece(self, at: Place) -> bool:
        return self._conn.execute("SELECT 1 FROM blobs WHERE at = ?", (at_of(at),)).fetchone() is not None

    def _delta(self, at: Place, data: bytes, newest: str | None, base: Callable[[], str | None]) -> _Made | None:
        """The shortest recipe of a body from an older one."""
        made = self._from(at, data, newest)
        if made is not None and len(made.recipe) * _ENOUGH <= len(data):
            return made
        name = base()
        other = None if name == newest else self._from(at, data, name)
        if made is None or other is None:
            return made or other
        return min(made, other, key=lambda one: len(one.recipe))

    def _from(self, at: Place, data: bytes, name: str | None) -> _Made | None:
        """The recipe of a body from an older one, if that makes it smaller."""
        old = None if name is None else self._recall(name)
        if old is None:
            return None
        far = old.far if old.at.strand == at.strand else old.far + old.at.place + 1
        made = delta_recipe(at, Base(old.at, far), old.data, data) if far <= MAX_FAR else None
        return None if made is None else _Made(made, far)

    def _recall(self, digest: str) -> _Recent | None:
        """An older body of a strand that is in the log as this transaction sees it."""
        if self.trusted and digest in self._there:
            self._recent.move_to_end(digest)
            return self._recent[digest]
        try:
            at = self._reader.place(digest)
        except KeyError:
            return None
        if at is None:
            return None
        known = self._recent.get(digest)
        if known is not None and known.at == at:
            self._recent.move_to_end(digest)
            if self.trusted:
                self._there.add(digest)
            return known
        try:
            known = _Recent(self._reader.read(digest), at, self._reader.far(at))
        except (CellmeterError, ValueError):
            return None
        self._remember(digest, known)
        return known

    def _remember(self, digest: str, recent: _Recent) -> None:
        before = self._recent.pop(digest, None)
        self._recent_bytes += len(recent.data) - (0 if before is None else len(before.data))
        self._recent[digest] = recent
        if self.trusted:
            self._there.add(digest)
        while self._recent_bytes > _MAX_RECENT_BYTES and len(self._recent) > 1:
            old, body = self._recent.popitem(last=False)
            self._there.discard(old)
            self._recent_bytes -= len(body.data)
