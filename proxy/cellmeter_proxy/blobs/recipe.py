"""How a body is built: the bytes that a strand keeps of it. Pure.

The first byte says what follows.

- ``PLAIN``: the body.
- ``DELTA``: stretches copied from an older body, and the texts between them.
- ``FRAMES``: an event stream, see ``frames``.
- ``ARRIVALS``: a timeline, see ``arrivals``.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cellmeter_proxy.blobs import arrivals, frames
from cellmeter_proxy.blobs.delta import Copy, diff
from cellmeter_proxy.blobs.ints import Cursor, numbers

PLAIN: Final = 0
DELTA: Final = 1
FRAMES: Final = 2
ARRIVALS: Final = 3


class Place(NamedTuple):
    """Where a body stands."""

    strand: int
    place: int


class Base(NamedTuple):
    """The older body of a delta."""

    at: Place
    far: int
    """How many rows of other strands than the delta's own have to be read for it."""


class Delta(NamedTuple):
    """A body as stretches of an older one with texts between them."""

    base: Base
    copies: Sequence[Copy]
    texts: bytes
    """What is not copied, in one piece."""


def delta_recipe(at: Place, base: Base, old: bytes, new: bytes) -> bytes | None:
    """The recipe of the body at a place from an older one; None where they have too little in common."""
    copies = diff(old, new)
    if sum(copy.size for copy in copies) * 4 < len(new):
        return None
    near = base.at.strand == at.strand
    back = [at.place - base.at.place] if near else [0, base.at.strand, base.at.place]
    head, texts, end = [DELTA, *back, base.far, len(copies)], [], 0
    for start, source, size in copies:
        head += (start - end, source, size)
        texts.append(new[end:start])
        end = start + size
    return b"".join((numbers(head), *texts, new[end:]))


def recipe(content: bytes) -> bytes:
    """The recipe of a body by itself."""
    if content.startswith(b"[["):
        packed = arrivals.pack(content)
        if packed is not None:
            return of_timeline(packed)
    split = frames.split(content)
    return of_plain(content) if split is None else of_frames(split)


def of_plain(content: bytes) -> bytes:
    """The recipe of a body that is kept as it is."""
    return bytes([PLAIN]) + content


def of_frames(split: frames.Split) -> bytes:
    """The recipe of an event stream that was taken apart."""
    return bytes([FRAMES]) + split.table + split.texts


def of_timeline(packed: bytes) -> bytes:
    """The recipe of a timeline, given its columns."""
    return bytes([ARRIVALS]) + packed


def read_recipe(at: Place, data: bytes) -> bytes | Delta:
    """The body at a place, or what to build it from.

    Raises:
        ValueError: the bytes are no recipe.

    """
    kind, cursor = data[:1], Cursor(data, 1)
    match kind:
        case b"\x00":
            return data[1:]
        case b"\x01":
            return _read_delta(at, cursor)
        case b"\x02":
            return frames.join(cursor)
        case b"\x03":
            return arrivals.unpack(cursor)
        case _:
            raise ValueError(f"there is no recipe of kind {kind.hex() or 'none'}")


def _read_delta(at: Place, cursor: Cursor) -> Delta:
    back = cursor.number()
    old = Place(at.strand, at.place - back) if back else Place(cursor.number(), cursor.number())
    if old.place < 0:
        raise ValueError("it is built from a body before the first of its strand")
    base = Base(old, cursor.number())
    copies, end = [], 0
    for _ in range(cursor.number()):
        copies.append(Copy(end + cursor.number(), cursor.number(), cursor.number()))
        end = copies[-1].at + copies[-1].size
    return Delta(base, copies, cursor.data[cursor.at :])
