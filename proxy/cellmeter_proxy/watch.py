"""What may be released of an answer, and when: the watcher of one answer, streamed or not.

Invariant: the bytes that complete an answer are withheld until the caller has committed the call's
row and takes them with ``take_held``.
"""

from collections.abc import Mapping
from typing import Protocol

from cellmeter_proxy.encodings import decode
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.wire import AnswerFacts, StreamWatcher, read_answer


class Watcher(Protocol):
    """Takes the bytes of one answer in, gives the bytes to release out."""

    terminal: bool
    """The event that completes the answer has been received whole."""
    timeline: list[tuple[float, int]]
    """When each chunk came, in the caller's milliseconds, and its size."""

    @property
    def ttft_ms(self) -> float | None: ...
    @property
    def max_gap_ms(self) -> float | None: ...
    @property
    def frames(self) -> int | None: ...
    @property
    def received(self) -> bytes:
        """Every byte so far, as received."""
        ...

    def feed(self, chunk: bytes, at_ms: float) -> bytes:
        """Take a chunk; return what may go to the client now."""
        ...

    def finish(self) -> bytes:
        """The provider has ended the answer; return what is still withheld."""
        ...

    def take_held(self) -> bytes:
        """What is withheld; to be released once the row is committed."""
        ...

    def facts(self) -> AnswerFacts:
        """What the answer says of itself, from everything received so far."""
        ...


class UnaryWatcher:
    """An answer in one piece: its last bytes are withheld, everything before them passes at once.

    Where the length is not announced, the latest piece is withheld until another follows it. A piece
    of white space passes: providers send it to keep a waiting connection alive, and it completes nothing.
    """

    def __init__(self, dialect: Dialect, *, length: int | None, encoding: str | None) -> None:
        self.terminal = False
        self.timeline: list[tuple[float, int]] = []
        self._dialect: Dialect = dialect
        self._encoding = encoding
        self._left = length
        self._chunks: list[bytes] = []
        self._held = b""

    @property
    def ttft_ms(self) -> None:
        """Tokens do not arrive one by one."""

    @property
    def max_gap_ms(self) -> None:
        """There are no frames."""

    @property
    def frames(self) -> None:
        """There are none."""

    @property
    def received(self) -> bytes:
        return b"".join(self._chunks)

    def feed(self, chunk: bytes, at_ms: float) -> bytes:
        self._chunks.append(chunk)
        self.timeline.append((at_ms, len(chunk)))
        if self._left is not None:
            self._left -= len(chunk)
            self.terminal = self._left <= 0
        elif not chunk.strip():
            released, self._held = self._held + chunk, b""
            return released
        if self._left is not None and not self.terminal:
            return chunk
        released, self._held = self._held, chunk
        return released

    def finish(self) -> bytes:
        self.terminal = self._left is None or self._left <= 0
        return self.take_held()

    def take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def facts(self) -> AnswerFacts:
        body = self.received
        decoded = decode(body, self._encoding) if self._encoding else body
        return read_answer(self._dialect, body if decoded is None else decoded)


def watch(dialect: Dialect, headers: Mapping[str, str], *, strip_usage: bool = False) -> Watcher:
    """The watcher for an answer with these headers (case-insensitive)."""
    encoding = headers.get("content-encoding")
    if encoding is not None and encoding.lower() == "identity":
        encoding = None
    if headers.get("content-type", "").lower().startswith("text/event-stream"):
        return StreamWatcher(dialect, strip_usage=strip_usage, encoding=encoding)
    length = headers.get("content-length", "")
    return UnaryWatcher(dialect, length=int(length) if length.isdigit() else None, encoding=encoding)
