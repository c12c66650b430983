"""An event stream as the little that changes from frame to frame. Pure.

A streamed answer repeats the same JSON around every few characters of text. Whatever stands between two texts is
replaced by a single byte that the stream does not contain, and the rest is taken apart into columns: which of those
bytes follow each other, how long each piece of text is, and the text itself, in one piece again, so that it looks like
the text of the next request that quotes it.

``split`` and ``join`` are inverse for any bytes: what is found by looking at a few frames decides only how small
the result is.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from cellmeter_proxy.blobs.delta import common_prefix, common_suffix
from cellmeter_proxy.blobs.ints import Cursor, column, number

_MARKS: Final = tuple(bytes([byte]) for byte in range(1, 8))
"""Control characters: JSON text never has them as they are (RFC 8259 §7), nor does server-sent text."""
_ALL_MARKS: Final = b"".join(_MARKS)
_OTHERS: Final = bytes(set(range(256)) - set(_ALL_MARKS))
_ANY_MARK: Final = re.compile(b"[\x01-\x07]")
_ENDS: Final = (b"\n\n", b"\r\n\r\n")
_SHORTEST: Final = 12
_LONGEST: Final = 4096
_LONG: Final = 128
_NEEDLE: Final = 32
_SAMPLES: Final = (5, 2, 8)
"""Where in the stream frames are looked at, in tenths of it."""


class Split(NamedTuple):
    """A stream taken apart: what it repeats, and the columns."""

    table: bytes
    texts: bytes


def split(content: bytes) -> Split | None:
    """A stream taken apart, or None where the bytes do not look like a stream of frames."""
    if not content.startswith((b"data:", b"event:", b":", b"id:")) or any(mark in content for mark in _MARKS):
        return None
    end = _ENDS[1] if _ENDS[1] in content[:_LONGEST] else _ENDS[0]
    repeated = _repeated(content, end)
    if not repeated:
        return None
    marked = content
    for mark, between in zip(_MARKS, repeated, strict=False):
        marked = _replace(marked, between, mark)
    kinds = marked.translate(None, _OTHERS)
    pieces = _ANY_MARK.split(marked) if len(repeated) > 1 else marked.split(_MARKS[0])
    texts = [pieces[at] for at in _order(kinds)]
    table = [number(len(repeated)), *(number(len(between)) + between for between in repeated)]
    table += [number(len(kinds)), kinds, column([len(text) for text in texts])]
    return Split(b"".join(table), b"".join(texts))


def _replace(content: bytes, between: bytes, mark: bytes) -> bytes:
    """``content.replace(between, mark)``, give or take overlaps; a long text is found by its end, in half the time."""
    if len(between) <= _LONG:
        return content.replace(between, mark)
    front, end = between[:-_NEEDLE], between[-_NEEDLE:]
    *parts, last = content.split(end)
    marked = [part[: -len(front)] + mark if part.endswith(front) else part + end for part in parts]
    return b"".join((*marked, last))


def join(cursor: Cursor) -> bytes:
    """The stream of what ``split`` made of it: its table, then its texts.

    Raises:
        ValueError: the bytes are not such a split.

    """
    repeated = [cursor.take(cursor.number()) for _ in range(cursor.number())]
    kinds = cursor.take(cursor.number())
    sizes = cursor.column()
    if (
        len(sizes) != len(kinds) + 1
        or len(repeated) > len(_MARKS)
        or kinds.translate(None, _ALL_MARKS[: len(repeated)])
    ):
        raise ValueError("a stream's pieces and what stands between them do not match")
    pieces = [b""] * len(sizes)
    for at, size in zip(_order(kinds), sizes, strict=True):
        pieces[at] = cursor.take(size)
    marked = b"".join(part for at, piece in enumerate(pieces) for part in (piece, kinds[at : at + 1]))
    for mark, between in reversed(list(zip(_MARKS, repeated, strict=False))):
        marked = marked.replace(mark, between)
    return marked


def _order(kinds: bytes) -> Iterable[int]:
    """The places of the pieces, those that follow the same mark together. The first piece follows none."""
    if kinds.count(kinds[:1]) == len(kinds):
        return range(len(kinds) + 1)
    columns: dict[int, list[int]] = {}
    for at, kind in enumerate(kinds):
        columns.setdefault(kind, []).append(at + 1)
    return [0, *(at for kind in sorted(columns) for at in columns[kind])]


def _repeated(content: bytes, end: bytes) -> list[bytes]:
    """What stands between the texts of the stream, longest-reaching first."""
    found: list[bytes] = []
    for tenth in _SAMPLES:
        pair = _pair(content, end, len(content) * tenth // 10)
        for between in [] if pair is None else _between(*pair, end):
            if _SHORTEST <= len(between) <= _LONGEST and between not in found and len(found) < len(_MARKS):
                found.append(between)
    return found


def _pair(content: bytes, end: bytes, at: int) -> tuple[bytes, bytes] | None:
    """Two frames that follow each other, from a place in the stream on."""
    first = content.find(end, at)
    second = content.find(end, first + len(end))
    third = content.find(end, second + len(end))
    if -1 in {first, second, third}:
        return None
    return content[first + len(end) : second], content[second + len(end) : third]


def _between(one: bytes, other: bytes, end: bytes) -> list[bytes]:
    """What two frames share around their texts: from one text to that of the next frame, and within a frame."""
    head = _cut_back(one[: common_prefix(one, other)])
    tail = _cut_forward(one[len(one) - common_suffix(one, other, min(len(one), len(other)) - len(head)) :])
    around = tail + end + head
    one, other = one[len(head) : len(one) - len(tail)], other[len(head) : len(other) - len(tail)]
    inner: list[bytes] = []
    # A number that counts frames comes before its text, padding of random length comes after.
    if b"," in one and b"," in other:
        one_at, other_at = one.find(b","), other.find(b",")
        inner.append(_cut_back(one[one_at : one_at + common_prefix(one, other, one_at, other_at)]))
    if b'"' in one and b'"' in other:
        one_end, other_end = one[: one.rfind(b'"') + 1], other[: other.rfind(b'"') + 1]
        size = common_suffix(one_end, other_end, min(len(one_end), len(other_end)))
        inner.append(_cut_forward(one_end[len(one_end) - size :]))
    # Where there is but one text in the middle, both are what stands beside it.
    if len({between.strip(b'",:') for between in inner}) == 1:
        inner = inner[:1]
    return [around, *inner]


def _cut_back(text: bytes) -> bytes:
    """As much of a common beginning as cannot be part of the texts that follow it."""
    return text[: max(text.rfind(b'"'), text.rfind(b":")) + 1]


def _cut_forward(text: bytes) -> bytes:
    """As much of a common end as cannot be part of the texts before it."""
    at = text.find(b'"')
    return text[at if at >= 0 else max(text.find(b"}"), 0) :]
