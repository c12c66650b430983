"""What is known of the secrets in data from other data that begins and ends alike.

Agents resend their history, and what was looked through then need not be looked through again.

Invariant: with ``Known`` the same is found as without it. That rests on three things: no shape of a key reaches over
one of the marks, no form of a given secret is longer than ``longest``, and where a pattern matches in a part of the
data, it matches there in the whole, too.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

Span = tuple[int, int]
_MARKS: Final = (b'"', b"\\", b",")
"""Not in a key, and never far in JSON."""


class Known(NamedTuple):
    """What was found in other data, and how much of it is the same."""

    spans: list[Span]
    """Where its secrets are; in order, and none touching the next."""
    size: int
    head: int
    """So many bytes are the same from the beginning on; they and those of the ``tail`` do not overlap in either."""
    tail: int
    """So many bytes are the same at the end."""


class Left(NamedTuple):
    """What is left to be looked through, and what is known beside it."""

    start: int
    end: int
    spans: list[Span]


def left(data: bytes, known: Known, longest: int) -> Left:
    """The part of data that has to be looked through, and the secrets that are known to be elsewhere."""
    start = _mark_before(data, known.head - longest)
    after = _mark_from(data, len(data) - known.tail)
    shift = len(data) - known.size
    spans: list[Span] = []
    for first, last in known.spans:
        if last <= start:
            spans.append((first, last))
        elif first + shift >= after:
            spans.append((first + shift, last + shift))
        elif first < start or last + shift > after:
            return Left(0, len(data), [])
    return Left(start, _mark_from(data, after + longest), spans)


def _mark_before(data: bytes, at: int) -> int:
    """Where the last mark before a place is, or the beginning."""
    return max(0, *(data.rfind(mark, 0, max(at, 0)) for mark in _MARKS))


def _mark_from(data: bytes, at: int) -> int:
    """Where the first mark from a place on is, or the end."""
    return min((found for mark in _MARKS if (found := data.find(mark, at)) >= 0), default=len(data))


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, those that touch as one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
