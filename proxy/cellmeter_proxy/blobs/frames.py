"""An event stream as the little that changes from frame to frame. Pure.

A streamed answer repeats the same JSON around every few characters of text. Whatever stands between two texts is
replaced by a single byte that the stream does not contain, a mark, and the rest is taken apart into columns: which
marks follow each other, how long each piece of text is, and the text itself, in one piece again, so that it looks like
the text of the next request that quotes it.

``split`` and ``join`` are inverse for any bytes: what is found by looking at a few frames decides only how small
the result is.
"""

from collections.abc import Sequence
from itertools import chain, compress
from typing import Final, NamedTuple, TypeVar

from cellmeter_proxy.blobs.ints import Cursor, column, number
from cellmeter_proxy.shape import MARKS, shapes

_ALL_MARKS: Final = b"".join(MARKS)
_OTHERS: Final = bytes(set(range(256)) - set(_ALL_MARKS))
_ONLY: Final = {kind: bytes(byte == kind for byte in range(256)) for kind in _ALL_MARKS}
"""What makes a mark 1 and all others 0."""
_FIRST_MARK: Final = bytes.maketrans(_ALL_MARKS, MARKS[0] * len(MARKS))
_ENDS: Final = (b"\n\n", b"\r\n\r\n")
_SHORTEST: Final = 12
_LONGEST: Final = 4096
_LONG: Final = 128
_NEEDLE: Final = 32
T = TypeVar("T")


class Split(NamedTuple):
    """A stream taken apart: what it repeats, and the columns."""

    table: bytes
    texts: bytes


def split(content: bytes) -> Split | None:
    """A stream taken apart, or None where the bytes do not look like a stream of frames."""
    if not content.startswith((b"data:", b"event:", b":", b"id:")) or any(mark in content for mark in MARKS):
        return None
    repeated = _repeated(content)
    marked = content
    for mark, between in zip(MARKS, repeated, strict=False):
        marked = _replace(marked, between, mark)
    return split_marked(marked, repeated)


def split_marked(marked: bytes, repeated: Sequence[bytes]) -> Split | None:
    """The same of a stream that has the marks already; None where it has none.

    Args:
        marked: the stream, with the n-th mark wherever the n-th of the texts stood that it repeats.
        repeated: these texts, as many as there are marks at the most.

    """
    kinds = marked.translate(None, _OTHERS)
    if not kinds:
        return None
    texts = _in_columns(kinds, marked.translate(_FIRST_MARK).split(MARKS[0]))
    table = [number(len(repeated)), *(number(len(between)) + between for between in repeated)]
    table += [number(len(kinds)), kinds, column(list(map(len, texts)))]
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
    if len(sizes) != len(kinds) + 1 or len(repeated) > len(MARKS) or kinds.translate(None, _ALL_MARKS[: len(repeated)]):
        raise ValueError("a stream's pieces and what stands between them do not match")
    pieces = [b""] * len(sizes)
    for at, size in zip(_in_columns(kinds, range(len(sizes))), sizes, strict=True):
        pieces[at] = cursor.take(size)
    marked = b"".join(part for at, piece in enumerate(pieces) for part in (piece, kinds[at : at + 1]))
    for mark, between in reversed(list(zip(MARKS, repeated, strict=False))):
        marked = marked.replace(mark, between)
    return marked


def _in_columns(kinds: bytes, pieces: Sequence[T]) -> Sequence[T]:
    """The pieces, those that follow the same mark together. The first piece follows none."""
    if kinds.count(kinds[:1]) == len(kinds):
        return pieces
    columns = [compress(pieces[1:], kinds.translate(_ONLY[kind])) for kind in sorted(set(kinds))]
    return [pieces[0], *chain.from_iterable(columns)]


def _repeated(content: bytes) -> list[bytes]:
    """What stands between the texts of the stream, longest-reaching first."""
    end = _ENDS[1] if _ENDS[1] in content[:_LONGEST] else _ENDS[0]
    found: dict[bytes, None] = {}
    for shape in shapes(content.split(end)):
        found |= dict.fromkeys(shape.repeated(end))
    return [between for between in found if _SHORTEST <= len(between) <= _LONGEST][: len(MARKS)]
