"""A whole stream taken apart once, for all who read it: its frames, their events, and the JSON of their data.

Invariant: the frames, joined, are the stream.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import Any, Final

import msgspec

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.shape import MARKS
from cellmeter_proxy.sse import Event, parse_frame, split
from cellmeter_proxy.wire.fields import load
from cellmeter_proxy.wire.outline import has_too_many_values
from cellmeter_proxy.wire.runs import END, Run, fold

_DONE: Final = b"[DONE]"
_NULL: Final = b"null"
_MARK: Final = b"\\u0000\\u0000"
_DECODER: Final = msgspec.json.Decoder(list[Any])
_AT_ONCE: Final = 256 * 1024
"""About so many bytes are parsed in one step, in which no other thread has the interpreter."""


class Frames(msgspec.Struct, frozen=True):
    """The frames of a stream, in order."""

    body: bytes
    sizes: list[int]
    """Bytes of each frame, its delimiter included."""
    events: list[Event | None]
    """Of each frame, or of the first one of a run; None for comments and blank lines."""
    values: list[Any]
    """Beside each event the JSON value of its data, None where it has none, or the ``Run`` that begins here."""
    repeated: list[bytes]
    """What stands between the texts of its runs, as many things as there are marks at the most."""
    marked: bytes
    """The stream with a mark (``shape.MARKS``) in place of each of these; without them there may be others in it."""
    brief: bytes
    """The stream with what a run repeats once: every run of letters, digits, ``_`` and ``-`` in the stream is one in
    here, and every name of a member of the values is as often in here."""

    def raw(self) -> list[bytes]:
        """The bytes of each frame."""
        ends = accumulate(self.sizes)
        return [self.body[end - size : end] for end, size in zip(ends, self.sizes, strict=True)]


def read_frames(body: bytes, dialect: Dialect = "unknown") -> Frames:
    """Take a whole stream apart, without content coding."""
    if b"\r" in body or any(map(body.__contains__, MARKS)):
        frames = split(body)
        events = [parse_frame(frame) for frame in frames]
        return Frames(body, list(map(len, frames)), events, _load_all(events), [], body, body)
    *frames, rest = _split(body)
    events = []
    values: list[Any] = []
    marked: list[bytes] = []
    brief: list[bytes] = []
    numbers: dict[bytes, int] = {}
    for part in (*fold(frames, dialect), [rest] if rest else []):
        if isinstance(part, Run):
            events.append(part.event)
            values.append(part)
            marked.append(_marked(part, numbers))
            brief.append(part.brief)
        elif part:
            found = [parse_frame(frame + END) for frame in part]
            events += found
            values += _load_all(found)
            marked.append(END.join([*part, b""]))
            brief.append(marked[-1])
    sizes = list(map(len(END).__add__, map(len, frames)))
    if rest:
        sizes.append(len(rest))
        marked[-1] = rest
    return Frames(body, sizes, events, values, list(numbers), b"".join(marked), END.join(brief))


def _split(body: bytes) -> list[bytes]:
    """``body.split(END)``; in a fraction of the time where each frame is a line, as most are."""
    lines = body.split(b"\n")
    return lines[::2] if len(lines) % 2 and not any(lines[1::2]) else body.split(END)


def _marked(run: Run, numbers: dict[bytes, int]) -> bytes:
    """A run with marks in it, as long as there are any left for what it repeats."""
    repeated = run.shape.repeated(END)
    new = [text for text in repeated if text not in numbers]
    if len(numbers) + len(new) > len(MARKS):
        return END.join([*run.frames, b""])
    numbers.update({text: len(numbers) + at for at, text in enumerate(new)})
    return run.marked(b"".join([MARKS[numbers[text]] for text in repeated]))


def _load_all(events: list[Event | None]) -> list[Any]:
    """The value of the data of each event; of what has too many values to be parsed None, as of what is no JSON."""
    texts = [_NULL if event is None or event.data == _DONE else event.data for event in events]
    if sum(map(len, texts)) <= _AT_ONCE:
        return _load_together(texts)
    ends = list(accumulate(map(len, texts)))
    values: list[Any] = []
    while len(values) < len(texts):
        start = len(values)
        end = max(bisect_right(ends, ends[start] - len(texts[start]) + _AT_ONCE), start + 1)
        group = texts[start:end]
        values += [None] if has_too_many_values(group[0]) else _load_together(group)
    return values


def _load_together(texts: list[bytes]) -> list[Any]:
    """The value of each text, read in one go where all of it is valid JSON.

    Between them stands a value that none of them has: where all of those are found in their places, there is one value
    between two of them.
    """
    together = b"[%b]" % (b',"%b",' % _MARK).join(texts)
    if together.count(_MARK) == len(texts) - 1:
        try:
            values = _DECODER.decode(together)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            values = []
        if len(values) == 2 * len(texts) - 1 and values[1::2] == ["\0\0"] * (len(texts) - 1):
            return values[::2]
    return [load(text) for text in texts]
