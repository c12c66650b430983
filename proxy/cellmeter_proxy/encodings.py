"""Content codings undone within bounds: gzip, deflate, br, zstd, and lists of them.

Invariant: no input makes anything here raise, and no stage of a decoder puts out more than its limit (a working
buffer of a few MiB aside). Codings are those of https://www.rfc-editor.org/rfc/rfc9110#section-8.4, br of RFC 7932,
zstd of RFC 8878 with the window bound of https://www.rfc-editor.org/rfc/rfc9659.
"""

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped]  # it ships none, and its four calls are below
import zstandard

DEFAULT_LIMIT: Final = 64 * 1024 * 1024
"""Bytes that one body may decode to."""
_MAX_STAGES: Final = 4
_PIECE: Final = 16 * 1024
_ZSTD_SLICE: Final = 256  # a zstd block of 4 bytes can mean 128 KiB, so this many bytes mean 8 MiB at most
_ZSTD_WINDOW: Final = 8 * 1024 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_ERRORS: Final = (zlib.error, brotli.error, zstandard.ZstdError, MemoryError)


class _Coding(Protocol):
    """One content coding, undone incrementally; pieces come one by one so that the caller can stop."""

    @property
    def whole(self) -> bool:
        """Whether the data so far could be all of it."""
        ...

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class StreamDecoder:
    """Undoes a ``Content-Encoding`` header's codings as bytes arrive.

    What could be decoded is returned, of damaged data all but the last few KiB before the damage; ``error`` says what
    went wrong, and from there on nothing comes any more.
    """

    def __init__(self, header: str | None, limit: int = DEFAULT_LIMIT) -> None:
        self.error: str | None = None
        self._limit = limit
        self._stages: list[_Coding] = []
        names = codings(header)
        for name in reversed(names[:_MAX_STAGES]):
            stage = _stage(name)
            if stage is None or len(names) > _MAX_STAGES:
                self.error = f"unknown content coding: {header}"[:200]
                break
            self._stages.append(stage)
        self._sizes = [0] * len(self._stages)

    def feed(self, data: bytes) -> bytes:
        """Take the next encoded bytes and return what they decode to."""
        if self.error is not None:
            return b""
        for position, stage in enumerate(self._stages):
            data = self._run(position, stage, data)
        return data

    def finish(self) -> None:
        """Note the end of the data: ``error`` is set where a coding was cut off."""
        if self._stages and self.error is None and not all(stage.whole for stage in self._stages):
            self.error = "the encoded data ends too early"

    def _run(self, position: int, stage: _Coding, data: bytes) -> bytes:
        out = bytearray()
        room = self._limit - self._sizes[position]
        try:
            for piece in stage.feed(data):
                out += piece
                if len(out) > room:
                    self.error = f"it decodes to more than {self._limit} bytes"
                    break
        except _ERRORS as error:
            self.error = f"damaged encoded data: {error}"
        del out[max(room, 0) :]
        self._sizes[position] += len(out)
        return bytes(out)


def codings(header: str | None) -> list[str]:
    """The codings that a ``Content-Encoding`` header names, in the order they were applied, less ``identity``."""
    if not header:
        return []
    names = [name.strip().lower() for name in header.split(",")]
    return [name for name in names if name not in {"", "identity"}]


def decode(body: bytes, header: str | None, limit: int = DEFAULT_LIMIT) -> bytes | None:
    """A whole body without its codings, or None where it is damaged, cut off, too big, or of an unknown coding."""
    decoder = StreamDecoder(header, limit)
    plain = decoder.feed(body)
    decoder.finish()
    return plain if decoder.error is None else None


def _stage(name: str) -> _Coding | None:
    match name:
        case "gzip" | "x-gzip":
            return _Gzip()
        case "deflate":
            return _Deflate()
        case "br":
            return _Brotli()
        case "zstd":
            return _Zstd()
        case _:
            return None


class _Gzip:
    """Members one after another, as RFC 1952 §2.2 allows; zero padding after the last one is nothing."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._started = False

    @property
    def whole(self) -> bool:
        return self._member.eof or not self._started

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._member = zlib.decompressobj(_GZIP)
            self._started = True
            yield from _inflate(self._member, data)
            data = self._member.unused_data


class _Deflate:
    """The zlib format, as RFC 9110 says, or raw deflate, as some servers send: the first two bytes tell."""

    def __init__(self) -> None:
        self._head = b""
        self._inflater = zlib.decompressobj()
        self._chosen = False

    @property
    def whole(self) -> bool:
        return self._inflater.eof or not (self._head or self._chosen)

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not self._chosen:
            self._head += data
            if len(self._head) < 2:
                return
            data, self._head, self._chosen = self._head, b"", True
            has_header = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2]) % 31 == 0
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        if not self._inflater.eof:
            yield from _inflate(self._inflater, data)


class _Brotli:
    def __init__(self) -> None:
        self._inflater = brotli.Decompressor()
        self._started = False

    @property
    def whole(self) -> bool:
        return bool(self._inflater.is_finished()) or not self._started

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not data:
            return
        self._started = True
        yield self._inflater.process(data, output_buffer_limit=_PIECE)
        while not self._inflater.can_accept_more_data():
            yield self._inflater.process(b"", output_buffer_limit=_PIECE)


class _Zstd:
    """Frames one after another, as RFC 8878 §3 allows."""

    def __init__(self) -> None:
        self._frame = self._next()
        self._started = False

    @property
    def whole(self) -> bool:
        return self._frame.eof or not self._started

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE):
            piece = data[start : start + _ZSTD_SLICE]
            while piece:
                if self._frame.eof:
                    self._frame = self._next()
                self._started = True
                yield self._frame.decompress(piece)
                piece = self._frame.unused_data if self._frame.eof else b""

    @staticmethod
    def _next() -> "zstandard.ZstdDecompressionObj":
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()


def _inflate(inflater: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    yield inflater.decompress(data, _PIECE)
    while inflater.unconsumed_tail:
        yield inflater.decompress(inflater.unconsumed_tail, _PIECE)
