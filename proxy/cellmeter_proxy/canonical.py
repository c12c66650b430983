r"""Names for what a request says: a hash of its exact bytes, one of its meaning, one of each prefix of its history.

The canonical form ``c1`` of a JSON text: object keys sorted by code point, no white space outside strings, strings
with the shortest escapes (``\"``, ``\\``, ``\b \f \n \r \t``, ``\u00xx`` for other control characters) in UTF-8,
**number literals as they were written**, nothing added and nothing removed. So ``1``, ``1.0`` and ``1e0`` differ, and
no integer is too big. Of a key that an object holds twice the last one counts, as in most parsers. A lone surrogate
escape is encoded as its three bytes (generalised UTF-8, https://simonsapin.github.io/wtf-8/).
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from cellmeter_proxy.log import digest_of

MAX_DEPTH: Final = 200
"""Deeper nesting than this is not taken for a request: parsers differ in where they give up."""
MAX_BYTES: Final = 32 * 1024 * 1024
"""A longer text is not taken for a request."""
MAX_ELEMENTS: Final = 1_000_000
"""Nor is one with more commas than this: its values would take a gigabyte, and seconds in which no row is written."""
NOT_JSON: Final = object()
"""What ``parse`` returns for bytes that have no canonical form; JSON's null is None."""

_quote = json.encoder.encode_basestring
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_DECODER: Final = msgspec.json.Decoder(float_hook=msgspec.Raw)
_NEGATIVE_ZERO: Final = re.compile(rb"-0(?<![^ \t\n\r:,[]-0)(?![0-9.eE])")
"""What stands before it is looked at last: a pattern is found fast by the text that it begins with."""
_AROUND_ZERO: Final = 2
"""So many bytes on either side of a place tell whether a negative zero reaches over it."""
_CONTAINERS: Final = frozenset({dict, list})
_GAP: Final = b"\0"
"""What no canonical form has: control characters are escaped."""


class Around(NamedTuple):
    """The canonical form of an object before and after the elements of one of its arrays."""

    head: bytes
    tail: bytes


def body_hash(body: bytes) -> str:
    """``sha256:<hex>`` of the exact bytes."""
    return digest_of(body)


def request_hash(body: bytes) -> str | None:
    """``c1:sha256:<hex>`` of the canonical form, or None where the body is not JSON in UTF-8."""
    return hash_of(parse(body))


def hash_of(value: object) -> str | None:
    """The ``request_hash`` of what ``parse`` returned, for whoever has parsed the body already."""
    return None if value is NOT_JSON else f"c1:{digest_of(dump(value))}"


def around(value: dict[str, Any], name: str) -> Around:
    """The canonical form of an object that ``parse`` returned, without the elements of the array of this name.

    With the forms of the elements, and commas between them, it is the form of the whole.
    """
    head, _, tail = dump({**value, name: msgspec.Raw(b"[" + _GAP + b"]")}).partition(_GAP)
    return Around(head, tail)


def prefix_chain(messages: Iterable[object]) -> list[str]:
    """One ``c1:sha256:<hex>`` per message, each of it and of all before it.

    Entry n hashes ``{"message": …, "parent": entry n-1}`` in canonical form, with null for the first parent. Two
    requests share a history of n messages exactly if their first n entries are equal.

    Args:
        messages: values as ``parse`` returns them.

    """
    return chain_on([dump(message) for message in messages])


def chain_on(forms: Iterable[bytes], links: Sequence[str] = ()) -> list[str]:
    """The prefix chain of messages by their canonical forms, from where it has come to so far.

    Args:
        forms: of the messages that follow.
        links: the chain up to them.

    """
    chain = list(links)
    for form in forms:
        parent = b'"%b"' % chain[-1].encode() if chain else b"null"
        chain.append("c1:" + digest_of(b'{"message":%b,"parent":%b}' % (form, parent)))
    return chain


def parse(body: bytes, *, negative_zero: bool | None = None) -> Any:
    """The value of a JSON text, its numbers such that ``dump`` writes their literals, or ``NOT_JSON``.

    NaN and infinities, a byte order mark, bytes that are not UTF-8, nesting beyond ``MAX_DEPTH`` and a text beyond
    ``MAX_BYTES`` or ``MAX_ELEMENTS`` are not JSON here.

    Args:
        body: the text.
        negative_zero: what ``has_negative_zero`` says of it, for whoever has asked already.

    """
    value = parse_deep(body, negative_zero=negative_zero)
    return value if is_shallow(value) else NOT_JSON


def parse_deep(body: bytes, *, negative_zero: bool | None = None) -> Any:
    """The same, but however deep it is nested, for whoever asks ``is_shallow`` of what he does not know yet."""
    if len(body) > MAX_ELEMENTS and (len(body) > MAX_BYTES or body.count(b",") > MAX_ELEMENTS):
        return NOT_JSON
    return _parse(body, negative_zero=has_negative_zero(body) if negative_zero is None else negative_zero)


def is_shallow(value: object) -> bool:
    """Whether a value is nested no deeper than ``MAX_DEPTH``."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(MAX_DEPTH - 1):
        if not level:
            return True
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) in _CONTAINERS
        ]
    return not any(level)


def dump(value: object) -> bytes:
    """The canonical form of a value that ``parse`` returned."""
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        return _dump_surrogates(value).encode("utf-8", "surrogatepass")


def has_negative_zero(body: bytes, start: int = 0, end: int | None = None) -> bool:
    """Whether ``-0`` stands where a number can begin; in a string it may stand there too.

    Args:
        body: a JSON text.
        start: of the part to look through, where that and the bytes beside it are all that can have one.
        end: of that part; None is the end of the text.

    """
    end = len(body) if end is None else end + _AROUND_ZERO
    return _NEGATIVE_ZERO.search(body, max(start - _AROUND_ZERO, 0), end) is not None


def _parse(body: bytes, *, negative_zero: bool) -> Any:
    """The value, read by msgspec where that keeps all that is written: it gives integers as they are, but no sign to 0.

    What it refuses is left to the standard library, which takes lone surrogates and integers of any length.
    """
    try:
        if not negative_zero:
            return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return _decoder().decode(body.decode())
    except (ValueError, RecursionError):
        return NOT_JSON


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_int=_literal, parse_float=_literal, parse_constant=_refuse)


def _literal(text: str) -> msgspec.Raw:
    return msgspec.Raw(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def _dump_surrogates(value: object) -> str:
    if isinstance(value, dict):
        members = (f"{_quote(key)}:{_dump_surrogates(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dump_surrogates, value)) + "]"
    if isinstance(value, str):
        return _quote(value)
    return msgspec.json.encode(value).decode()
