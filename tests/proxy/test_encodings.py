"""Every coding is undone, whole and piece by piece, and no input costs more than its bound."""

import gzip
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.encodings import StreamDecoder, codings, decode

PLAIN = b"hello world, " * 500


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def br(data: bytes) -> bytes:
    return bytes(brotli.compress(data))


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


CODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("X-GZIP", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", br),
    ("zstd", zstd),
    ("gzip, br", lambda data: br(gzip.compress(data))),
    ("identity, zstd , gzip", lambda data: gzip.compress(zstd(data))),
]


@pytest.mark.parametrize(("header", "encode"), CODERS)
def test_a_body_is_decoded_whole_and_split_at_every_byte(header: str, encode: Callable[[bytes], bytes]) -> None:
    body = encode(PLAIN)
    assert decode(body, header) == PLAIN
    decoder = StreamDecoder(header)
    assert b"".join(decoder.feed(body[at : at + 1]) for at in range(len(body))) == PLAIN
    decoder.finish()
    assert decoder.error is None


@pytest.mark.parametrize(("header", "encode"), CODERS)
def test_a_body_that_is_cut_off_gives_what_there_is_and_an_error(header: str, encode: Callable[[bytes], bytes]) -> None:
    body = encode(PLAIN)[:-1]
    assert decode(body, header) is None
    decoder = StreamDecoder(header)
    assert PLAIN.startswith(decoder.feed(body))
    decoder.finish()
    assert decoder.error == "the encoded data ends too early"


@pytest.mark.parametrize(("header", "encode"), CODERS)
def test_a_body_beyond_the_limit_is_cut_at_it(header: str, encode: Callable[[bytes], bytes]) -> None:
    body = encode(PLAIN)
    assert decode(body, header, limit=1000) is None
    decoder = StreamDecoder(header, limit=1000)
    assert decoder.feed(body) == PLAIN[:1000]
    assert decoder.error == "it decodes to more than 1000 bytes"
    assert decoder.feed(body) == b""
    assert decode(body, header, limit=len(PLAIN)) == PLAIN


@pytest.mark.parametrize(("header", "encode"), [coder for coder in CODERS if "," not in coder[0]])
def test_an_empty_body_is_empty_in_every_coding(header: str, encode: Callable[[bytes], bytes]) -> None:
    assert decode(b"", header) == b""
    assert decode(encode(b""), header) == b""


@pytest.mark.parametrize("encode", [gzip.compress, zstd])
def test_members_one_after_another_are_one_body(encode: Callable[[bytes], bytes]) -> None:
    header = "gzip" if encode is gzip.compress else "zstd"
    assert decode(encode(b"one ") + encode(b"") + encode(b"two"), header) == b"one two"


def test_zero_padding_after_gzip_is_nothing() -> None:
    assert decode(gzip.compress(b"x") + b"\0\0\0", "gzip") == b"x"


def test_a_bomb_is_bounded() -> None:
    zeros = bytes(100_000_000)
    for header, body in (("gzip", gzip.compress(zeros, 1)), ("br", br_fast(zeros)), ("zstd", zstd(zeros))):
        decoder = StreamDecoder(header, limit=100_000)
        assert len(decoder.feed(body)) == 100_000
        assert decoder.error is not None


def br_fast(data: bytes) -> bytes:
    return bytes(brotli.compress(data, quality=1))


def test_damaged_data_gives_what_came_before_the_damage() -> None:
    plain = PLAIN * 10
    body = bytearray(gzip.compress(plain))
    body[-8:-4] = b"\0\0\0\0"
    decoder = StreamDecoder("gzip")
    decoded = decoder.feed(bytes(body))
    assert plain.startswith(decoded)
    assert len(decoded) > len(plain) - 20_000
    assert decoder.error is not None
    assert decoder.error.startswith("damaged encoded data")
    assert decode(bytes(body), "gzip") is None


@pytest.mark.parametrize("header", ["compress", "gzip, rot13", "gzip," * 5 + "br"])
def test_an_unknown_coding_is_an_error_and_no_text(header: str) -> None:
    assert decode(gzip.compress(b"x"), header) is None
    assert StreamDecoder(header).feed(b"x") == b""


def test_no_coding_is_the_bytes_themselves() -> None:
    assert decode(b"x", None) == decode(b"x", "") == decode(b"x", "identity") == b"x"
    assert codings(" GZip , identity,,br") == ["gzip", "br"]


@given(st.sampled_from(["gzip", "deflate", "br", "zstd", "gzip, br"]), st.lists(st.binary(max_size=40)))
def test_no_bytes_make_it_raise(header: str, chunks: list[bytes]) -> None:
    decoder = StreamDecoder(header, limit=1000)
    assert len(b"".join(decoder.feed(chunk) for chunk in chunks)) <= 1000
    decoder.finish()
