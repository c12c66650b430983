"""Reading bodies: whole ones, and those of a strand.

A strand is the bodies of a session in the order in which they were stored, as one zstd stream (RFC 8878) that is
flushed after each. The ``data`` of a row is the piece that its body added to the stream, at its place in the strand,
counted from 0; what the stream gives there is the body's recipe. To read a body, the pieces of its strand up to its own
are read, in one query, and decompressed in one go; a delta takes the stretches that it copies from bodies at earlier
places, or of older strands.

Invariants: a piece never changes, and its strand has a name of its own among all logs, so that pieces can be copied
from log to log as they are; a recipe refers only to what was stored before it, and a reader that finds otherwise says
so.

The rows of a strand stand at ``strand << 8 | place``, content by itself below 0. A log of version 5 has the pieces in a
table of their own; one before it has none.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import zstandard

from cellmeter_proxy.blobs.delta import Copy
from cellmeter_proxy.blobs.digests import packed
from cellmeter_proxy.blobs.recipe import Delta, Place, read_recipe
from cellmeter_proxy.errors import CellmeterError

WHOLE: Final = "zstd"
STRAND: Final = "strand"
_KEPT: Final = 16
_KEPT_BYTES: Final = 32 * 1024 * 1024
_BUILT_BYTES: Final = 16 * 1024 * 1024
_MAX_WINDOW: Final = 1 << 27
_PIECES: Final = "SELECT at, data FROM blobs WHERE at BETWEEN ? AND ? ORDER BY at"


class _Queries(NamedTuple):
    """How a version of the log is asked."""

    pieces: str
    """Those between two places."""
    of_digest: str
    """The content of a digest. With the ``+`` SQLite does not take it for a constant and the index for useless."""
    order: str
    """In which reading all that has a digest costs least."""
    key: Callable[[str], bytes | str | None] = str
    """What ``of_digest`` gets for a digest."""


_OF_DIGEST: Final = "substr(sha256, 1, 4) = substr(?1, 1, 4) AND +sha256 = ?1"
HAS: Final = f"SELECT 1 FROM blobs WHERE {_OF_DIGEST}"
"""Whether a log of today's version has content, given its packed digest."""
_NOW: Final = _Queries(_PIECES, _OF_DIGEST, "WHERE sha256 IS NOT NULL ORDER BY at", packed)
_VERSION_6: Final = _Queries(
    _PIECES, "substr(digest, 8, 12) = substr(?1, 8, 12) AND +digest = ?1", "WHERE digest != '' ORDER BY at"
)
_BEFORE_6: Final = _Queries(
    """SELECT strand << 8 | place, data FROM pieces WHERE strand = ?1 >> 8 AND place BETWEEN ?1 & 255 AND ?2 & 255
        ORDER BY place""",
    "digest = ?1",
    "ORDER BY 3, 4, rowid",
)


def at_of(place: Place) -> int:
    """The number of the row of a place, which is also the order of rows."""
    return place.strand << 8 | place.place


class _Range(NamedTuple):
    """A stretch of the body at a place."""

    at: Place
    start: int
    size: int


class _Strand:
    """The part of a strand that has been read, and the state of its stream."""

    def __init__(self, strand: int, query: str) -> None:
        self.strand = strand
        self._query = query
        self.size = 0
        self._stream = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        self._recipes: list[bytes] = []
        self._deltas: dict[int, Delta] = {}

    def has(self, place: int) -> bool:
        """Whether a place has been read."""
        return place < len(self._recipes)

    def read_to(self, conn: sqlite3.Connection, place: int) -> None:
        """Read the pieces up to a place that have not been read."""
        first = at_of(Place(self.strand, len(self._recipes)))
        for found, data in conn.execute(self._query, (first, at_of(Place(self.strand, place)))):
            if found != at_of(Place(self.strand, len(self._recipes))):
                break
            recipe = self._stream.decompress(data)
            self.size += len(recipe)
            self._recipes.append(recipe)
        if not self.has(place):
            raise ValueError(f"piece {len(self._recipes)} of strand {self.strand} is not in the log")

    def body(self, place: int) -> bytes | Delta:
        """What stands at a place that has been read."""
        if place in self._deltas:
            return self._deltas[place]
        body = read_recipe(Place(self.strand, place), self._recipes[place])
        if isinstance(body, Delta):
            self._deltas[place] = body
        return body


class BlobReader:
    """Gives the exact bytes that are stored under a digest.

    It remembers the strands and the bodies that it read last, so that bodies that are read in the order in which they
    were stored cost one row and one older body each. It belongs to the thread of its connection.
    """

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        there = {str(column[1]) for column in conn.execute("PRAGMA table_xinfo(blobs)")}
        # A log of a version before strands has no such columns, and no such bodies.
        self._place = "strand, place" if "strand" in there else "NULL, NULL"
        self._queries = _NOW if "sha256" in there else _VERSION_6 if "at" in there else _BEFORE_6
        self._strands: OrderedDict[int, _Strand] = OrderedDict()
        self._built: OrderedDict[Place, bytes] = OrderedDict()
        self._built_bytes = 0

    def read(self, digest: str) -> bytes:
        """The content stored under a digest.

        Raises:
            KeyError: nothing is stored under it.
            CellmeterError: something is, but it cannot be read, or something that it is built from is not there.

        """
        row = self._find(f"codec, size, {self._place}, data", digest)
        if row is None:
            raise KeyError(digest)
        codec, size, strand, place, data = row
        if codec not in {WHOLE, STRAND}:
            raise CellmeterError(
                f"the content {digest} is stored as {codec!r}, which this cellmeter cannot read",
                hint="upgrade with `pip install -U cellmeter`",
            )
        try:
            if codec == WHOLE:
                return zstandard.ZstdDecompressor().decompress(data, max_output_size=max(size, 1))
            return self._build(Place(strand, place), size)
        except (ValueError, TypeError, MemoryError, zstandard.ZstdError) as error:
            raise CellmeterError(f"the content {digest} cannot be built: {error}") from None

    def stored(self) -> list[tuple[str, int]]:
        """Digest and size of everything that is stored, in the order in which reading it costs least."""
        rows = self._conn.execute(f"SELECT digest, size, {self._place} FROM blobs {self._queries.order}")
        return [(row[0], row[1]) for row in rows]

    def has(self, digest: str) -> bool:
        """Whether anything is stored under a digest."""
        return self._find("1", digest) is not None

    def size(self, digest: str) -> int | None:
        """How many bytes the content of a digest is said to have; None where nothing is stored under it."""
        row = self._find("size", digest)
        return None if row is None else row[0]

    def place(self, digest: str) -> Place | None:
        """Where a body that is part of a strand stands, or None where there is none.

        Raises:
            KeyError: nothing is stored under the digest.

        """
        row = self._find(self._place, digest)
        if row is None:
            raise KeyError(digest)
        return None if row[0] is None else Place(*row)

    def _find(self, columns: str, digest: str) -> tuple[Any, ...] | None:
        queries = self._queries
        found = self._conn.execute(
            f"SELECT {columns} FROM blobs WHERE {queries.of_digest}", (queries.key(digest),)
        ).fetchone()
        return None if found is None else tuple(found)

    def far(self, at: Place) -> int:
        """How many rows of other strands than its own have to be read for the body at a place.

        Raises:
            ValueError: the body cannot be read.

        """
        body = self._body(at)
        return body.base.far if isinstance(body, Delta) else 0

    def _build(self, at: Place, size: int) -> bytes:
        body = self._built.get(at)
        if body is None or len(body) != size:
            self._built_bytes -= len(self._built.pop(at, b""))
            body = self._built[at] = b"".join(self._pieces(_Range(at, 0, size)))
            self._built_bytes += size
            while self._built_bytes > _BUILT_BYTES:
                self._built_bytes -= len(self._built.popitem(last=False)[1])
        return body

    def _pieces(self, wanted: _Range) -> Iterator[bytes]:
        """The bytes of a stretch of a body, from as many older bodies as it was built from."""
        todo: list[_Range | bytes] = [wanted]
        while todo:
            part = todo.pop()
            if isinstance(part, bytes):
                yield part
                continue
            body = self._built.get(part.at) or self._body(part.at)
            if isinstance(body, Delta):
                self._check(part.at, body)
                parts = _cut(body, part.start, part.start + part.size)
            else:
                parts = [body[part.start : part.start + part.size]]
            if sum(part.size if isinstance(part, _Range) else len(part) for part in parts) != part.size:
                raise ValueError("a body is shorter than what is copied from it")
            todo.extend(reversed(parts))

    def _body(self, at: Place) -> bytes | Delta:
        return self._strand(at).body(at.place)

    def _check(self, at: Place, body: Delta) -> None:
        # The rows of other strands grow fewer from one strand to the next, so reading ends whatever a damaged log says.
        base = body.base
        if self.far(base.at) + (base.at.strand != at.strand) > base.far:
            raise ValueError("it is built from something that was stored after it")

    def _strand(self, at: Place) -> _Strand:
        """The strand of a place, read up to there."""
        strand = self._strands.get(at.strand)
        if strand is None:
            strand = self._strands[at.strand] = _Strand(at.strand, self._queries.pieces)
        elif strand.has(at.place):
            return strand
        self._strands.move_to_end(at.strand)
        try:
            strand.read_to(self._conn, at.place)
        except (ValueError, TypeError, MemoryError, zstandard.ZstdError):
            del self._strands[at.strand]
            raise
        while len(self._strands) > 1 and (
            len(self._strands) > _KEPT or sum(kept.size for kept in self._strands.values()) > _KEPT_BYTES
        ):
            self._strands.popitem(last=False)
        return strand


def _cut(body: Delta, start: int, end: int) -> list[_Range | bytes]:
    """A stretch of a delta: texts of its own, and stretches of its base."""
    parts: list[_Range | bytes] = []
    at = used = 0
    for copy in (*body.copies, _end(body)):
        parts.append(body.texts[used + max(start - at, 0) : used + max(min(end, copy.at) - at, 0)])
        used += copy.at - at
        low, high = max(start, copy.at), min(end, copy.at + copy.size)
        if low < high:
            parts.append(_Range(body.base.at, copy.source + low - copy.at, high - low))
        at = copy.at + copy.size
    return parts


def _end(body: Delta) -> Copy:
    """Nothing, copied to the end of a delta: in front of it stands the last of its texts."""
    return Copy(sum(copy.size for copy in body.copies) + len(body.texts), 0, 0)
