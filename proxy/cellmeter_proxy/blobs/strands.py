"""Reading bodies: whole ones, and those of a strand.

A strand is the bodies of a session in the order in which they were stored, as one zstd stream (RFC 8878) that is
flushed after each. A row keeps the part of the stream that its body added (``data``) and its place in the strand,
counted from 0; what the stream gives at that place is the body's recipe. To read a body, the rows of its strand up to
its own are read, in one query, and decompressed in one go; a delta takes the stretches that it copies from bodies
at earlier places, or from the one that the row's ``base`` names, in an older strand.

Invariant: a recipe refers only to what was stored before it, and a reader that finds otherwise says so.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import zstandard

from cellmeter_proxy.blobs.delta import Copy
from cellmeter_proxy.blobs.recipe import Delta, read_recipe
from cellmeter_proxy.errors import CellmeterError

WHOLE: Final = "zstd"
STRAND: Final = "strand"
_KEPT: Final = 8
_KEPT_BYTES: Final = 32 * 1024 * 1024
_MAX_WINDOW: Final = 1 << 27


class Place(NamedTuple):
    """Where a body stands."""

    strand: int
    """0 where it stands by itself."""
    place: int
    name: str | None
    """Of a body by itself, its digest; else that of the body of another strand that it is a delta to, if it is to one."""


class _Range(NamedTuple):
    """A stretch of the body at a place."""

    at: Place
    start: int
    size: int


class _Strand:
    """The part of a strand that has been read, and the state of its stream."""

    def __init__(self, strand: int) -> None:
        self.strand = strand
        self.size = 0
        self._stream = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        self._recipes: list[bytes] = []
        self._bases: list[str | None] = []
        self._deltas: dict[int, Delta] = {}

    def read_to(self, conn: sqlite3.Connection, place: int) -> None:
        """Read the rows up to a place that have not been read."""
        known = len(self._recipes)
        if place < known:
            return
        rows = conn.execute(
            "SELECT place, base, data FROM blobs WHERE strand = ? AND place BETWEEN ? AND ? ORDER BY place",
            (self.strand, known, place),
        )
        for found, base, data in rows:
            if found != len(self._recipes):
                break
            recipe = self._stream.decompress(data)
            self.size += len(recipe)
            self._recipes.append(recipe)
            self._bases.append(base)
        if len(self._recipes) <= place:
            raise ValueError(f"the body at place {len(self._recipes)} of strand {self.strand} is not in the log")

    def body(self, place: int) -> bytes | Delta:
        """What stands at a place that has been read."""
        if place in self._deltas:
            return self._deltas[place]
        body = read_recipe(self._recipes[place])
        if isinstance(body, Delta):
            self._deltas[place] = body
        return body

    def place(self, place: int) -> Place:
        """A place that has been read."""
        return Place(self.strand, place, self._bases[place])


class BlobReader:
    """Gives the exact bytes that are stored under a digest.

    It remembers the strands that it read last, so that bodies that are read in the order in which they were stored
    cost one row each. It belongs to the thread of its connection.
    """

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        there = {str(column[1]) for column in conn.execute("PRAGMA table_info(blobs)")}
        # A log of a version before strands has no such columns, and no such bodies.
        self._place = "strand, place" if "strand" in there else "NULL, NULL"
        self._strands: OrderedDict[int, _Strand] = OrderedDict()

    def read(self, digest: str) -> bytes:
        """The content stored under a digest.

        Raises:
            KeyError: nothing is stored under it.
            CellmeterError: something is, but it cannot be read, or something that it is built from is not there.

        """
        row = self._conn.execute(
            f"SELECT codec, size, base, {self._place}, data FROM blobs WHERE digest = ?", (digest,)
        ).fetchone()
        if row is None:
            raise KeyError(digest)
        codec, size, base, strand, place, data = row
        if codec not in {WHOLE, STRAND}:
            raise CellmeterError(
                f"the content {digest} is stored as {codec!r}, which this cellmeter cannot read",
                hint="upgrade with `pip install -U cellmeter`",
            )
        try:
            if codec == WHOLE:
                return zstandard.ZstdDecompressor().decompress(data, max_output_size=max(size, 1))
            content = b"".join(self._pieces(_Range(Place(strand, place, base), 0, size)))
        except (ValueError, RecursionError, MemoryError, zstandard.ZstdError) as error:
            raise CellmeterError(f"the content {digest} cannot be built: {error}") from None
        return content

    def place(self, digest: str) -> Place | None:
        """Where the body of a digest stands, or None where there is none."""
        row = self._conn.execute(f"SELECT {self._place}, base FROM blobs WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        return Place(0, 0, digest) if row[0] is None else Place(*row)

    def far(self, at: Place) -> int:
        """How many rows of other strands than its own have to be read for a body.

        Raises:
            ValueError: the body cannot be read.

        """
        body = self._body(at)
        return body.base.far if isinstance(body, Delta) else 0

    def _pieces(self, wanted: _Range) -> Iterator[bytes]:
        """The bytes of a stretch of a body, from as many older bodies as it was built from."""
        todo: list[_Range | bytes] = [wanted]
        while todo:
            piece = todo.pop()
            if isinstance(piece, bytes):
                yield piece
                continue
            body = self._body(piece.at)
            if isinstance(body, Delta):
                parts = _cut(body, self._base(piece.at, body), piece.start, piece.start + piece.size)
            else:
                parts = [body[piece.start : piece.start + piece.size]]
            if sum(part.size if isinstance(part, _Range) else len(part) for part in parts) != piece.size:
                raise ValueError("a body is shorter than what is copied from it")
            todo.extend(reversed(parts))

    def _body(self, at: Place) -> bytes | Delta:
        if not at.strand:
            return self.read(at.name or "")
        return self._strand(at).body(at.place)

    def _base(self, at: Place, body: Delta) -> Place:
        """Where the older body of a delta stands."""
        if body.base.back > at.place:
            raise ValueError("it is a delta to a body before the first of its strand")
        if body.base.back:
            base = self._strand(at).place(at.place - body.base.back)
        else:
            found = None if at.name is None else self.place(at.name)
            if found is None:
                raise ValueError(f"the content {at.name} that it is a delta to is not in the log")
            base = found
        # Rows of other strands grow fewer from one strand to the next, so this ends whatever a damaged log says.
        if self.far(base) + (body.base.back == 0) > body.base.far:
            raise ValueError("it is a delta to something that was stored after it")
        return base

    def _strand(self, at: Place) -> _Strand:
        """The strand of a place, read up to there."""
        strand = self._strands.setdefault(at.strand, _Strand(at.strand))
        self._strands.move_to_end(at.strand)
        try:
            strand.read_to(self._conn, at.place)
        except (ValueError, zstandard.ZstdError):
            del self._strands[at.strand]
            raise
        while len(self._strands) > 1 and (
            len(self._strands) > _KEPT or sum(kept.size for kept in self._strands.values()) > _KEPT_BYTES
        ):
            self._strands.popitem(last=False)
        return strand


def _cut(body: Delta, base: Place, start: int, end: int) -> list[_Range | bytes]:
    """A stretch of a delta: texts of its own, and stretches of its base."""
    parts: list[_Range | bytes] = []
    at = used = 0
    for copy in (*body.copies, _end(body)):
        parts.append(body.texts[used + max(start - at, 0) : used + max(min(end, copy.at) - at, 0)])
        used += copy.at - at
        low, high = max(start, copy.at), min(end, copy.at + copy.size)
        if low < high:
            parts.append(_Range(base, copy.source + low - copy.at, high - low))
        at = copy.at + copy.size
    return parts


def _end(body: Delta) -> Copy:
    """Nothing, copied to the end of a delta: in front of it stands the last of its texts."""
    return Copy(sum(copy.size for copy in body.copies) + len(body.texts), 0, 0)
