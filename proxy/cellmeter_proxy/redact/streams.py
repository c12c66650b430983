"""Masking secrets in a recorded stream, also where one is spread over several deltas.

Invariant: but for the masked characters every byte of the stream stays as it was: frames, comments, key order, escapes.
"""

import json
import re
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.redact.pieces import IDENTITY, plain_texts
from cellmeter_proxy.redact.secrets import Redactor
from cellmeter_proxy.sse import BOM, parse_frame
from cellmeter_proxy.wire.frames import Frames, read_frames
from cellmeter_proxy.wire.outline import has_too_many_values

_CHAT: Final = frozenset({"content", "reasoning", "reasoning_content", "refusal", "text", "arguments", "transcript"})
_MESSAGES: Final = frozenset({"text", "thinking", "partial_json"})
_PIECES: Final[dict[Dialect, frozenset[str]]] = {
    "chat.completions": _CHAT,
    "completions": frozenset({"text"}),
    "responses": frozenset({"delta"}),
    "messages": _MESSAGES,
}
"""The members that hold a piece of a longer text."""
_ANY_PIECE: Final = _CHAT | _MESSAGES | {"delta"}
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_UNIT: Final = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|[^\\]", re.DOTALL)


class _Piece(msgspec.Struct, frozen=True):
    """A string of a frame that is a piece of a longer text."""

    frame: int
    ordinal: int
    """Its place among the strings of the frame, names included."""
    text: str


class _Pairs(list[tuple[str, Any]]):
    """An object's members as they were written, repeated names included."""


def redact_stream(body: bytes, dialect: Dialect, redactor: Redactor) -> tuple[bytes, int]:
    """A recorded stream with its secrets masked, and how many there were.

    Args:
        body: without content coding.
        dialect: names the members whose pieces make up a text; of an unknown one any such member is taken.
        redactor: what to look for. In a frame that has too many values to be parsed (``wire.outline``) only the bytes
            are looked through.

    """
    return redact_frames(read_frames(body, dialect), dialect, redactor)


def redact_frames(parsed: Frames, dialect: Dialect, redactor: Redactor) -> tuple[bytes, int]:
    """The same for whoever has taken the stream apart already."""
    names = _PIECES.get(dialect, _ANY_PIECE)
    texts = plain_texts(parsed, names)
    if texts is not None:
        whole = "\n".join(texts).encode("utf-8", "surrogatepass")
        if redactor.has_none(parsed.body, parsed.brief + b"\n" + whole):
            return parsed.body, 0
        if not redactor.spans(whole):
            return redactor.bytes(parsed.body)
    frames = parsed.raw()
    masked = 0
    edits: dict[int, list[tuple[int, int]]] = {}
    for pieces in _texts(frames, names).values():
        hits = _character_spans(redactor, "".join(piece.text for piece in pieces))
        masked += len(hits)
        for number, span in _spread(frames, pieces, hits) if hits else ():
            edits.setdefault(number, []).append(span)
    for number, spans in edits.items():
        frames[number] = _mask(frames[number], spans)
    plain, others = redactor.bytes(b"".join(frames))
    return plain, masked + others


def _texts(frames: list[bytes], names: frozenset[str]) -> dict[Hashable, list[_Piece]]:
    """The texts that the frames bring piece by piece, each under a name of its own."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs, strict=False)
    texts: dict[Hashable, list[_Piece]] = {}
    for number, raw in enumerate(frames):
        found: list[tuple[tuple[object, ...], int, str]] = []
        if has_too_many_values(raw):
            continue
        try:
            value = decoder.decode(_data(raw))
            _collect(value, (), names, found, 0)
        except (ValueError, RecursionError):
            continue
        identity = _identity(value) if found else ()
        for path, ordinal, text in found:
            texts.setdefault((identity, path), []).append(_Piece(number, ordinal, text))
    return texts


def _identity(value: object) -> Hashable:
    members = value if isinstance(value, _Pairs) else ()
    return tuple(sorted({name: repr(member) for name, member in members if name in IDENTITY}.items()))


def _collect(
    value: object,
    path: tuple[object, ...],
    names: frozenset[str],
    found: list[tuple[tuple[object, ...], int, str]],
    count: int,
) -> int:
    """Find the pieces in a JSON value; the strings before it are counted, and those up to its end returned."""
    if isinstance(value, _Pairs):
        for name, member in value:
            count += 1
            if isinstance(member, str) and name in names:
                found.append(((*path, name), count, member))
            if isinstance(member, str | list):
                count = _collect(member, (*path, name), names, found, count)
    elif isinstance(value, list):
        for position, member in enumerate(value):
            if isinstance(member, str | list):
                index = dict(member).get("index", position) if isinstance(member, _Pairs) else position
                count = _collect(member, (*path, repr(index)), names, found, count)
    elif isinstance(value, str):
        count += 1
    return count


def _character_spans(redactor: Redactor, text: str) -> list[tuple[int, int]]:
    data = text.encode("utf-8", "surrogatepass")
    spans = redactor.spans(data)
    if len(data) == len(text):
        return spans
    return [
        (len(data[:start].decode("utf-8", "surrogatepass")), len(data[:end].decode("utf-8", "surrogatepass")))
        for start, end in spans
    ]


def _spread(
    frames: list[bytes], pieces: list[_Piece], hits: list[tuple[int, int]]
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Where the characters of the hits stand in the frames: frame number, and span in the text of its data."""
    for piece, touched in _touched(pieces, hits):
        source = _data(frames[piece.frame])
        literal = next(islice(_STRING.finditer(source), piece.ordinal, None))
        units = [unit.span() for unit in _UNIT.finditer(source, *literal.span(1))]
        for low, high in touched:
            for span in units[low:high]:
                yield piece.frame, span


def _touched(pieces: list[_Piece], hits: list[tuple[int, int]]) -> Iterator[tuple[_Piece, list[tuple[int, int]]]]:
    """The pieces that the hits reach into, and where in each; the hits are in order, and none touches the next."""
    offset = first = 0
    for piece in pieces:
        size = len(piece.text)
        touched: list[tuple[int, int]] = []
        while first < len(hits) and hits[first][0] < offset + size:
            start, end = hits[first]
            touched.append((max(start - offset, 0), min(end - offset, size)))
            if end > offset + size:
                break
            first += 1
        if touched:
            yield piece, touched
        offset += size


def _data(raw: bytes) -> str:
    event = parse_frame(raw)
    return "" if event is None else event.data.decode("utf-8", "surrogateescape")


def _mask(raw: bytes, spans: list[tuple[int, int]]) -> bytes:
    """The frame with an asterisk for each of the spans in the text of its data."""
    source = _data(raw)
    parts: list[str] = []
    at = 0
    for start, end in sorted(spans):
        parts += (source[at:start], "*")
        at = end
    parts.append(source[at:])
    lines = iter("".join(parts).encode("utf-8", "surrogateescape").split(b"\n"))
    return b"".join(_with_data(line, lines) for line in raw.splitlines(keepends=True))


def _with_data(line: bytes, lines: Iterator[bytes]) -> bytes:
    """A line as it was, or a data line with the next of the new values."""
    content = line.rstrip(b"\r\n")
    name, colon, value = content.partition(b":")
    if name.removeprefix(BOM) != b"data":
        return line
    space = b" " if value.startswith(b" ") else b""
    return name + colon + space + next(lines) + line[len(content) :]
