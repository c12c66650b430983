"""A timeline, which is JSON, as two columns of numbers. Pure.

``pack`` gives None for whatever ``unpack`` would not give back byte for byte.
"""

from itertools import accumulate, pairwise
from typing import Final

import msgspec

from cellmeter_proxy.blobs.ints import Cursor, column, number

_DIGITS: Final = (1, 3, 0)
"""Decimals that the milliseconds of a timeline may have."""


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
    scale = 10 ** cursor.number()
    gaps, sizes = cursor.column(), cursor.column()
    times = [ticks / scale for ticks in accumulate(gaps)]
    return msgspec.json.encode(list(zip(times, sizes, strict=True)))


def _packed(pairs: list[tuple[float, int]], digits: int) -> bytes | None:
    ticks = [0, *(round(at * 10**digits) for at, _ in pairs)]
    gaps = [later - earlier for earlier, later in pairwise(ticks)]
    sizes = [size for _, size in pairs]
    if min(gaps, default=0) < 0 or min(sizes, default=0) < 0 or max(*gaps, *sizes, 0) >= 1 << 64:
        return None
    return number(digits) + column(gaps) + column(sizes)
