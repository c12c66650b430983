"""Which headers go on, and which belong to one hop (RFC 9110 §7.6.1).

Names, order, case, repetitions and bytes are kept. What the proxy's own connections need (Host, Content-Length,
Transfer-Encoding, Connection) is left for them to set.
"""

import re
from collections.abc import Sequence
from typing import Final

RawHeaders = Sequence[tuple[bytes, bytes]]
HEADER_LIMIT: Final = 64 * 1024
"""Bytes of a header. Real agents send several thousand (codex 1 kB about itself alone); aiohttp's default is 8,190."""

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Expect is answered by our own server, and the body is at hand when it is sent on.
_NOT_SENT_ON: Final = _HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_NOT_SHORTENED: Final = _HOP_BY_HOP | {b"content-length"}
_KEY_HEADERS: Final = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})
_IDENTITY: Final = (b"Accept-Encoding", b"identity")

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class RequestHeaders:
    """The headers of a request on their way to a provider, as bytes that are made once."""

    __slots__ = ("_made", "_raw")

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw
        self._made: dict[tuple[str | None, bool], bytes] = {}

    def lines(self, key: str | None, *, identity: bool = False) -> bytes:
        """The header lines, each with its end; see ``request_headers``."""
        made = self._made.get((key, identity))
        if made is None:
            headers = request_headers(self._raw, key, identity=identity)
            made = self._made[key, identity] = b"".join([b"%b: %b\r\n" % header for header in headers])
        return made


def request_headers(raw: RawHeaders, key: str | None, *, identity: bool = False) -> list[tuple[bytes, bytes]]:
    """The headers of a request as the provider shall see them.

    Args:
        raw: as received.
        key: the provider's key to put in place of the client's, in whichever header the client used; None
            leaves the client's own.
        identity: ask for an answer without content coding, whatever the client takes.

    """
    headers = _end_to_end(raw, _NOT_SENT_ON)
    if identity:
        headers = [header for header in headers if header[0].lower() != b"accept-encoding"]
        headers.append(_IDENTITY)
    if key is None:
        return headers
    replaced = [(name, _credential(name, value, key.encode())) for name, value in headers]
    if not any(name.lower() in _KEY_HEADERS for name, _ in replaced):
        replaced.append((b"Authorization", b"Bearer " + key.encode()))
    return replaced


def answer_headers(raw: RawHeaders, *, shortened: bool = False) -> list[tuple[bytes, bytes]]:
    """The headers of an answer as the client shall see them.

    Args:
        raw: as received.
        shortened: something is taken out of the answer, so that its Content-Length does not hold.

    """
    return _end_to_end(raw, _NOT_SHORTENED if shortened else _HOP_BY_HOP)


def _end_to_end(raw: RawHeaders, dropped: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    names = [name.lower() for name, _ in raw]
    if b"connection" in names:
        said = b",".join([value for name, (_, value) in zip(names, raw, strict=True) if name == b"connection"])
        dropped |= {token.strip() for token in said.lower().split(b",")}
    kept = [header for name, header in zip(names, raw, strict=True) if name not in dropped]
    if _CONTROL.search(b"".join([value for _, value in kept])):
        return [(name, printable(value)) for name, value in kept]
    return kept


def printable(value: bytes) -> bytes:
    """A field value or reason phrase without CR, LF, NUL and their like, each replaced by a space (RFC 9110 §5.5)."""
    return _CONTROL.sub(b" ", value)


def _credential(name: bytes, value: bytes, key: bytes) -> bytes:
    match name.lower():
        case b"authorization":
            return b"Bearer " + key
        case lowered if lowered in _KEY_HEADERS:
            return key
        case _:
            return value
