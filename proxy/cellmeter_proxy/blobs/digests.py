"""A digest as the log keeps it: the 32 bytes of a SHA-256 in place of their 71 characters. Pure.

``packed`` loses nothing: what is no such digest stays the text that it is, so that a damaged log can say what it holds.
"""

from typing import Final

_PREFIX: Final = "sha256:"
_LENGTH: Final = len(_PREFIX) + 64
UNPACKED: Final = (
    f"CASE typeof(sha256) WHEN 'blob' THEN '{_PREFIX}' || lower(hex(sha256)) ELSE coalesce(sha256, '') END"
)
"""The SQL that gives the text of a digest again."""


def packed(digest: str) -> bytes | str | None:
    """What stands in the column ``sha256`` for a digest; None where it is empty."""
    if len(digest) == _LENGTH and digest.startswith(_PREFIX):
        digits = digest[len(_PREFIX) :]
        try:
            raw = bytes.fromhex(digits)
        except ValueError:
            return digest
        if raw.hex() == digits:
            return raw
    return digest or None
