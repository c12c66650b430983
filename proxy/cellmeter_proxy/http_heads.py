"""Requests whose heads were parsed before: those of an agent differ in the number of their length, and nothing else.

Invariant: what is said of a request is what the parser says of it. Only bytes that are one whole request are looked at,
and only a head that is, but for that number, byte for byte one that the parser has taken with a body of that length.
"""

import re
from typing import Final, NamedTuple

from aiohttp.http_parser import RawRequestMessage

_KEPT: Final = 256
_MAX_BYTES: Final = 16 * 1024
_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([1-9][0-9]{0,14})\r\n")


class Whole(NamedTuple):
    """Bytes that look like one whole request."""

    head: bytes
    """Without the number of its length."""
    length: bytes
    """That number."""
    body: bytes

    def is_said(self, message: RawRequestMessage) -> bool:
        """Whether the parser, too, says that the body is as long as that."""
        lengths = [value for name, value in message.raw_headers if name.lower() == b"content-length"]
        return lengths == [self.length] and not message.chunked and not message.upgrade


def whole(data: bytes) -> Whole | None:
    """What came, taken apart, where it looks like one whole request and nothing more."""
    end = data.find(_END, 0, _MAX_BYTES)
    length = None if end < 0 else _LENGTH.search(data, 0, end + 2)
    if length is None or int(length[1]) != len(data) - end - len(_END):
        return None
    first, last = length.span(1)
    return Whole(data[:first] + data[last:end], length[1], data[end + len(_END) :])


class Heads:
    """The heads that come again and again."""

    def __init__(self) -> None:
        self._kept: dict[bytes, RawRequestMessage] = {}

    def find(self, head: bytes) -> RawRequestMessage | None:
        """What the parser has said of a head. The length that it names is that of another request."""
        return self._kept.get(head)

    def learn(self, head: bytes, message: RawRequestMessage) -> None:
        """Remember what the parser says of the head of a request that is whole, as it says, too."""
        if len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[head] = message
