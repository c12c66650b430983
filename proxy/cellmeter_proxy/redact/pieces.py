"""The texts that a stream brings piece by piece, read quickly where nothing about the stream is unusual.

Invariant: ``plain_texts`` gives the texts that the thorough reading of ``streams`` gives, or None. It counts the names
of the members that it has seen against those that are written in the bytes, so that none hides from it.
"""

import codecs
from collections.abc import Hashable
from typing import Any, Final

from cellmeter_proxy.redact.slices import slices
from cellmeter_proxy.wire.frames import Frames
from cellmeter_proxy.wire.runs import Run

IDENTITY: Final = frozenset({"type", "item_id", "output_index", "content_index", "summary_index", "index"})
"""The members of a frame that tell which text its piece belongs to."""
_ESCAPED_LETTERS: Final = (b"\\u005", b"\\u006", b"\\u007")


def plain_texts(parsed: Frames, names: frozenset[str]) -> list[str] | None:
    """Each text whole, or None where a member of these names is written in a way that the parsed values do not show.

    Args:
        parsed: the stream.
        names: of the members that hold a piece of a text.

    """
    # What a run repeats has the same names in every frame.
    body = parsed.brief
    if not _is_utf8(body) or (b"\\u00" in body and any(letter in body for letter in _ESCAPED_LETTERS)):
        return None
    reader = _Reader(names)
    try:
        for value in parsed.values:
            members = value.value if type(value) is Run else value
            if type(members) is dict:
                reader.identity = _identity(members)
                reader.read_object(members, ())
    except RecursionError:
        return None
    quoted = [b'"%b"' % name.encode() for name in names]
    # Counted one by one: a single call for all would keep every other thread waiting where the stream is large.
    if reader.seen != sum([body.count(one) for one in quoted]) and reader.seen != sum(
        [_as_name(body, one) for one in quoted]
    ):
        return None
    return ["".join(pieces) for pieces in reader.texts.values()]


class _Reader:
    """Gathers the pieces of parsed frames under the text that they belong to, and counts their names."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self.identity: Hashable = ()
        self.texts: dict[Hashable, list[str]] = {}
        self.seen = 0

    def read_object(self, value: dict[str, Any], path: tuple[object, ...]) -> None:
        for name, member in value.items():
            kind = type(member)
            if name in self._names:
                self.seen += 1
                if kind is str:
                    self.texts.setdefault((self.identity, path, name), []).append(member)
            if kind is dict:
                self.read_object(member, (*path, name))
            elif kind is list:
                self.read_array(member, (*path, name))

    def read_array(self, value: list[Any], path: tuple[object, ...]) -> None:
        for position, member in enumerate(value):
            if type(member) is dict:
                self.read_object(member, (*path, repr(member.get("index", position))))
            elif type(member) is list:
                self.read_array(member, (*path, repr(position)))


def _identity(value: dict[str, Any]) -> Hashable:
    if IDENTITY.isdisjoint(value):
        return ()
    return tuple(sorted((name, repr(member)) for name, member in value.items() if name in IDENTITY))


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for part in slices(body, overlap=0):
            decoder.decode(part)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _as_name(body: bytes, quoted: bytes) -> int:
    """How often a string stands in the bytes as the name of a member; more often where that is not certain."""
    return body.count(quoted) - sum(body.count(quoted + mark) for mark in (b",", b"}", b"]"))
