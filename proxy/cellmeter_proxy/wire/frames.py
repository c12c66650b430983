"""A whole stream taken apart once, for all who read it: its frames, their events, and the JSON of their data.

Invariant: the frames, joined, are the stream; the lists go side by side.
"""

from itertools import accumulate
from typing import Any, Final

import msgspec

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.sse import Event, parse_frame, split
from cellmeter_proxy.wire.fields import load
from cellmeter_proxy.wire.textchunk import load_chunks

_BEFORE: Final = b"data: "
_AFTER: Final = b"\n\n"
_DONE: Final = b"[DONE]"
_NULL: Final = b"null"
_DECODER: Final = msgspec.json.Decoder()


class Frames(msgspec.Struct, frozen=True):
    """The frames of a stream, in order."""

    body: bytes
    sizes: list[int]
    """Bytes of each frame, its delimiter included."""
    events: list[Event | None]
    """None for comments and blank lines."""
    values: list[Any]
    """The JSON value of each event's data, None where it has none, and ``TextChunk`` for such a chunk of a chat."""

    def raw(self) -> list[bytes]:
        """The bytes of each frame."""
        ends = accumulate(self.sizes)
        return [self.body[end - size : end] for end, size in zip(ends, self.sizes, strict=True)]


def read_frames(body: bytes, dialect: Dialect = "unknown") -> Frames:
    """Take a whole stream apart, without content coding."""
    texts = _only_data(body)
    if texts is not None:
        sizes = [len(text) + len(_BEFORE) + len(_AFTER) for text in texts]
        return Frames(body, sizes, [Event(None, text) for text in texts], _load_all(texts, dialect))
    raw = split(body)
    events = [parse_frame(frame) for frame in raw]
    texts = [_NULL if event is None else event.data for event in events]
    return Frames(body, [len(frame) for frame in raw], events, _load_all(texts, dialect))


def _only_data(body: bytes) -> list[bytes] | None:
    """The data of a stream that is nothing but whole frames of one data line each, as most are; None of another."""
    if not body.startswith(_BEFORE) or not body.endswith(_AFTER) or b"\r" in body:
        return None
    texts = body[len(_BEFORE) : -len(_AFTER)].split(_AFTER + _BEFORE)
    return texts if body.count(b"\n") == 2 * len(texts) else None


def _load_all(texts: list[bytes], dialect: Dialect) -> list[Any]:
    """The value of each text, read in one go where each is a line of valid JSON."""
    texts = [_NULL if text == _DONE else text for text in texts]
    if dialect == "chat.completions":
        return load_chunks(texts)
    lines = b"\n".join(texts)
    if lines.count(b"\n") == len(texts) - 1:
        try:
            values: list[Any] = _DECODER.decode_lines(lines)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            values = []
        if len(values) == len(texts):
            return values
    return [load(text) for text in texts]
