"""What an image in a prompt costs: its size from the header of a data URL, then the rule of the model.

Nothing is fetched and no pixel is decoded. An image that is only named by an address, is of an unknown
kind, or is shown to a model without a known rule is None, never 0.

Rules: https://platform.openai.com/docs/guides/images-vision#calculating-costs and
https://docs.anthropic.com/en/docs/build-with-claude/vision#calculate-image-costs. The factor 1.2 of the small
gpt-5 models, and of 5.2 and later, is what they bill, not what is published.
"""

import binascii
import math
import re
import struct
from collections.abc import Callable
from typing import Final

import msgspec

_HEADER_CHARACTERS: Final = 1 << 20
"""Of base64; a JPEG may carry some hundred kilobytes of profile before it says its size."""
_PATCH: Final = 32
_PATCH_CAP: Final = 1_536
_ANTHROPIC_EDGE: Final = 1_568

Rule = Callable[[int, int, str | None], int]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image of a prompt: a data URL, an address, or bare base64, with the detail that was asked for."""

    source: str
    detail: str | None = None


def image_tokens(image: Image, model: str) -> int | None:
    """What the model bills for the image, or None where that cannot be told from here."""
    rule = _rule(model)
    size = None if rule is None else _size(image.source)
    return None if rule is None or size is None else rule(*size, image.detail)


# The rules


def tiles(base: int, tile: int) -> Rule:
    """``base`` plus ``tile`` for each 512-pixel square, after fitting 2,048 pixels and a short side of 768."""

    def rule(width: int, height: int, detail: str | None) -> int:
        if detail == "low":
            return base
        scale = min(1.0, 2048 / max(width, height))
        scale = min(scale, 768 / min(width, height))
        return base + tile * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)

    return rule


def patches(factor: float) -> Rule:
    """``factor`` for each 32-pixel square, after shrinking the image to 1,536 of them where it has more."""

    def rule(width: int, height: int, detail: str | None) -> int:
        if detail == "low":
            scale = min(1.0, 512 / max(width, height))
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        count = math.ceil(width / _PATCH) * math.ceil(height / _PATCH)
        return round(factor * min(count, _shrunk(width, height)))

    return rule


def _shrunk(width: int, height: int) -> int:
    """The patches of an image that is scaled until they are at most the cap, one side being a whole number of them."""
    scale = math.sqrt(_PATCH_CAP * _PATCH**2 / (width * height))
    across, down = width * scale / _PATCH, height * scale / _PATCH
    fit = min(max(1, math.floor(across)) / across, max(1, math.floor(down)) / down)
    return min(_PATCH_CAP, math.ceil(across * fit - 1e-9) * math.ceil(down * fit - 1e-9))


def _area(width: int, height: int, detail: str | None) -> int:
    """Anthropic's rule: a token for each 750 pixels, after fitting a long side of 1,568 pixels."""
    del detail
    scale = min(1.0, _ANTHROPIC_EDGE / max(width, height))
    return min(1_600, math.ceil(width * scale * height * scale / 750))


_RULES: Final[list[tuple[re.Pattern[str], Rule]]] = [
    (re.compile(r"gpt-4\.1-nano|gpt-5-nano"), patches(2.46)),
    (re.compile(r"gpt-4\.1-mini"), patches(1.62)),
    (re.compile(r"(?:^|[/:])o4-mini"), patches(1.72)),
    (re.compile(r"gpt-5[^/]*-mini|gpt-5\.[2-9]"), patches(1.2)),
    (re.compile(r"gpt-5"), tiles(70, 140)),
    (re.compile(r"gpt-4o-mini"), tiles(2_833, 5_667)),
    (re.compile(r"gpt-4o|gpt-4\.[15]|gpt-4-turbo"), tiles(85, 170)),
    (re.compile(r"(?:^|[/:])o[13](?:-|$)"), tiles(75, 150)),
    (re.compile(r"claude"), _area),
]


def _rule(model: str) -> Rule | None:
    return next((rule for pattern, rule in _RULES if pattern.search(model.lower())), None)


# The size


def _size(source: str) -> tuple[int, int] | None:
    head = source[: _HEADER_CHARACTERS + 256]
    if head[:5].lower() == "data:":
        _, _, head = head.partition(",")
    try:
        data = binascii.a2b_base64(head[: len(head) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    return pixel_size(data)


def pixel_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF, WebP or JPEG, the kinds that providers take, from its first bytes."""
    try:
        size = _header_size(data)
    except struct.error:
        return None
    return size if size and min(size) > 0 else None


def _header_size(data: bytes) -> tuple[int, int] | None:
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if data[:6] in {b"GIF87a", b"GIF89a"}:
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    return _jpeg(data) if data[:2] == b"\xff\xd8" else None


def _webp(data: bytes) -> tuple[int, int] | None:
    """https://developers.google.com/speed/webp/docs/riff_container, RFC 6386 §9.1 for the lossy kind."""
    if data[12:16] == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """The first start-of-frame segment (ITU-T T.81 §B.2.2)."""
    at = 2
    while at < len(data) and data[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 + length
    return None
