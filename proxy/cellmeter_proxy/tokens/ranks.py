"""The two byte-pair encodings of OpenAI's models, from rank data that is part of this package.

Invariant: an encoding is the official one or there is none. The SHA-256 of the official rank file is
computed from what was unpacked each time an encoding is built; nothing is downloaded, no environment
variable is read, and tiktoken's own registry and cache stay as they were.

Packed form: the number of tokens (little-endian uint32), one length byte per token, then the bytes of
the tokens in the order of their ranks, the whole compressed with xz. ``tokens.pack`` makes it.
"""

import base64
import functools
import hashlib
import lzma
import struct
from importlib import resources
from typing import Final, Literal

import msgspec
import tiktoken

EncodingName = Literal["o200k_base", "cl100k_base"]

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


def _alternatives(*patterns: str) -> str:
    return "|".join(patterns)


class _Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What tiktoken's ``openai_public.py`` says of an encoding, as far as ordinary text is concerned."""

    sha256: str
    """Of the official ``.tiktoken`` file."""
    pattern: str


DEFINITIONS: Final[dict[EncodingName, _Definition]] = {
    "o200k_base": _Definition(
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        pattern=_alternatives(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTIONS,
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTIONS,
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ),
    ),
    "cl100k_base": _Definition(
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern=_alternatives(
            r"'(?i:[sdmt]|ll|ve|re)",
            r"[^\r\n\p{L}\p{N}]?+\p{L}++",
            r"\p{N}{1,3}+",
            r" ?[^\s\p{L}\p{N}]++[\r\n]*+",
            r"\s++$",
            r"\s*[\r\n]",
            r"\s+(?!\S)",
            r"\s",
        ),
    ),
}


def pack(official: bytes) -> bytes:
    """The packed form of an official ``.tiktoken`` file.

    Raises:
        ValueError: a line is not ``<base64> <rank>``, or the ranks do not run from 0 without gaps.

    """
    tokens: list[bytes] = []
    for line in official.splitlines():
        token, rank = line.split()
        if int(rank) != len(tokens):
            raise ValueError(f"rank {len(tokens)} expected, found {rank.decode()}")
        tokens.append(base64.b64decode(token, validate=True))
    header = struct.pack("<I", len(tokens)) + bytes(len(token) for token in tokens)
    return lzma.compress(header + b"".join(tokens), preset=9 | lzma.PRESET_EXTREME)


def unpack(packed: bytes, sha256: str) -> dict[bytes, int]:
    """The ranks in a packed file, once they are proven to be the official ones.

    Raises:
        ValueError: the data is damaged, or is not what the digest promises.

    """
    try:
        ranks = _split(lzma.decompress(packed))
    except (lzma.LZMAError, struct.error, IndexError) as error:
        raise ValueError(f"the rank data is damaged: {error}") from error
    if hashlib.sha256(official_file(ranks)).hexdigest() != sha256:
        raise ValueError("the rank data is damaged: it does not rebuild the official file")
    return ranks


def official_file(ranks: dict[bytes, int]) -> bytes:
    """The ``.tiktoken`` file that these ranks were published as."""
    return b"".join(b"%b %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items())


def _split(content: bytes) -> dict[bytes, int]:
    (count,) = struct.unpack_from("<I", content)
    lengths = content[4 : 4 + count]
    ranks: dict[bytes, int] = {}
    start = 4 + count
    for rank, length in enumerate(lengths):
        ranks[content[start : start + length]] = rank
        start += length
    return ranks


def packed_ranks(name: EncodingName) -> bytes:
    """The rank data of an encoding, as this package ships it."""
    return (resources.files(__package__ or __name__) / "data" / f"{name}.bin.xz").read_bytes()


@functools.cache
def encoding(name: EncodingName) -> tiktoken.Encoding:
    """The encoding, built once per process (0.1 to 0.3 s, 45 to 80 MB); it may be shared between threads.

    It knows no special tokens: text that looks like one is counted as text, as a provider does with what a user sends.

    Raises:
        ValueError: the installed rank data is damaged.

    """
    definition = DEFINITIONS[name]
    return tiktoken.Encoding(
        f"cellmeter/{name}",
        pat_str=definition.pattern,
        mergeable_ranks=unpack(packed_ranks(name), definition.sha256),
        special_tokens={},
    )
