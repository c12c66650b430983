"""The long words of data: the only places where keys can stand, and a small part of what agents send.

Invariant: a run of at least ``LONG`` of the characters that keys are made of is part of one of the words, and so are
the ``BEFORE`` bytes in front of it.
"""

from typing import Final

LONG: Final = 15
BEFORE: Final = len(b"Bearer ")
_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.~+/="
_SHOWN: Final = bytes(ord("w") if byte in _LETTERS else ord(" ") for byte in range(256))
_LONG: Final = b"w" * LONG


def long_words(data: bytes, before: int = BEFORE) -> list[bytes]:
    """The words, in order, each with so many of the bytes before it."""
    find = (data.translate(_SHOWN) + b" ").find
    found: list[bytes] = []
    end = 0
    while (start := find(_LONG, end)) >= 0:
        end = find(b" ", start)
        found.append(data[start - before if start > before else 0 : end])
    return found
