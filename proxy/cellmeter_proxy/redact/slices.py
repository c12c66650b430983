"""Large data a slice at a time, so that no single step of a search keeps the interpreter from all other threads.

Invariant: what is no longer than the overlap, and stands in the data, stands whole in one of the slices.
"""

from collections.abc import Iterator
from typing import Final

SLICE: Final = 256 * 1024
"""So many bytes take well under a millisecond."""


def slices(data: bytes, overlap: int) -> Iterator[bytes]:
    """The slices of data, each with so many bytes of the next."""
    for at in range(0, len(data), SLICE):
        yield data[at : at + SLICE + overlap]


def find(data: bytes, text: bytes, start: int = 0) -> int:
    """``data.find(text, start)``."""
    end = len(data)
    while start + SLICE < end:
        at = data.find(text, start, start + SLICE + len(text))
        if at >= 0:
            return at
        start += SLICE
    return data.find(text, start)
