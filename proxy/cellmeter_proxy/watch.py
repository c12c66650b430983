"""What may be released of an answer, and when: the watcher of one answer, streamed or not.

Invariant: the bytes that complete an answer are withheld until the caller has committed the call's
row and takes them with ``take_held``.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from cellmeter_proxy.encodings import StreamDecoder, codings
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.sse import BOM
from cellmeter_proxy.wire import AnswerFacts, StreamWatcher, read_answer
from cellmeter_proxy.wire.frames import Frames
from cellmeter_proxy.wire.stream import UNREADABLE_TAIL

_MOST_DIGITS: Final = 18
_MUCH_SPACE: Final = 64 * 1024
_STREAM_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")


class Watcher(Protocol):
    """Takes the bytes of one answer in, gives the bytes to release out."""

    terminal: bool
    """What completes the answer has been received whole: its terminal event, or all of the announced length."""
    strips: bool
    """Something is taken out of what the client gets."""

    @property
    def times(self) -> Sequence[float]:
        """When each chunk came, in the caller's milliseconds."""
        ...

    @property
    def sizes(self) -> Sequence[int]:
        """The bytes of each chunk."""
        ...

    @property
    def timeline(self) -> list[tuple[float, int]]:
        """Each chunk with when it came, and its size."""
        ...

    @property
    def ttft_ms(self) -> float | None: ...
    @property
    def max_gap_ms(self) -> float | None: ...
    @property
    def frames(self) -> int | None: ...
    @property
    def parsed(self) -> Frames | None:
        """The frames so far, taken apart."""
        ...

    @property
    def coded(self) -> bool:
        """Whether the bytes have a content coding."""
        ...

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

    Withheld is the latest piece that says anything, with what came after it, until another such piece follows: white
    space and the trailer of a coding say nothing, and JSON may be whole before them. White space at the very beginning
    passes: providers send it to keep a waiting connection alive. Of a coding that cannot be undone here nobody can tell
    what a piece says: the last 64 KiB are withheld.
    """

    ttft_ms: None = None
    """Tokens do not arrive one by one."""
    max_gap_ms: None = None
    frames: None = None
    parsed: None = None
    """There are no frames."""

    def __init__(self, dialect: Dialect, *, length: int | None, encoding: str | None) -> None:
        self.terminal = False
        self.strips = False
        self.times: list[float] = []
        self.sizes: list[int] = []
        self._dialect: Dialect = dialect
        self._decoder = StreamDecoder(encoding) if codings(encoding) else None
        self._left = length
        self._chunks: list[bytes] = []
        self._plain: list[bytes] = self._chunks if self._decoder is None else []
        self._said = False  # something other than white space has come
        self._held = bytearray()

    @property
    def timeline(self) -> list[tuple[float, int]]:
        """Each chunk with when it came, and its size."""
        return list(zip(self.times, self.sizes, strict=True))

    @property
    def coded(self) -> bool:
        return self._decoder is not None

    @property
    def received(self) -> bytes:
        return b"".join(self._chunks)

    @property
    def decoded(self) -> bytes:
        return b"".join(self._plain)

    @property
    def decode_error(self) -> str | None:
        return None if self._decoder is None else self._decoder.error

    def feed(self, chunk: bytes, at_ms: float) -> bytes:
        self._chunks.append(chunk)
        self.times.append(at_ms)
        self.sizes.append(len(chunk))
        if self._left is not None:
            self._left -= len(chunk)
            self.terminal = self._left <= 0
        plain = chunk if self._decoder is None else self._decode(chunk, self._decoder)
        if self.decode_error is not None:
            return self._keep(chunk, UNREADABLE_TAIL)
        if plain and not plain.isspace():
            self._said = True
            return self._keep(chunk, len(chunk))
        if self._said or self.terminal:
            return self._keep(chunk, len(self._held) + len(chunk))
        return chunk

    def finish(self) -> bytes:
        self.terminal = self._left is None or self._left <= 0
        if self._decoder is not None:
            self._decoder.finish()
        return self.take_held()

    def take_held(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    def facts(self) -> AnswerFacts:
        return read_answer(self._dialect, self.decoded)

    def _decode(self, chunk: bytes, decoder: StreamDecoder) -> bytes:
        plain = decoder.feed(chunk)
        self._plain.append(plain)
        if self.terminal:
            decoder.finish()
        return plain

    def _keep(self, chunk: bytes, size: int) -> bytes:
        """Withhold the last bytes, this chunk included, and let go of those before them."""
        if not self._held and size >= len(chunk):
            self._held += chunk
            return b""
        self._held += chunk
        out = bytes(self._held[: max(len(self._held) - size, 0)])
        del self._held[: len(out)]
        return out


def watch(dialect: Dialect, headers: Mapping[str, str], *, strip_usage: bool = False) -> Watcher:
    """The watcher for an answer with these headers (case-insensitive)."""
    if headers.get("content-type", "").lower().startswith("text/event-stream"):
        return _stream(dialect, headers, strip_usage=strip_usage)
    return _unary(dialect, headers)


def relabelled(
    watcher: Watcher, dialect: Dialect, headers: Mapping[str, str], *, strip_usage: bool = False
) -> Watcher | None:
    """The watcher that the first bytes ask for: some providers label JSON as a stream, or a stream as JSON.

    Args:
        watcher: the one that the headers asked for, with all that has come so far.
        dialect: as for ``watch``.
        headers: as for ``watch``.
        strip_usage: as for ``watch``.

    Returns:
        The given one where the headers were right, else another that has been given nothing yet. None where nothing
        but white space has come: ask again. Of much of that no more is expected.

    """
    beginning = watcher.decoded.lstrip().removeprefix(BOM).lstrip()
    if beginning.startswith((b"{", b"[")):
        return _unary(dialect, headers) if isinstance(watcher, StreamWatcher) else watcher
    if not beginning and watcher.decode_error is None and sum(watcher.sizes) < _MUCH_SPACE:
        return None
    if isinstance(watcher, StreamWatcher) or not _begins_a_stream(beginning):
        return watcher
    strips = strip_usage and content_length(headers) is None and len(watcher.times) == 1
    return _stream(dialect, headers, strip_usage=strips)


def _begins_a_stream(beginning: bytes) -> bool:
    """Whether a text begins with a field of an event stream, or breaks off within its name."""
    return bool(beginning) and any(
        beginning.startswith(field) or field.startswith(beginning) for field in _STREAM_FIELDS
    )


def _stream(dialect: Dialect, headers: Mapping[str, str], *, strip_usage: bool) -> Watcher:
    encoding = headers.get("content-encoding")
    return StreamWatcher(dialect, strip_usage=strip_usage, encoding=encoding, length=content_length(headers))


def _unary(dialect: Dialect, headers: Mapping[str, str]) -> Watcher:
    return UnaryWatcher(dialect, length=content_length(headers), encoding=headers.get("content-encoding"))


def content_length(headers: Mapping[str, str]) -> int | None:
    """The announced length of a body, or None where there is none or it is no number."""
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) <= _MOST_DIGITS else None
