"""Runs: frames in a row that differ in one piece of text, and in members that nobody looks at.

Most of a streamed answer is one run, or a few. What a run says is read once, from one of its frames, and its texts are
read in one go. Invariant: a run is what its frames are one by one. That is proven, not guessed: a frame with marks in
place of what differs is parsed, and has to show them where a text may differ; what stands there in each frame has to be
a string, or a number, by itself (RFC 8259 §6, §7).
"""

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import pairwise
from operator import getitem
from typing import Any, Final, NamedTuple

import msgspec

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.shape import MARKS, MOST_HOLES, Shape, shapes
from cellmeter_proxy.sse import Event, parse_frame
from cellmeter_proxy.wire.outline import has_too_many_values

END: Final = b"\n\n"
_ROW: Final = b"\n"
_OTHERS: Final = bytes(set(range(256)) - set(b"".join((_ROW, *MARKS))))
_WORTH: Final = 6
"""Fewer frames are no run."""
_TO_ROWS: Final = bytes.maketrans(b"".join(MARKS), _ROW * len(MARKS))
_DEPTH: Final = 3
_MARK: Final = b"\\u0000"
"""The mark in a string, before the number of its hole."""
_LEAST_MARK: Final = 9007199254740880
_NUMBER_MARK: Final = b"900719925474088"
"""The mark that is a number, before the last of its digits, which is the number of its hole."""
_HOLES: Final = range(MOST_HOLES)
_DEEPEST: Final = 8
_TEXTS: Final = msgspec.json.Decoder(str)
_NUMBERS: Final = msgspec.json.Decoder(float)
_PLACES: Final[dict[Dialect, frozenset[tuple[str, ...]]]] = {
    "chat.completions": frozenset(
        {
            ("choices", "delta", "content"),
            ("choices", "delta", "reasoning_content"),
            ("choices", "delta", "reasoning"),
            ("choices", "delta", "refusal"),
            ("choices", "delta", "tool_calls", "function", "arguments"),
            ("choices", "delta", "function_call", "arguments"),
        }
    ),
    "completions": frozenset({("choices", "text")}),
    "responses": frozenset({("delta",)}),
    "messages": frozenset({("delta", "text"), ("delta", "thinking"), ("delta", "partial_json")}),
}
"""Where the pieces of a text stand in a frame, by the names on the way there."""
_KINDS: Final[dict[Dialect, str]] = {"responses": ".delta", "messages": "content_block_delta"}
"""How the ``type`` of a frame ends that brings a piece of text and no fact."""
_READ: Final = frozenset(
    {"id", "model", "choices", "usage", "error", "x_groq", "type", "message", "content_block", "item", "response"}
    | {"delta", "item_id", "output_index", "content_index", "summary_index", "index", "arguments", "transcript"}
    | {"content", "reasoning", "reasoning_content", "refusal", "text", "thinking", "partial_json"}
)
"""The members of a frame that some reader looks at, or that tell its text from another. Others may differ in a run."""
_NAMED_ANEW: Final[dict[Dialect, frozenset[str]]] = {
    "chat.completions": frozenset({"id"}),
    "completions": frozenset({"id"}),
}
"""Members of which a reader keeps the last text that is not empty: they may differ, too, where they have one."""


_Path = tuple[str | int, ...]


class Run(msgspec.Struct, frozen=True):
    """Frames in a row that differ in one piece of text."""

    event: Event
    """Of the first frame."""
    value: dict[str, Any]
    """The JSON value of the frames, with all their text in place of the pieces; of ``_NAMED_ANEW`` the last."""
    pieces: list[str]
    """What each frame brings of the text."""
    frames: list[bytes]
    shape: Shape
    rows: bytes
    """What stands between the beginning and the end of each frame, a line each, with a mark between two holes."""
    holder: dict[str, Any]
    """The object in the value that holds the text."""
    name: str
    """Of the member that is the text."""

    @property
    def brief(self) -> bytes:
        """What the frames repeat, once, and what differs."""
        return _ROW.join((*self.shape.literals, self.rows))

    def marked(self, marks: bytes) -> bytes:
        """The frames, with these marks for what the shape repeats."""
        head, tail = self.shape.literals[0], self.shape.literals[-1]
        own = b"".join((_ROW, *MARKS[: len(marks) - 1]))
        return b"".join((head, self.rows.translate(bytes.maketrans(own, marks)), tail, END))

    def first(self, is_it: Callable[[Event, object], bool]) -> int | None:
        """The first frame of which something is true."""
        text = self.holder[self.name]
        try:
            for number, piece in enumerate(self.pieces):
                self.holder[self.name] = piece
                if is_it(self.event, self.value):
                    return number
            return None
        finally:
            self.holder[self.name] = text


class _Template(NamedTuple):
    """A frame with marks in place of what differs: the shape of a run."""

    shape: Shape
    marked: bytes
    """The JSON of the frame."""
    text: int
    """Which of the holes holds the piece of text."""
    path: _Path
    """Where that is in the value."""
    renamed: dict[int, str]
    """The holes that hold a member of ``_NAMED_ANEW``, and which."""


def fold(frames: list[bytes], dialect: Dialect, depth: int = _DEPTH) -> Iterator[list[bytes] | Run]:
    """Frames as runs and what is between them.

    Args:
        frames: without the blank lines that end them, which are ``END``, and without CR or any of ``MARKS`` in them.
        dialect: tells where a frame has its text.
        depth: how often runs are looked for between runs.

    """
    template = _template(frames, dialect) if depth and len(frames) >= _WORTH else None
    if template is None:
        yield frames
        return
    for part in _cut(frames, template, exact=depth < _DEPTH):
        if isinstance(part, Run):
            yield part
        else:
            yield from fold(part, dialect, depth - 1)


def _template(frames: list[bytes], dialect: Dialect) -> _Template | None:
    if dialect not in _PLACES:
        return None
    return next(filter(None, (_checked(shape, dialect) for shape in shapes(frames))), None)


def _checked(shape: Shape, dialect: Dialect) -> _Template | None:
    """The frame of a shape with marks in it, if they stand where frames of a run may differ."""
    if any(_MARK in literal or _NUMBER_MARK in literal for literal in shape.literals):
        return None
    marks = [b"%b%d" % (_MARK if is_text else _NUMBER_MARK, at) for at, is_text in enumerate(shape.are_texts)]
    event = parse_frame(shape.filled(marks) + END)
    value = None if event is None else _read(event.data, dialect)
    if event is None or value is None:
        return None
    found = dict(_marks(value, ()))
    texts = [at for at, path in found.items() if _names(path) in _PLACES[dialect] and shape.are_texts[at]]
    members = {at: str(path[0]) for at, path in found.items() if len(path) == 1}
    anew = _NAMED_ANEW.get(dialect, frozenset())
    renamed = {at: name for at, name in members.items() if name in anew and shape.are_texts[at]}
    others = [at for at, name in members.items() if at in renamed or name not in _READ]
    if len(texts) != 1 or len(others) != len(marks) - 1:
        return None
    return _Template(shape, event.data, texts[0], found[texts[0]], renamed)


def _names(path: _Path) -> tuple[str, ...]:
    return tuple(name for name in path if isinstance(name, str))


def _read(data: bytes, dialect: Dialect) -> dict[str, Any] | None:
    """The JSON object of a frame that brings a piece of text and no fact of its own."""
    if has_too_many_values(data):
        return None
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if type(value) is not dict or not str(value.get("type")).endswith(_KINDS.get(dialect, "")):
        return None
    return value


def _marks(value: dict[str, Any] | list[Any], path: _Path) -> Iterator[tuple[int, _Path]]:
    """Where the marks are, by their number."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for name, member in members:
        kind = type(member)
        if kind is str and member.startswith("\0"):
            yield int(member[1:]), (*path, name)
        elif kind is int and member - _LEAST_MARK in _HOLES:
            yield member - _LEAST_MARK, (*path, name)
        elif (kind is dict or kind is list) and len(path) < _DEEPEST:
            yield from _marks(member, (*path, name))


def _cut(frames: list[bytes], template: _Template, *, exact: bool) -> Iterator[list[bytes] | Run]:
    """Put together the frames of a shape that follow each other.

    Most often they are told by how they begin and end; where that was not enough, what is within them counts too.
    """
    head, *inner, tail = template.shape.literals
    others = [at for at, frame in enumerate(frames) if not (frame.startswith(head) and frame.endswith(tail))]
    if exact and inner:
        odd = [at for at, frame in enumerate(frames) if any(literal not in frame for literal in inner)]
        others = sorted({*others, *odd})
    start = 0
    for low, high in pairwise([-1, *others, len(frames)]):
        run = _run(template, frames[low + 1 : high]) if high - low > _WORTH else None
        if run is not None:
            yield frames[start : low + 1]
            yield run
            start = high
    yield frames[start:]


def _run(template: _Template, frames: list[bytes]) -> Run | None:
    """Frames that begin and end as a shape does, if each of them has that shape and is valid JSON."""
    head, *inner, tail = template.shape.literals
    start, end = len(head), -len(tail)
    rows = _ROW.join([frame[start:end] for frame in frames])
    if min(map(len, frames)) < start - end:
        return None
    marks = MARKS[: len(inner)]
    for mark, literal in zip(marks, inner, strict=True):
        rows = rows.replace(literal, mark)
    if rows.translate(None, _OTHERS) != (b"".join((*marks, _ROW)) * len(frames))[:-1]:
        return None
    columns = _columns(rows.translate(_TO_ROWS).split(_ROW), template)
    first = parse_frame(frames[0] + END)
    if columns is None or first is None or not all(all(columns[at]) for at in template.renamed):
        return None
    value = msgspec.json.decode(template.marked)
    value.update({name: columns[at][-1] for at, name in template.renamed.items()})
    *way, last = template.path
    holder = reduce(getitem, way, value)
    pieces = columns[template.text]
    holder[last] = "".join(pieces)
    return Run(first, value, pieces, frames, template.shape, rows, holder, str(last))


def _columns(cells: list[bytes], template: _Template) -> list[list[str]] | None:
    """What stands in each hole, frame by frame, if it is what the hole is for; of numbers nothing."""
    columns: list[list[str]] = []
    are_texts = template.shape.are_texts
    try:
        for hole, is_text in enumerate(are_texts):
            column = cells[hole :: len(are_texts)]
            if is_text:
                # No string goes on after the end of a line, and every line has one: so it has no more than one.
                columns.append(_TEXTS.decode_lines(b'"' + b'"\n"'.join(column) + b'"'))
                if len(columns[-1]) != len(column):
                    return None
            elif all(map(bytes.isdigit, column)):
                _NUMBERS.decode_lines(_ROW.join(column))
                columns.append([])
            else:
                return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return columns
