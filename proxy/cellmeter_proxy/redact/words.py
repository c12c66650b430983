"""The long words of data: the only places where most keys can stand, and a small part of what agents send.

Invariant: a run of at least ``LONG`` letters, digits, ``_`` and ``-`` in the data is part of one of the words.
"""

from typing import Final

LONG: Final = 15
_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_SHOWN: Final = bytes(ord("w") if byte in _LETTERS else ord(" ") for byte in range(256))
_LONG: Final = b"w" * LONG


def long_words(data: bytes) -> list[bytes]:
    """The words, in order."""
    shown = data.translate(_SHOWN)
    found: list[bytes] = []
    end = 0
    while (start := shown.find(_LONG, end)) >= 0:
        end = shown.find(b" ", start)
        end = len(data) if end < 0 else end
        found.append(data[start:end])
    return found
