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


def load_chunks(texts: list[bytes]) -> list[Any]:
    """The value of each text as ``load`` gives it, or a ``TextChunk`` in its place.

    A stream that begins with several chunks of another kind is of another kind.
    """
    decode = msgspec.json.Decoder(TextChunk).decode
    found: list[Any] = []
    misses = 0
    for text in texts:
        if misses < _MAX_MISSES:
            try:
                found.append(decode(text))
                misses = 0
                continue
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                misses += 1
        found.append(load(text))
    return found
