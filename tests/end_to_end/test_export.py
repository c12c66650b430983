"""``cellmeter export`` as it is typed, on a log that a real proxy recorded."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.server import ProxyConfig, serve
from cellmeter_proxy.testing import LiteralClient, LiteralProvider
from cellmeter_scoring.testing import make_call

ANSWER = b'{"id":"1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2}}'
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)
BODY = b'{"model":"m","messages":[{"role":"user","content":"my password is planted"}]}'
KEY = b"sk-planted-0123456789abcdefghijkl"


def export(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cellmeter_harness", "export", *arguments],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    async with (
        LiteralProvider([OK], [OK]) as provider,
        serve(ProxyConfig(upstream=provider.url, log=tmp_path / "cellmeter.db")) as proxy,
    ):
        client = await LiteralClient.connect(proxy.url)
        for session, body in ((b"one", BODY), (b"two", BODY.replace(b"my password", b"the key " + KEY))):
            await client.post(f"/s/{session.decode()}/v1/chat/completions", body, b"Authorization: Bearer " + KEY)
            await client.until(ANSWER)
        await client.close()
    return tmp_path


async def test_each_format_is_written_to_stdout_or_a_file(directory: Path) -> None:
    lines = export(directory, "--to", "jsonl", "--bodies").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["session"] for row in rows] == ["one", "two"]
    assert [row["prompt_tokens"] for row in rows] == [11, 11]
    assert rows[0]["request_text"] == BODY.decode()
    assert rows[0]["response_text"] == ANSWER.decode()
    assert KEY.decode() not in lines[1]

    done = export(directory, "cellmeter.db", "--to", "csv", "--session", "two", "-o", "calls.csv")
    assert (done.returncode, done.stdout) == (0, "")
    with (directory / "calls.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["session"] == "two"
    assert set(Call.__struct_fields__) < set(row)

    document = json.loads(export(directory, "--to", "otel").stdout)
    assert len(document["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["none.db", "--to", "csv"], 1, "there is no log at none.db"),
        (["--to", "xml"], 2, "is not one of"),
        ([], 2, "Missing option '--to'"),
        (["--to", "csv", "--bodies"], 2, "--bodies goes with --to jsonl only"),
        (["--to", "csv", "--session", "three"], 1, "no call in session 'three'"),
        (["--to", "otel", "-o", "no/such/file.json"], 1, "no/such/file.json cannot be written"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    with Log.create(tmp_path / "cellmeter.db", "process") as log:
        log.append(make_call("a", seq=1))
    done = export(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
