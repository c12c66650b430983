"""What may be released of an answer, and when: the watcher of one answer, streamed or not.

Invariant: the bytes that complete an answer are withheld until the caller has committed the call's
row and takes them with ``take_held``.
"""

import re
from collections.abc import Mapping
from typing import Final, Protocol

from cellmeter_proxy.encodings import StreamDecoder
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.wire import AnswerFacts, StreamWatcher, read_answer

_LENGTH: Final = re.compile(r"[0-9]{1,18}")


class Watcher(Protocol):
    """Takes the bytes of one answer in, gives the bytes to release out."""

    terminal: bool
    """The event that completes the answer has been received whole."""
    strips: bool
    """Something is taken out of what the client gets."""
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

    @property
    def decoded(self) -> bytes:
        """Every byte so far without its content coding, as far as it could be decoded."""
        ...

    @property
    def decode_error(self) -> str | None:
        """What was wrong with the content coding, if anything was."""
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
        self.strips = False
        self.timeline: list[tuple[float, int]] = []
        self._dialect: Dialect = dialect
        self._encoding = encoding
        self._left = length
        self._chunks: list[bytes] = []
        self._held = b""
        self._plain: tuple[bytes, str | None] | None = None

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
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    @property
    def decoded(self) -> bytes:
        return self._decode()[0]

    @property
    def decode_error(self) -> str | None:
        return self._decode()[1]

    def feed(self, chunk: bytes, at_ms: float) -> bytes:
        self._plain = None
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
        return read_answer(self._dialect, self.decoded)

    def _decode(self) -> tuple[bytes, str | None]:
        """The body without its coding and what was wrong with it; kept until more bytes come."""
        if self._plain is None:
            decoder = StreamDecoder(self._encoding)
            plain = decoder.feed(self.received)
            decoder.finish()
            self._plain = plain, decoder.error
        return self._plain


def watch(dialect: Dialect, headers: Mapping[str, str], *, strip_usage: bool = False) -> Watcher:
    """The watcher for an answer with these headers (case-insensitive)."""
    encoding = headers.get("content-encoding")
    if encoding is not None and encoding.lower() == "identity":
        encoding = None
    if headers.get("content-type", "").lower().startswith("text/event-stream"):
        return StreamWatcher(dialect, strip_usage=strip_usage, encoding=encoding)
    length = headers.get("content-length", "")
    return UnaryWatcher(dialect, length=int(length) if _LENGTH.fullmatch(length) else None, encoding=encoding)
