"""A timeline, which is JSON, and how it is stored: as two columns of numbers. Pure.

``pack`` gives None for whatever ``unpack`` would not give back byte for byte.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import sub
from typing import Final

import msgspec

from cellmeter_proxy.blobs.ints import Cursor, column, number

_SCALES: Final = {1: 10, 3: 1000, 0: 1}
"""Decimals that the milliseconds of a timeline may have, and what makes them whole."""
_MOST: Final = 0xFFFF_FFFF
_FEW: Final = 20
"""One in so many chunks may be shorter than any frame with a text."""


def timeline(times: Iterable[float], sizes: Sequence[int]) -> tuple[bytes, bytes | None]:
    """When chunks came, in milliseconds to a tenth, and their sizes, as JSON pairs, and the columns of that."""
    ticks = [int(at * 10 + 0.5) for at in times]
    return _written(ticks, sizes, 10), _columns(ticks, sizes, 1)


def pack(content: bytes) -> bytes | None:
    """The columns of a timeline: how long each chunk came after the one before it, and the sizes."""
    try:
        pairs = msgspec.json.decode(content, type=list[tuple[float, int]])
        sizes = [size for _, size in pairs]
        for digits, scale in _SCALES.items():
            ticks = [int(at * scale + 0.5) for at, _ in pairs]
            if _written(ticks, sizes, scale) == content:
                return _columns(ticks, sizes, digits)
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None
    return None


def unpack(cursor: Cursor) -> bytes:
    """The timeline of its columns.

    Raises:
        ValueError: the bytes are no such columns.

    """
    digits, least = cursor.number(), cursor.number()
    gaps, above = cursor.column(), cursor.column()
    sizes = [size + least & _MOST for size in above]
    if digits not in _SCALES or len(gaps) != len(sizes):
        raise ValueError("the columns of a timeline do not match")
    return _written(accumulate(gaps), sizes, _SCALES[digits])


def _written(ticks: Iterable[int], sizes: Iterable[int], scale: int) -> bytes:
    return msgspec.json.encode(list(zip([tick / scale for tick in ticks], sizes, strict=True)))


def _columns(ticks: list[int], sizes: Sequence[int], digits: int) -> bytes | None:
    # Most chunks are frames, and most frames are the same around a text, the shortest of which has one character:
    # less that, sizes are the lengths of the texts, a column that the stream has had already.
    least = max(sorted(sizes)[len(sizes) // _FEW] - 1, 0) if sizes else 0
    try:
        gaps = array("I", map(sub, ticks, [0, *ticks])).tolist()
        above = [size - least & _MOST for size in array("I", sizes)]
    except OverflowError:
        return None
    return number(digits) + number(least) + column(gaps) + column(above)
