"""A streamed answer as it passes: what the client may have now, and in the end what it said and when.

While the stream runs, a chunk costs a copy, a look for the terminal event and a time stamp. All that needs parsing is
done in one pass over the received bytes when it is asked for.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, repeat
from operator import sub
from typing import Final, Protocol

import msgspec

from cellmeter_proxy.encodings import StreamDecoder, codings
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.sse import Event
from cellmeter_proxy.wire import chat, completions, messages, other, responses
from cellmeter_proxy.wire.facts import AnswerFacts
from cellmeter_proxy.wire.frames import Frames, read_frames
from cellmeter_proxy.wire.release import TerminalHold, UsageStrip
from cellmeter_proxy.wire.runs import Run

UNREADABLE_TAIL: Final = 64 * 1024
"""How many bytes are kept of an answer whose coding cannot be undone here."""


class Reader(Protocol):
    """What a dialect makes of the frames of a stream."""

    def add(self, event: Event, value: object) -> None: ...
    @staticmethod
    def carries_token(event: Event, value: object) -> bool: ...
    def facts(self, *, complete: bool) -> AnswerFacts: ...


_READERS: Final[dict[Dialect, Callable[[], Reader]]] = {
    "chat.completions": chat.Stream,
    "completions": completions.Stream,
    "responses": responses.Stream,
    "messages": messages.Stream,
}


class _Reading(msgspec.Struct, frozen=True):
    facts: AnswerFacts
    ttft_ms: float | None
    max_gap_ms: float | None
    frames: int
    parsed: Frames


class StreamWatcher:
    """Takes a provider's stream and says which bytes the client may have.

    Everything is let through at once and unchanged, except the terminal event (see ``release.TerminalHold``), which is
    kept until ``take_held``, and with ``strip_usage`` the usage chunk, which is never let through. Of a compressed
    stream whole chunks are kept, and nothing can be stripped; of one that cannot be decoded here, its last 64 KiB.
    Where a length was announced, the bytes that fulfil it are kept too: they end the answer without a terminal event.

    Args:
        dialect: decides which events are terminal, and how the facts are read.
        strip_usage: usage was asked for in the client's place (``splice.add_include_usage``).
        encoding: the answer's ``Content-Encoding`` header.
        length: the answer's ``Content-Length``, if it has one.

    """

    __slots__ = (
        "_decoder",
        "_dialect",
        "_hold",
        "_last",
        "_left",
        "_plain",
        "_plain_sizes",
        "_queue",
        "_reading",
        "_received",
        "_strip",
        "_whole",
        "sizes",
        "strips",
        "terminal",
        "times",
    )

    def __init__(
        self,
        dialect: Dialect,
        *,
        strip_usage: bool = False,
        encoding: str | None = None,
        length: int | None = None,
    ) -> None:
        self.times: array[float] = array("d")
        """When each chunk came, in the caller's milliseconds."""
        self.sizes: array[int] = array("Q")
        """The bytes of each chunk."""
        self.terminal = False
        """The terminal event was received whole, or all of the announced length."""
        self._whole = False  # the terminal event was
        self._left = length
        self._last = bytearray()  # what fulfilled the length and was not terminal
        self._dialect: Dialect = dialect
        self._hold = TerminalHold(dialect)
        self._decoder = StreamDecoder(encoding) if codings(encoding) else None
        self._strip = UsageStrip() if strip_usage and self._decoder is None else None
        self.strips = self._strip is not None
        """The usage chunk is taken out."""
        self._received = bytearray()
        self._plain = bytearray()  # without the content coding, if there is one
        self._plain_sizes: array[int] = array("Q")
        self._queue = bytearray()  # chunks of a compressed stream that wait
        self._reading: _Reading | None = None

    def feed(self, chunk: bytes, at_ms: float) -> bytes:
        """Take the bytes that came at a time, and return those that may go to the client now."""
        self._reading = None
        self._received += chunk
        self.times.append(at_ms)
        self.sizes.append(len(chunk))
        hold = self._hold
        if self._decoder is not None:
            out = self._feed_encoded(chunk, self._decoder)
        else:
            out = hold.feed(chunk if self._strip is None else self._strip.feed(chunk))
        if hold.ended:
            self._whole = self._whole or hold.is_whole()
            self.terminal = self.terminal or self._whole
        return out if self._left is None else self._within_length(out, len(chunk), self._left)

    def _within_length(self, out: bytes, size: int, left: int) -> bytes:
        self._left = left - size
        if self._left > 0:
            return out
        self.terminal = True
        self._last += out
        return b""

    def finish(self) -> bytes:
        """Note the end of the stream, and return everything that still waits, the terminal event included.

        The caller commits its row before it passes these bytes on. ``take_held`` has nothing more afterwards.
        """
        self._reading = None
        out = b"" if self._strip is None else self._hold.feed(self._strip.finish())
        out += self._hold.finish()
        if self._decoder is not None:
            self._decoder.finish()
        if self._hold.ended and not self._whole:
            self._whole = self._hold.ends_whole()
        self.terminal = self.terminal or self._whole
        if self._decoder is not None:
            return self.take_held()
        last = bytes(self._last)
        self._last.clear()
        return last + out + self.take_held()

    def take_held(self) -> bytes:
        """The bytes that wait from the terminal event on; the caller has committed the row by now."""
        last = bytes(self._last)
        self._last.clear()
        if self._decoder is not None:
            last += self._queue
            self._queue.clear()
            return last
        return last + self._hold.take()

    @property
    def timeline(self) -> list[tuple[float, int]]:
        """Each chunk with when it came, and its size."""
        return list(zip(self.times, self.sizes, strict=False))

    @property
    def received(self) -> bytes:
        """All bytes as they came."""
        return bytes(self._received)

    @property
    def decoded(self) -> bytes:
        """All bytes without their content coding, as far as they could be decoded."""
        return self.received if self._decoder is None else bytes(self._plain)

    @property
    def coded(self) -> bool:
        """Whether the bytes have a content coding."""
        return self._decoder is not None

    @property
    def decode_error(self) -> str | None:
        """What was wrong with the content coding, if anything was."""
        return None if self._decoder is None else self._decoder.error

    @property
    def ttft_ms(self) -> float | None:
        """When the first token of content, reasoning or a tool call came, in the caller's milliseconds.

        Comments, pings, role-only chunks, empty deltas, ``message_start`` and ``response.created`` are no tokens.
        """
        return self._read().ttft_ms

    @property
    def max_gap_ms(self) -> float | None:
        """The longest time between two chunks that completed a frame, comments not counted; None for fewer than two."""
        return self._read().max_gap_ms

    @property
    def frames(self) -> int:
        """How many frames came, comments not counted."""
        return self._read().frames

    @property
    def parsed(self) -> Frames:
        """All frames so far, taken apart."""
        return self._read().parsed

    def facts(self) -> AnswerFacts:
        """What the stream says, as far as it has come."""
        return self._read().facts

    def _feed_encoded(self, chunk: bytes, decoder: StreamDecoder) -> bytes:
        plain = decoder.feed(chunk)
        self._plain += plain
        self._plain_sizes.append(len(plain))
        self._hold.feed(plain)
        self._queue += chunk
        if self._hold.waiting:
            return b""
        # Whoever knows the coding better than we do may see the terminal event in what tells us nothing.
        keep = UNREADABLE_TAIL if decoder.error is not None else 0
        out = bytes(self._queue[: max(len(self._queue) - keep, 0)])
        del self._queue[: len(out)]
        return out

    def _read(self) -> _Reading:
        """One pass over all frames; kept until more bytes come."""
        if self._reading is not None:
            return self._reading
        parsed = read_frames(self.decoded, self._dialect)
        reader = _READERS.get(self._dialect, other.Stream)()
        silent: set[int] = set()  # the frames that are comments
        token: int | None = None
        frame = 0
        for event, value in zip(parsed.events, parsed.values, strict=True):
            run = value if type(value) is Run else None
            if event is None:
                silent.add(frame)
            else:
                if token is None:
                    token = _first(reader, event, value, frame)
                reader.add(event, value if run is None else run.value)
            frame += 1 if run is None else len(run.pieces)
        facts = reader.facts(complete=self._whole)
        arrived = self._arrived(parsed.sizes)
        ttft = None if token is None else self.times[arrived[token]]
        gap = self._max_gap([at for frame, at in enumerate(arrived) if frame not in silent] if silent else arrived)
        self._reading = _Reading(facts, ttft, gap, frame - len(silent), parsed)
        return self._reading

    def _max_gap(self, arrived: Sequence[int]) -> float | None:
        """The longest time between two of these chunks."""
        if isinstance(arrived, range):
            times: Sequence[float] = self.times[: len(arrived)]
        else:
            times = [self.times[chunk] for chunk in dict.fromkeys(arrived)]
        return max(map(sub, times[1:], times), default=None)

    def _arrived(self, sizes: list[int]) -> Sequence[int]:
        """The chunk that completed each of the frames."""
        chunks = self.sizes if self._decoder is None else self._plain_sizes
        if chunks.tolist() == sizes:
            return range(len(sizes))
        return list(map(bisect_left, repeat(list(accumulate(chunks))), accumulate(sizes)))


def _first(reader: Reader, event: Event, value: object, frame: int) -> int | None:
    """The frame that brings the first token, or None where it is none of these."""
    if type(value) is not Run:
        return frame if reader.carries_token(event, value) else None
    place = value.first(reader.carries_token)
    return None if place is None else frame + place
