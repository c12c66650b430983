import base64
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_proxy.tokens.images import Image, image_tokens, pixel_size


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00"


def jpeg(width: int, height: int, profile: int = 0) -> bytes:
    segment = b"\xff\xe2" + struct.pack(">H", profile + 2) + b"\xff" * profile if profile else b""
    return b"\xff\xd8" + segment + b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03"


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(3008, 2000), (3008, 2000)),
        (b"GIF89a" + struct.pack("<HH", 320, 200), (320, 200)),
        (jpeg(640, 480), (640, 480)),
        (jpeg(640, 480, profile=60_000), (640, 480)),
        (
            b"RIFF\x00\x00\x00\x00WEBPVP8 \x00\x00\x00\x00\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", 550, 368),
            (550, 368),
        ),
        (b"RIFF\x00\x00\x00\x00WEBPVP8L\x00\x00\x00\x00\x2f" + struct.pack("<I", 399 | 300 << 14), (400, 301)),
        (b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x8f\x01\x00\x2c\x01\x00", (400, 301)),
        (png(0, 10), None),
        (png(10, 10)[:20], None),
        (b"\xff\xd8\xff\xe0\x00\x00", None),
        (b"<svg width='1' height='1'/>", None),
        (b"", None),
    ],
)
def test_the_size_of_an_image_is_in_its_header(data: bytes, size: tuple[int, int] | None) -> None:
    assert pixel_size(data) == size


@pytest.mark.parametrize(
    ("model", "width", "height", "tokens"),
    [
        # 2048 by 1361, then 1155 by 768: six tiles. The first, third and fourth are what was billed, or one less.
        ("gpt-4o-2024-08-06", 3008, 2000, 85 + 6 * 170),
        ("gpt-4o-mini", 1024, 1024, 2833 + 4 * 5667),
        ("gpt-4.1-nano", 540, 360, 502),
        ("openai/gpt-5-mini", 400, 301, round(1.2 * 13 * 10)),
        ("gpt-5", 512, 512, 70 + 140),
        # 1800 by 2400 is shrunk to 33 by 44 patches, the example of OpenAI's guide.
        ("o4-mini", 1800, 2400, round(1.72 * 33 * 44)),
        ("claude-sonnet-4-5", 597, 566, 451),
        ("claude-sonnet-4-5", 4000, 4000, 1600),
    ],
)
def test_an_image_is_counted_by_the_rule_of_its_model(model: str, width: int, height: int, tokens: int) -> None:
    assert image_tokens(Image(source=data_url(png(width, height))), model) == tokens


def test_low_detail_costs_the_base_of_a_model_with_tiles() -> None:
    assert image_tokens(Image(source=data_url(png(3008, 2000)), detail="low"), "gpt-4o") == 85


def test_low_detail_is_a_small_image_for_a_model_with_patches() -> None:
    assert image_tokens(Image(source=data_url(png(1024, 1024)), detail="low"), "gpt-4.1-mini") == round(1.62 * 256)


@pytest.mark.parametrize(
    ("source", "model"),
    [
        ("https://example.com/a.png", "gpt-4o"),
        ("", "gpt-4o"),
        ("data:image/png;base64,%%%", "gpt-4o"),
        ("data:image/png;base64,A", "gpt-4o"),
        ("data:image/png", "gpt-4o"),
        (data_url(png(10, 10)), "llama-4-scout"),
    ],
)
def test_an_image_that_cannot_be_counted_is_none_and_never_zero(source: str, model: str) -> None:
    assert image_tokens(Image(source=source), model) is None


def test_bare_base64_is_an_image_too() -> None:
    assert image_tokens(Image(source=base64.b64encode(jpeg(64, 64)).decode()), "claude-opus-4-8") == 6


def test_an_image_of_one_pixel_and_one_of_a_huge_side_are_counted() -> None:
    for width, height in [(1, 1), (1, 2**32 - 1), (2**32 - 1, 1)]:
        for model in ("gpt-4o", "gpt-4.1-mini", "claude-x"):
            counted = image_tokens(Image(source=data_url(png(width, height))), model)
            assert counted is not None
            assert 0 < counted < 3_000


@settings(deadline=None)  # the machine may be busy
@given(
    st.binary(max_size=64), st.sampled_from([b"\xff\xd8", b"RIFF1234WEBPVP8X", b"\x89PNG\r\n\x1a\n", b"GIF89a", b""])
)
def test_no_bytes_make_a_header_raise(data: bytes, magic: bytes) -> None:
    size = pixel_size(magic + data)
    assert size is None or min(size) > 0
