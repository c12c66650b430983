"""The sentence of an error object, in the shapes that providers use."""

import json
from typing import Final

from cellmeter_proxy.wire.fields import as_object, text

_MAX_LENGTH: Final = 2000
_ANSWERED: Final = frozenset({"choices", "output", "content", "data"})
"""A whole answer that is no error has one of these."""


def error_text(value: object) -> str | None:
    """``<code or type>: <message>`` of an error object, the text of an error string, None where there is no error."""
    if value is None or (isinstance(value, dict | list) and not value):
        return None
    fields = as_object(value)
    message = text(fields.get("message")) or text(value)
    kind = next((str(found) for name in ("code", "type", "status") if (found := _label(fields.get(name)))), None)
    if message is None:
        message = text(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) if kind is None else None
    return ": ".join(part for part in (kind, message) if part)[:_MAX_LENGTH]


def answer_error(fields: dict[str, object]) -> str | None:
    """The error of a whole JSON answer: ``error``, vLLM's and Mistral's ``object: error``, or FastAPI's ``detail``."""
    if fields.get("error") is not None:
        return error_text(fields["error"])
    if fields.get("object") == "error" or fields.get("type") == "error":
        return error_text(fields)
    return error_text(fields.get("detail")) if _ANSWERED.isdisjoint(fields) else None


def _label(value: object) -> str | int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return text(value)
