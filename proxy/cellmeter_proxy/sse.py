"""Server-sent events, incrementally: bytes in, whole frames out.

Invariant: the frames, joined, are the bytes that came in, and they do not depend on how those bytes were split.
Lines end in LF, CR or CRLF, a frame ends with an empty line
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
"""

import re
from typing import Final

import msgspec

BOM: Final = b"\xef\xbb\xbf"
LINE_END: Final = re.compile(rb"\r\n|\n|\r")
FRAME_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_OVERLAP: Final = 3
_DATA: Final = b"data: "


class Event(msgspec.Struct, frozen=True, gc=False):
    """What a frame says: its ``event`` field, if it has one, and its ``data`` lines joined with LF."""

    event: str | None
    data: bytes


class FrameSplitter:
    """Cuts a stream into raw frames, each with its delimiter; costs time linear in the bytes, however long a line."""

    __slots__ = ("_buffer", "_scanned")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the frames that they complete.

        A CR at the very end could be half of a CRLF: a frame that it would complete waits for the next byte.
        """
        buffer = self._buffer
        buffer += chunk
        frames: list[bytes] = []
        start = 0
        at = max(self._scanned - _OVERLAP, 0)
        cr = _next_cr(buffer, at)
        while (end := _frame_end(buffer, at, cr)) is not None:
            frames.append(bytes(buffer[start:end]))
            start = at = end
            if cr < end:
                cr = _next_cr(buffer, end)
        if start:
            del buffer[:start]
        self._scanned = len(buffer)
        return frames

    @property
    def rest(self) -> bytes:
        """The unfinished frame at the end. After the stream's end it is the last frame, without its blank line."""
        return bytes(self._buffer)

    @property
    def pending(self) -> int:
        """How many bytes the unfinished frame has so far."""
        return len(self._buffer)


def parse_frame(raw: bytes) -> Event | None:
    """What one raw frame says, or None where it has neither an event nor a data line (comments, blank lines)."""
    if raw.startswith(_DATA) and raw.find(b"\n") == len(raw) - 2 and raw.endswith(b"\n\n") and b"\r" not in raw:
        return Event(None, raw[len(_DATA) : -2])
    event: bytes | None = None
    data: list[bytes] = []
    for line in raw.removeprefix(BOM).splitlines():
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ")
    if event is None and not data:
        return None
    return Event(None if event is None else event.decode("utf-8", "replace"), b"\n".join(data))


def split(body: bytes) -> list[bytes]:
    """The raw frames of a whole stream, the last one even where it lacks its blank line."""
    if b"\r" not in body:
        *whole, rest = body.split(b"\n\n")
        frames = [frame + b"\n\n" for frame in whole]
        return [*frames, rest] if rest else frames
    splitter = FrameSplitter()
    frames = splitter.feed(body)
    return [*frames, splitter.rest] if splitter.pending else frames


def _next_cr(buffer: bytearray, start: int) -> int:
    """Where the next CR stands, or the end: looked for once for all frames before it, so that the cost stays linear."""
    found = buffer.find(b"\r", start)
    return len(buffer) if found < 0 else found


def _frame_end(buffer: bytearray, start: int, cr: int) -> int | None:
    """Where the frame ends that is searched for from ``start`` on, or None where that is not known yet."""
    end = buffer.find(b"\n\n", start, cr)
    if end >= 0:
        return end + 2
    if cr == len(buffer):
        return None
    match = FRAME_END.search(buffer, start)
    if match is None or (match.end() == len(buffer) and buffer.endswith(b"\r")):
        return None
    return match.end()
