"""Finding secrets in text and masking them.

Invariant: what is masked keeps its length and the prefix that tells its kind (``sk-``, ``Bearer ``), so that JSON stays
JSON, a secret can be masked piece by piece, and masking twice changes nothing.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

import msgspec

Data = bytes  # inside the class the name belongs to the method that the house calls ``bytes``
MIN_SECRET: Final = 6
"""A given secret shorter than this is not looked for: masking it would riddle every text."""
_MASK: Final = b"*"


class _Shape(msgspec.Struct, frozen=True):
    """Keys of one kind: a word without which there is none, and the pattern, whose first group stays readable."""

    needle: bytes
    pattern: re.Pattern[bytes]


def _shape(needle: bytes, pattern: bytes) -> _Shape:
    return _Shape(needle, re.compile(rb"(?<![A-Za-z0-9])" + pattern))


_SHAPES: Final = (
    _shape(b"sk-", rb"(sk-(?:ant-|proj-|or-v1-|svcacct-)?)(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}"),
    _shape(b"cm-", rb"(cm-)(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{16,}"),
    _shape(b"gsk_", rb"(gsk_)[A-Za-z0-9]{20,}"),
    _shape(b"AIza", rb"(AIza)[A-Za-z0-9_-]{35}"),
    _shape(b"gh", rb"(gh[pousr]_)[A-Za-z0-9]{30,}"),
    _shape(b"github_pat_", rb"(github_pat_)[A-Za-z0-9_]{22,}"),
    _shape(b"xox", rb"(xox[abeoprs]-)[A-Za-z0-9-]{10,}"),
    _shape(b"hf_", rb"(hf_)[A-Za-z0-9]{30,}"),
    _shape(b"nvapi-", rb"(nvapi-)[A-Za-z0-9_-]{30,}"),
    _shape(b"xai-", rb"(xai-)[A-Za-z0-9]{30,}"),
    _shape(b"AKIA", rb"(AKIA)[A-Z0-9]{16}"),
    _shape(b"eyJ", rb"(eyJ)[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    _shape(b"earer ", rb"([Bb]earer )(?=[A-Za-z._~+/=-]*[0-9])[A-Za-z0-9._~+/=-]{16,}"),
)


class Redactor:
    """Masks the secrets it was given, in every form they are written in, and whatever has the shape of a key.

    Args:
        secrets: provider keys, virtual keys, anything that must not be written. Also found JSON-escaped (twice too, as
            in the arguments of a tool call), URL-encoded, and inside base64.

    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= MIN_SECRET for form in _forms(secret)}
        self._forms = sorted((form for form in forms if len(form) >= MIN_SECRET), key=len, reverse=True)

    def bytes(self, data: Data) -> tuple[Data, int]:
        """The data with its secrets masked, and how many there were."""
        found = self.spans(data)
        if not found:
            return data, 0
        out = bytearray(data)
        for start, end in found:
            out[start:end] = _MASK * (end - start)
        return bytes(out), len(found)

    def text(self, text: str) -> tuple[str, int]:
        """The same for text. A character beyond ASCII becomes as many asterisks as it has bytes in UTF-8."""
        masked, found = self.bytes(text.encode("utf-8", "surrogatepass"))
        return masked.decode("utf-8", "surrogatepass"), found

    def spans(self, data: Data) -> list[tuple[int, int]]:
        """Where the bytes are that have to be masked: in order, and none touching the next."""
        found = sorted(span for span in (*self._given(data), *_shaped(data)) if data[slice(*span)].strip(_MASK))
        merged: list[tuple[int, int]] = []
        for start, end in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _given(self, data: Data) -> Iterator[tuple[int, int]]:
        for form in self._forms:
            at = data.find(form)
            while at >= 0:
                yield at, at + len(form)
                at = data.find(form, at + 1)


def fingerprint(secret: str, salt: str) -> str:
    """A name for a secret that does not give it away: ``fp:`` and 12 hex digits of HMAC-SHA-256 (RFC 2104).

    Args:
        secret: the key itself, without ``Bearer``; see ``credential``.
        salt: of the log (its ``fingerprint_salt``), so that two logs cannot be joined on it by others.

    """
    digest = hmac.new(salt.encode(), secret.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return f"fp:{digest.hexdigest()[:12]}"


def _shaped(data: bytes) -> Iterator[tuple[int, int]]:
    for shape in _SHAPES:
        if shape.needle in data:
            for match in shape.pattern.finditer(data):
                yield match.end(1), match.end()


def _forms(secret: str) -> Iterator[bytes]:
    """How a secret can stand in a text."""
    plain = secret.encode("utf-8", "surrogatepass")
    yield plain
    for ascii_only in (False, True):
        once = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        twice = json.dumps(once, ensure_ascii=ascii_only)[1:-1]
        for escaped in (once, twice, once.replace("/", "\\/")):
            yield escaped.encode("utf-8", "surrogatepass")
    for quoted in (quote(plain, safe=""), quote(plain), quote_plus(plain)):
        yield quoted.encode()
        yield re.sub(r"%..", lambda match: match[0].lower(), quoted).encode()
    for shift in range(3):
        yield from _base64_core(plain, shift)


def _base64_core(secret: bytes, shift: int) -> Iterator[bytes]:
    """The digits that a secret has in base64 whatever stands around it, ``shift`` bytes into a group of three."""
    first = -(-shift * 8 // 6)
    last = (shift + len(secret)) * 8 // 6
    padded = bytes(shift) + secret + b"\0\0"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(padded)[first:last]
