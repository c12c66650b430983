"""Which bytes of a stream the client may have now.

Invariants: what goes in comes out, in order, once (less the usage chunk where it is to be taken out); what comes out in
total does not depend on how the stream was split; nothing waits that cannot be, or become, what has to wait.
"""

import re
from typing import Final

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.sse import BOM, FRAME_END, LINE_END, FrameSplitter, parse_frame
from cellmeter_proxy.wire.fields import as_list, as_object, load_object, text

_DONE: Final = b"[DONE]"
_RESPONSES: Final = (b"response.completed", b"response.incomplete", b"response.failed")
_MESSAGES: Final = (b"message_stop",)
_ERROR: Final = (b"error",)
_BLANK: Final = b" \t"
_TYPED: Final[dict[Dialect, tuple[bytes, ...]]] = {
    "responses": _RESPONSES + _ERROR,
    "messages": _MESSAGES + _ERROR,
    "unknown": _RESPONSES + _MESSAGES + _ERROR,
}
"""The dialects whose data names its event, so that a frame without an ``event`` line can be terminal.

In the others an error in mid-stream is a frame like any other: the provider may go on after it.
"""
_LONGEST_NAME: Final = 64
_OVERLAP: Final = 3
_BLANK_LINES: Final = (b"\n\n", b"\r\n\r\n")
_MAX_USAGE_FRAME: Final = 16 * 1024
_FULL_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\{')


class TerminalHold:
    """Lets a stream through up to its terminal event, and keeps the bytes from there on.

    Terminal are ``data: [DONE]`` in every dialect and, where events have names, an ``event`` line that names the end or
    an error, and a frame without an ``event`` line whose JSON has such a ``type``. The bytes are kept from the start of
    the line (of the frame's data, in the last case). A line that could still become one waits until it is decided.
    """

    __slots__ = (
        "_after_cr",
        "_first",
        "_kept",
        "_line",
        "_named",
        "_names",
        "_needles",
        "_passed",
        "_searched",
        "_typed",
        "ended",
        "held",
    )

    def __init__(self, dialect: Dialect) -> None:
        self.held = bytearray()
        """The terminal event and whatever came after it, less what was taken."""
        self.ended = False
        """The terminal event has begun."""
        self._names = _TYPED.get(dialect, ())
        self._typed = dialect in _TYPED
        self._needles = (_DONE, *self._names)
        self._kept = bytearray()  # whole lines of a frame that may turn out to be terminal
        self._line = bytearray()  # an unfinished line that may become a terminal one
        self._passed = False  # the unfinished line is harmless and its beginning was let through
        self._named = False  # this frame has an event line, and it is harmless
        self._first = True  # no line has ended yet, so that a byte order mark may stand here
        self._after_cr = False
        self._searched = 0

    @property
    def waiting(self) -> bool:
        """Whether any byte is being kept."""
        return self.ended or bool(self._kept or self._line)

    def is_whole(self) -> bool:
        """Whether the terminal event has come to its blank line."""
        found = FRAME_END.search(self.held, max(self._searched - _OVERLAP, 0)) is not None
        if not found:
            self._searched = len(self.held)
        return found

    def ends_whole(self) -> bool:
        """Whether the terminal event is whole, given that nothing follows: its blank line may be missing."""
        event = parse_frame(bytes(self.held))
        return self.is_whole() or (
            event is not None and (event.data.lstrip(_BLANK).startswith(_DONE) or bool(load_object(event.data)))
        )

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes and return what may go on."""
        if self.ended:
            self.held += chunk
            return b""
        if not chunk:
            return b""
        size = self._harmless(chunk)
        if size:
            self._passed = self._named = self._first = self._after_cr = False
        return chunk if size == len(chunk) else chunk[:size] + self._feed_lines(chunk[size:])

    def take(self) -> bytes:
        """The terminal event and whatever came after it so far; more of it is kept just the same."""
        held = bytes(self.held)
        self.held.clear()
        self._searched = 0
        return held

    def finish(self) -> bytes:
        """The stream has ended: return what waited and was not terminal. A last line needs no line end."""
        line = bytes(self._line)
        self._line.clear()
        if self.ended:
            return b""
        out = self._end_line(line, line)
        return out + self._end_frame(b"") if self._kept else out

    def _harmless(self, chunk: bytes) -> int:
        """How much of a chunk is the common case, told without looking at the lines: frames without a word of interest.

        The frames are whole; one that has begun in an earlier chunk counts only where none of its lines wait.
        """
        if self._line or self._kept:
            return 0
        end = len(chunk)
        for needle in self._needles:
            if needle in chunk:
                end = min(end, chunk.find(needle))
        if end == len(chunk) and chunk.endswith(_BLANK_LINES):
            return end
        for blank in _BLANK_LINES:
            place = chunk.rfind(blank, 0, end)
            if place >= 0:
                return place + len(blank)
        return 0

    def _feed_lines(self, chunk: bytes) -> bytes:
        out = bytearray()
        at = 0
        if self._after_cr and chunk.startswith(b"\n"):  # the other half of a CRLF: no line of its own
            (self._kept or out).extend(b"\n")
            at = 1
        self._after_cr = chunk.endswith(b"\r")
        for match in LINE_END.finditer(chunk, at):
            raw = bytes(self._line) + chunk[at : match.end()]
            at = match.end()
            self._line.clear()
            if self._passed:
                self._passed = False
                out += raw
            else:
                out += self._end_line(raw, raw.rstrip(b"\r\n"))
            self._first = False
            if self.ended:
                self.held += chunk[at:]
                return bytes(out)
        out += self._unfinished(chunk[at:])
        return bytes(out)

    def _end_line(self, raw: bytes, line: bytes) -> bytes:
        """A whole line: what may go on because of it."""
        if self._first:
            line = line.removeprefix(BOM)
        if not line:
            return self._end_frame(raw)
        field, _, value = line.partition(b":")
        value = value.strip(_BLANK)
        if (field == b"event" and value in self._names) or (field == b"data" and value.startswith(_DONE)):
            return self._hold(raw)
        if line.startswith(b"event:"):
            self._named = True
            return self._let_go() + raw
        if self._kept or (self._typed and not self._named and line.startswith(b"data:")):
            self._kept += raw
            return b""
        return raw

    def _end_frame(self, raw: bytes) -> bytes:
        self._named = False
        if self._kept and self._is_terminal(bytes(self._kept)):
            return self._hold(raw)
        return self._let_go() + raw

    def _is_terminal(self, frame: bytes) -> bool:
        if not any(name in frame for name in self._names):
            return False
        event = parse_frame(frame)
        kind = None if event is None else text(load_object(event.data).get("type"))
        return kind is not None and kind.encode() in self._names

    def _hold(self, raw: bytes) -> bytes:
        self.ended = True
        self.held += self._let_go() + raw
        return b""

    def _let_go(self) -> bytes:
        kept = bytes(self._kept)
        self._kept.clear()
        return kept

    def _unfinished(self, tail: bytes) -> bytes:
        """The line that the chunk breaks off in: let through as soon as it is harmless."""
        if self._passed or not tail:
            return tail
        self._line += tail
        beginning = bytes(self._line[:_LONGEST_NAME])
        if self._kept or self._may_be_terminal(beginning):
            return b""
        self._passed = True
        self._named = self._named or beginning.removeprefix(BOM).startswith(b"event:")
        line = bytes(self._line)
        self._line.clear()
        return line

    def _may_be_terminal(self, line: bytes) -> bool:
        if self._first:
            if BOM.startswith(line):
                return True
            line = line.removeprefix(BOM)
        field, colon, value = line.partition(b":")
        if not colon:
            return b"data".startswith(field) or (bool(self._names) and b"event".startswith(field))
        value = value.strip(_BLANK)
        if field == b"event":
            return any(name.startswith(value) for name in self._names)
        if field != b"data":
            return False
        return value.startswith(_DONE) or _DONE.startswith(value) or (self._typed and not self._named)


class UsageStrip:
    """Takes out the usage chunk that we asked for and the client did not: ``choices`` empty, ``usage`` an object.

    A frame that is not whole waits until it is, or until it is seen to have a choice in it.
    """

    __slots__ = ("_sent", "_splitter")

    def __init__(self) -> None:
        self._splitter = FrameSplitter()
        self._sent = 0  # bytes of the unfinished frame that were let through

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes and return what may go on."""
        splitter = self._splitter
        if not splitter.pending and _has_no_usage_frame(chunk):
            return chunk
        out = bytearray()
        for frame in splitter.feed(chunk):
            if self._sent or not is_usage_frame(frame):
                out += frame[self._sent :]
            self._sent = 0
        if self._sent:
            out += chunk[len(chunk) - (splitter.pending - self._sent) :]
            self._sent = splitter.pending
        elif self._has_begun_otherwise():
            out += splitter.rest
            self._sent = splitter.pending
        return bytes(out)

    def finish(self) -> bytes:
        """The stream has ended: return what waited. A last frame needs no blank line."""
        rest = self._splitter.rest
        self._splitter = FrameSplitter()
        return b"" if not self._sent and is_usage_frame(rest) else rest[self._sent :]

    def _has_begun_otherwise(self) -> bool:
        pending = self._splitter.pending
        return pending > _MAX_USAGE_FRAME or (pending > 0 and _FULL_CHOICES.search(self._splitter.rest) is not None)


def _has_no_usage_frame(chunk: bytes) -> bool:
    """The common cases, told without cutting: whole frames without usage, or one frame that has a choice in it."""
    if not chunk.endswith(b"\n\n"):
        return False
    if b'"usage"' not in chunk:
        return True
    if chunk.count(b'"usage"') == chunk.count(b'"usage":null') + chunk.count(b'"usage": null'):
        return True
    is_one_frame = chunk.find(b"\n\n") == len(chunk) - 2 and b"\r" not in chunk
    return is_one_frame and (b'"choices":[{' in chunk or b'"choices": [{' in chunk)


def is_usage_frame(frame: bytes) -> bool:
    """Whether a raw frame is a usage chunk and nothing else."""
    if b'"usage"' not in frame or len(frame) > _MAX_USAGE_FRAME or _FULL_CHOICES.search(frame):
        return False
    event = parse_frame(frame)
    chunk = load_object(b"" if event is None else event.data)
    return bool(as_object(chunk.get("usage"))) and not as_list(chunk.get("choices")) and chunk.get("error") is None
