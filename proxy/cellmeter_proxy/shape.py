"""What the frames of a stream have in common: all but a few strings and numbers. Pure.

It is found by comparing two frames that follow each other, and says nothing of any other frame.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|-?[0-9][0-9.eE+-]*|[^"0-9-]+|-', re.DOTALL)
_QUOTE: Final = ord('"')
_NUMERIC: Final = frozenset(b"-0123456789")
MOST_HOLES: Final = 4
_LONGEST: Final = 2048
MARKS: Final = tuple(bytes([byte]) for byte in range(1, 8))
"""Control characters: JSON text never has them as they are (RFC 8259 §7), nor does server-sent text."""
_SAMPLES: Final = (5, 2, 8)
"""Where in a stream frames are looked at, in tenths of it."""


class Shape(NamedTuple):
    """A frame with holes in it, which are numbers, or what stands between the quotes of strings."""

    literals: tuple[bytes, ...]
    """What stands before, between and after the holes."""
    are_texts: tuple[bool, ...]
    """Of each hole, whether it is in a string."""

    def filled(self, cells: list[bytes]) -> bytes:
        """The frame with these in its holes."""
        return b"".join(part for pair in zip(self.literals, [*cells, b""], strict=True) for part in pair)

    def repeated(self, end: bytes) -> tuple[bytes, ...]:
        """What stands between two holes: from one frame to the next, if frames end in this, and within a frame."""
        first, *inner, last = self.literals
        return (last + end + first, *inner)


def shapes(frames: Sequence[bytes]) -> Iterator[Shape]:
    """The shapes of frames at a few places of a stream."""
    for tenth in _SAMPLES:
        at = len(frames) * tenth // 10
        shape = _shape(*frames[at : at + 2]) if at + 1 < len(frames) else None
        if shape is not None:
            yield shape


def _shape(one: bytes, other: bytes) -> Shape | None:
    """What two frames have in common, if they differ in a few strings and numbers only."""
    if max(len(one), len(other)) > _LONGEST or one[: one.find(b"\n") + 1] != other[: other.find(b"\n") + 1]:
        return None
    tokens, others = _TOKEN.findall(one), _TOKEN.findall(other)
    holes = [at for at, token in enumerate(tokens) if at >= len(others) or token != others[at]]
    if len(tokens) != len(others) or not 0 < len(holes) <= MOST_HOLES:
        return None
    literals, are_texts, quote, start = [], [], b"", 0
    for at in holes:
        is_text = tokens[at][0] == others[at][0] == _QUOTE
        if not is_text and not (tokens[at][0] in _NUMERIC and others[at][0] in _NUMERIC):
            return None
        before, quote = quote, b'"' if is_text else b""
        literals.append(before + b"".join(tokens[start:at]) + quote)
        are_texts.append(is_text)
        start = at + 1
    return Shape((*literals, quote + b"".join(tokens[start:])), tuple(are_texts))
