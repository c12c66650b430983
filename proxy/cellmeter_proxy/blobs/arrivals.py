"""A timeline, which is JSON, as two columns of numbers. Pure.

``pack`` gives None for whatever ``unpack`` would not give back byte for byte.
"""

from itertools import accumulate, pairwise
from typing import Final

import msgspec

from cellmeter_proxy.blobs.ints import Cursor, column, number

_DIGITS: Final = (1, 3, 0)
"""Decimals that the milliseconds of a timeline may have."""
_MOST: Final = 0xFFFF_FFFF
_FEW: Final = 20
"""One in so many chunks may be shorter than any frame with a text."""


def pack(content: bytes) -> bytes | None:
    """The columns of a timeline: how long each chunk came after the one before it, and the sizes."""
    try:
        pairs = msgspec.json.decode(content, type=list[tuple[float, int]])
        for digits in _DIGITS:
            packed = _packed(pairs, digits)
            if packed is not None and unpack(Cursor(packed)) == content:
                return packed
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None
    return None


def unpack(cursor: Cursor) -> bytes:
    """The timeline of its columns.

    Raises:
        ValueError: the bytes are no such columns.

    """
    scale, least = 10 ** cursor.number(), cursor.number()
    gaps, above = cursor.column(), cursor.column()
    times = [ticks / scale for ticks in accumulate(gaps)]
    return msgspec.json.encode([(at, size + least & _MOST) for at, size in zip(times, above, strict=True)])


def _packed(pairs: list[tuple[float, int]], digits: int) -> bytes | None:
    scale = 10**digits
    ticks = [0, *(int(at * scale + 0.5) for at, _ in pairs)]
    gaps = [later - earlier for earlier, later in pairwise(ticks)]
    sizes = [size for _, size in pairs]
    if min(gaps, default=0) < 0 or max(gaps, default=0) > _MOST or max(sizes, default=0) > _MOST:
        return None
    # Most chunks are frames, and most frames are the same around a text, the shortest of which has one character:
    # less that, sizes are the lengths of the texts, a column that the stream has had already.
    least = max(sorted(sizes)[len(sizes) // _FEW] - 1, 0) if sizes else 0
    return number(digits) + number(least) + column(gaps) + column([size - least & _MOST for size in sizes])
