"""Whole numbers as bytes, for recipes. Pure.

A single number is an unsigned LEB128 (DWARF 5, §7.6). A column of numbers is one byte that gives their
width, then all their lowest bytes, then all their next ones: bytes of one kind stand together, which is what an
entropy coder wants.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

_WIDTHS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Cursor:
    """A place in bytes that are read from the front. Every method raises ValueError where the bytes run out."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def number(self) -> int:
        """The next LEB128 number."""
        value = shift = 0
        while True:
            if self.at >= len(self.data):
                raise ValueError("a number breaks off")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def take(self, size: int) -> bytes:
        """The next bytes."""
        end = self.at + size
        if end > len(self.data):
            raise ValueError(f"{size} bytes should follow, {len(self.data) - self.at} do")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def column(self) -> tuple[int, ...]:
        """The next column of numbers."""
        count = self.number()
        width = self.number()
        if width not in _WIDTHS:
            raise ValueError(f"numbers are not {width} bytes wide")
        planes = self.take(count * width)
        mixed = bytearray(len(planes))
        for plane in range(width):
            mixed[plane::width] = planes[plane * count : (plane + 1) * count]
        return struct.unpack(f"<{count}{_WIDTHS[width]}", mixed)


def number(value: int) -> bytes:
    """A number that is not negative, as LEB128."""
    return bytes((value,)) if value < 0x80 else numbers((value,))


def numbers(values: Iterable[int]) -> bytes:
    """Numbers that are not negative, one after the other, as LEB128."""
    out = bytearray()
    for value in values:
        rest = value
        while rest >= 0x80:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def column(values: Sequence[int]) -> bytes:
    """A column of numbers from 0 up to 2**64 - 1."""
    widest = max(values, default=0)
    if widest < 1 << 8:
        return number(len(values)) + b"\x01" + bytes(values)
    width = 2 if widest < 1 << 16 else 4 if widest < 1 << 32 else 8
    mixed = struct.pack(f"<{len(values)}{_WIDTHS[width]}", *values)
    planes = b"".join(mixed[plane::width] for plane in range(width))
    return number(len(values)) + number(width) + planes
