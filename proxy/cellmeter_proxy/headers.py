"""Which headers go on, and which belong to one hop (RFC 9110 §7.6.1).

Names, order, case and repetitions are kept. What the proxy's own connections need (Host,
Content-Length, Transfer-Encoding, Connection) is left for them to set.
"""

import re
from collections.abc import Iterable
from typing import Final

from multidict import CIMultiDict

RawHeaders = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Expect is answered by our own server, and the body is at hand when it is sent on.
_SET_BY_CLIENT: Final = frozenset({"host", "content-length", "expect"})
_KEY_HEADERS: Final = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def request_headers(raw: RawHeaders, key: str | None, *, identity: bool = False) -> CIMultiDict[str]:
    """The headers of a request as the provider shall see them.

    Args:
        raw: as received.
        key: the provider's key to put in place of the client's, in whichever header the client used; None
            leaves the client's own.
        identity: ask for an answer without content coding, whatever the client takes.

    """
    headers = _end_to_end(raw, _SET_BY_CLIENT)
    if identity:
        headers["Accept-Encoding"] = "identity"
    if key is None:
        return headers
    replaced = CIMultiDict((name, _credential(name, value, key)) for name, value in headers.items())
    if not any(name.lower() in _KEY_HEADERS for name in replaced):
        replaced["Authorization"] = f"Bearer {key}"
    return replaced


def answer_headers(raw: RawHeaders, *, shortened: bool = False) -> CIMultiDict[str]:
    """The headers of an answer as the client shall see them.

    Args:
        raw: as received.
        shortened: something is taken out of the answer, so that its Content-Length does not hold.

    """
    return _end_to_end(raw, frozenset({"content-length"}) if shortened else frozenset())


def _end_to_end(raw: RawHeaders, drop: frozenset[str]) -> CIMultiDict[str]:
    pairs = [(_text(name), _text(value)) for name, value in raw]
    named = {
        token.strip().lower() for name, value in pairs if name.lower() == "connection" for token in value.split(",")
    }
    dropped = _HOP_BY_HOP | drop | named
    return CIMultiDict((name, value) for name, value in pairs if name.lower() not in dropped)


def printable(text: str) -> str:
    """A field value or reason phrase without CR, LF, NUL and their like, each replaced by a space (RFC 9110 §5.5)."""
    return _CONTROL.sub(" ", text)


def _text(raw: bytes) -> str:
    return printable(raw.decode("utf-8", "surrogateescape"))


def _credential(name: str, value: str, key: str) -> str:
    match name.lower():
        case "authorization":
            return f"Bearer {key}"
        case lowered if lowered in _KEY_HEADERS:
            return key
        case _:
            return value
