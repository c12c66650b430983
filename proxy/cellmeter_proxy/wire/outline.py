"""What can be told of an answer that is too large to be parsed: the members that it ends with.

To parse JSON takes one step in which nobody else has the interpreter, and up to 25 times its size in memory: a body of
200 MB that is all ``[],`` would take 20 s and 5 GB. Most providers write ``model`` and ``usage`` last.

Invariant: of a JSON object only members of its own are read, never those of an object within it.
"""

import re
from typing import Final

import msgspec

from cellmeter_proxy.canonical import MAX_BYTES, MAX_ELEMENTS

_END_BYTES: Final = 64 * 1024
_MOST_TRIES: Final = 64
_MEMBER: Final = re.compile(rb'[{,][ \t\n\r]*(?="(?:id|model|object|status|stop_reason|usage)"[ \t\n\r]*:)')
"""Before a name that is one: within a string its quotes would be escaped, and what ends in one has no comma before."""
_SPACE: Final = b" \t\n\r"


class _Object(msgspec.Struct):
    """Any JSON object; none of its members is kept."""


_SOUND: Final = msgspec.json.Decoder(_Object)


def is_too_large(body: bytes) -> bool:
    """Whether an answer is not parsed: one with more bytes, or commas, than a request may have (``canonical``)."""
    return len(body) > MAX_BYTES or has_too_many_values(body)


def has_too_many_values(text: bytes) -> bool:
    """Whether a text has more commas than one that is parsed."""
    return len(text) > MAX_ELEMENTS and text.count(b",") > MAX_ELEMENTS


def outline(body: bytes) -> bytes:
    """An object of the members that a large one ends with, as far as they are found; empty where there are none.

    Empty, too, where the body is no sound object: what it ends with may be an object within it. To see that takes a
    fraction of the time of parsing, since nothing is made of what is passed over.
    """
    try:
        _SOUND.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b"{}"
    end = body[-_END_BYTES:]
    for tried, match in enumerate(_MEMBER.finditer(end)):
        if tried == _MOST_TRIES:
            break
        rest = b"{" + end[match.end() :]
        try:
            msgspec.json.decode(rest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        return rest
    return b"{}"


def may_be_whole(body: bytes) -> bool:
    """Whether a body begins and ends as an object does."""
    return body[:_END_BYTES].lstrip(_SPACE).startswith(b"{") and body[-_END_BYTES:].rstrip(_SPACE).endswith(b"}")
