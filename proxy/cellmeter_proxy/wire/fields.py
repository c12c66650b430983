"""Reading JSON that others wrote: every accessor takes anything and returns what it asks for, or None.

Invariant: nothing here raises, and a field of the wrong type does not cost the other fields.
"""

import json
import math
import re
from typing import Any, Final, Literal

import msgspec

MAX_COUNT: Final = 2**63 - 1
"""What the log can store."""
_MAX_DIGITS: Final = 19
_SPACE: Final = re.compile(r"[ \t\n\r]*")


Holding = Literal["usage", "x_groq", "message", "response"]
"""The members that are usage, or that hold it."""
_NOTHING: Final = msgspec.Raw()


class _Holder(msgspec.Struct):
    """What an object has of these, as it was written."""

    usage: msgspec.Raw = _NOTHING
    x_groq: msgspec.Raw = _NOTHING
    message: msgspec.Raw = _NOTHING
    response: msgspec.Raw = _NOTHING


_HOLDERS: Final = msgspec.json.Decoder(_Holder)


def load(raw: bytes) -> Any:
    """The value of a JSON text, or None where it is none.

    What msgspec refuses though most clients take it (lone surrogates, bytes that are not UTF-8, numbers beyond a
    double) is read by the standard library instead.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return _lenient().decode(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def load_object(raw: bytes) -> dict[str, Any]:
    """The members of a JSON object, or none where the text is something else."""
    return as_object(load(raw))


def load_answer(body: bytes) -> dict[str, Any]:
    """The object that a whole JSON answer is; Google sends an error as an array of one."""
    if not body.lstrip().startswith((b"{", b"[")):  # sound, most often: not to be read as text
        return {}
    value = load(body)
    return as_object(value[0]) if isinstance(value, list) and len(value) == 1 else as_object(value)


def as_object(value: object) -> dict[str, Any]:
    """The value itself if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value itself if it is an array, else an empty one."""
    return value if isinstance(value, list) else []


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of an array."""
    return [item for item in as_list(value) if isinstance(item, dict)]


def text(value: object) -> str | None:
    """A string that is not empty. Lone surrogates are replaced: the log stores UTF-8."""
    if not isinstance(value, str) or not value:
        return None
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def count(value: object) -> int | None:
    """A count: an integer from 0 to 2^63-1, which is what the log can store."""
    if type(value) is int:
        return value if 0 <= value <= MAX_COUNT else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MAX_COUNT else None


def amount(value: object) -> float | None:
    """A finite amount of money that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def verbatim(raw: bytes, *path: Holding) -> str | None:
    """The text of one member of a JSON object as it was written, white space and number forms included.

    Args:
        raw: a JSON text.
        path: the member's name, after the names of the objects around it.

    """
    for name in path:
        member = _member(raw, name)
        if member is None:
            return None
        raw = member
    return raw.decode("utf-8", "replace")


def _member(raw: bytes, name: str) -> bytes | None:
    """The text of a member, found by msgspec unless it refuses what most clients take (see ``load``)."""
    try:
        return bytes(getattr(_HOLDERS.decode(raw), name)) or None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        source = raw.decode("utf-8", "replace")
        span = members(source).get(name)
        return None if span is None else source[slice(*span)].encode()


def members(source: str, start: int = 0) -> dict[str, tuple[int, int]]:
    """Where the values of an object's members begin and end in its text; the last one counts of a repeated name.

    Returns nothing where no well-formed object begins at ``start`` (after white space).
    """
    return {name: (begin, end) for name, begin, end in spans(source, start) or []}


def spans(source: str, start: int = 0) -> list[tuple[str, int, int]] | None:
    """Each member of an object with where its value begins and ends, in order, or None where the text is malformed."""
    try:
        return _spans(source, start)
    except (ValueError, RecursionError):
        return None


def _spans(source: str, start: int) -> list[tuple[str, int, int]]:
    decoder = _lenient()
    found: list[tuple[str, int, int]] = []
    at = _expect(source, _skip(source, start), "{")
    if source.startswith("}", at):
        return found
    while True:
        name, at = decoder.raw_decode(source, _quote_at(source, at))
        begin = _expect(source, _skip(source, at), ":")
        _, end = decoder.raw_decode(source, begin)
        found.append((name, begin, end))
        at = _skip(source, end)
        if source.startswith("}", at):
            return found
        at = _expect(source, at, ",")


def _expect(source: str, at: int, mark: str) -> int:
    if not source.startswith(mark, at):
        raise ValueError(mark)
    return _skip(source, at + 1)


def _quote_at(source: str, at: int) -> int:
    if not source.startswith('"', at):
        raise ValueError(at)
    return at


def _skip(source: str, at: int) -> int:
    match = _SPACE.match(source, at)
    return match.end() if match else at


def _lenient() -> json.JSONDecoder:
    return json.JSONDecoder(parse_int=_bounded)


def _bounded(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf
