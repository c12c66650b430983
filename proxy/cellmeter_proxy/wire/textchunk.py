"""The chunk of a streamed chat completion that brings a piece of text and nothing else, read by its type: most do.

Invariant: what is read as one says nothing beyond its members here that any reader looks for; all else is refused.
"""

from typing import Annotated, Any, Final

import msgspec

from cellmeter_proxy.wire.fields import load

_Absent = msgspec.UnsetType
_MAX_MISSES: Final = 4


class _Delta(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    content: str | None
    role: str | None = None


class _Choice(msgspec.Struct, frozen=True, gc=False):
    delta: _Delta
    index: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0
    finish_reason: None = None


class TextChunk(msgspec.Struct, frozen=True, gc=False):
    """One choice with one piece of text."""

    choices: tuple[_Choice]
    id: str | None = None
    model: str | None = None
    usage: None = None
    error: None = None
    x_groq: None = None
    # What would make the piece belong to another text (see ``redact.pieces``).
    type: _Absent = msgspec.UNSET
    item_id: _Absent = msgspec.UNSET
    output_index: _Absent = msgspec.UNSET
    content_index: _Absent = msgspec.UNSET
    summary_index: _Absent = msgspec.UNSET
    index: _Absent = msgspec.UNSET


_DECODER: Final = msgspec.json.Decoder(TextChunk)


def load_chunks(texts: list[bytes]) -> list[Any]:
    """The value of each text as ``load`` gives it, or a ``TextChunk`` in its place.

    A stream that has had several chunks of another kind in a row is taken to be of another kind.
    """
    found: list[Any] = []
    misses = 0
    for text in texts:
        value = _text_chunk(text) if misses < _MAX_MISSES else None
        misses = misses + 1 if value is None else 0
        found.append(load(text) if value is None else value)
    return found


def _text_chunk(text: bytes) -> TextChunk | None:
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
