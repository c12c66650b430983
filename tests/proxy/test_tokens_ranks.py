import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiktoken

from cellmeter_proxy.tokens.pack import main
from cellmeter_proxy.tokens.ranks import DEFINITIONS, EncodingName, encoding, official_file, pack, packed_ranks, unpack

OFFLINE = """
import sys

def refuse(event, args):
    if event.startswith("socket."):
        raise RuntimeError(event)
    if event == "open" and args[1] not in (None, "r", "rb"):
        raise RuntimeError(f"{event} {args}")

sys.addaudithook(refuse)
import tiktoken.registry
from cellmeter_proxy.tokens import estimate

body = b'{"model": "%s", "messages": [{"role": "user", "content": "say hello world"}]}'
print(*[estimate("chat.completions", body % model, b'{"choices": [{"message": {"content": "hello"}}]}').prompt_tokens
        for model in (b"gpt-4o", b"gpt-4")], len(tiktoken.registry.ENCODINGS))
"""


@pytest.fixture(params=["o200k_base", "cl100k_base"])
def name(request: pytest.FixtureRequest) -> EncodingName:
    chosen: EncodingName = request.param
    return chosen


def test_a_packed_file_gives_the_official_file_back(name: EncodingName) -> None:
    ranks = unpack(packed_ranks(name), DEFINITIONS[name].sha256)

    assert len(ranks) == {"o200k_base": 199_998, "cl100k_base": 100_256}[name]
    assert official_file(ranks).startswith(b"IQ== 0\nIg== 1\nIw== 2\n")


def test_damaged_rank_data_is_refused(name: EncodingName) -> None:
    packed = packed_ranks(name)
    sha256 = DEFINITIONS[name].sha256

    for damaged in (b"", packed[:-100], packed[:5000] + b"\x00" + packed[5001:], pack(b"IQ== 0\nIg== 1\n")):
        with pytest.raises(ValueError, match="the rank data is damaged"):
            unpack(damaged, sha256)


def test_ranks_with_a_gap_are_not_packed() -> None:
    with pytest.raises(ValueError, match="rank 1 expected, found 2"):
        pack(b"IQ== 0\nIg== 2\n")


def test_an_encoding_is_the_one_that_tiktoken_builds_from_the_official_file(
    name: EncodingName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = {"o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790"}.get(
        name, "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
    )
    (tmp_path / cached).write_bytes(official_file(unpack(packed_ranks(name), DEFINITIONS[name].sha256)))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    theirs = getattr(importlib.import_module("tiktoken_ext.openai_public"), name)()

    assert theirs["pat_str"] == DEFINITIONS[name].pattern
    text = "Ünïcode 'll don't\r\n\r\n  \tx = [1234567, '漢字かな'] 👩‍👩‍👧 <|endoftext|>  \n"
    assert encoding(name).encode_ordinary(text) == tiktoken.Encoding(**theirs).encode_ordinary(text)


def test_packing_writes_what_this_package_ships(tmp_path: Path) -> None:
    for name, definition in DEFINITIONS.items():
        official = official_file(unpack(packed_ranks(name), definition.sha256))
        (tmp_path / f"{name}.tiktoken").write_bytes(official)
    main(tmp_path, tmp_path)

    for name, definition in DEFINITIONS.items():
        assert unpack((tmp_path / f"{name}.bin.xz").read_bytes(), definition.sha256)


def test_nothing_is_fetched_written_or_registered(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TIKTOKEN")}
    done = subprocess.run(
        [sys.executable, "-B", "-c", OFFLINE],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("10 10 0\n", "")
