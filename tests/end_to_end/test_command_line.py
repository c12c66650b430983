"""The program as a user types it: real processes, real signals, sentences instead of tracebacks."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.scripted import Script, ScriptedProvider, Turn
from cellmeter_proxy.server import ProxyConfig, serve

CELLMETER = [sys.executable, "-m", "cellmeter_harness"]


def cellmeter(*arguments: str, cwd: Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    done = subprocess.run([*CELLMETER, *arguments], cwd=cwd, capture_output=True, input=stdin, timeout=60, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def demo_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("typed")
    done = cellmeter("demo", cwd=directory)
    assert done.returncode == 0, done.stderr
    assert "leaderboard" in done.stdout
    assert "5 calls" in done.stdout
    return directory / "cellmeter-demo" / "cellmeter.db"


SWEEP = 'name = "x"\nagents = ["null"]\nmodels = ["m"]\ntasks = ["polyglot/python-*"]\n[upstream]\nscripted = true\n'


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["audit", "none.db"], 1, "there is no log at none.db"),
        (["audit", "text.txt"], 1, "text.txt is not a cellmeter log"),
        (["score", "other.db"], 1, "is a database of something else"),
        (["verify", "none.db"], 1, "there is no log"),
        (["run", "none.toml"], 1, "none.toml"),
        (["run", "malformed.toml"], 2, "malformed.toml"),
        (["run", "unknown-agent.toml"], 2, "there is no agent named aidr"),
        (["run", "unknown-key.toml"], 2, "agent"),
        (["run", "secret.toml"], 2, "secret.toml"),
        (["proxy"], 2, "--upstream"),
        (["proxy", "--upstream", "example.com"], 2, "not an address of a provider"),
        (["proxy", "--upstream", "http://127.0.0.1:9/v1", "--listen", "nowhere"], 2, "is not HOST:PORT"),
        (["proxy", "--upstream", "http://127.0.0.1:9/v1", "--budget", "calls=1,calls=2"], 2, "each once"),
        (["proxy", "--upstream", "http://127.0.0.1:9/v1", "--budget", "cost=null"], 2, "--budget 'cost=null'"),
        (["proxy", "--upstream", "http://127.0.0.1:9/v1", "--budget", "calls=-1"], 2, "calls=N, tokens=N"),
        (["proxy", "--upstream", "http://127.0.0.1:9/v1", "--log", "no/such/dir.db"], 1, "cannot be opened"),
        (["proxy", "--upstream", "http://127.0.0.1:9/v1", "--workers", "0"], 2, "0 is not in the range x>=1"),
        (["proxy", "--upstream", "example.com", "--workers", "2"], 2, "not an address of a provider"),
        (
            ["proxy", "--upstream", "http://127.0.0.1:9", "--workers", "2", "--log", "text.txt"],
            1,
            "not a cellmeter log",
        ),
        (["proxy", "--upstream", "http://127.0.0.1:9", "--workers", "2", "--prices", "no.toml"], 2, "no.toml"),
        (["tasks", "check", "nothing/*"], 2, "no task is named by nothing/*"),
        (["agents", "check", "nobody"], 2, "there is no agent named nobody"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "text.txt").write_text("no database\n" * 100)
    subprocess.run([sys.executable, "-c", "import sqlite3; sqlite3.connect('other.db').execute('create table t (a)')"],
                   cwd=tmp_path, check=True)  # fmt: skip
    (tmp_path / "malformed.toml").write_text('name = "x\n')
    (tmp_path / "unknown-agent.toml").write_text(SWEEP.replace("null", "aidr"))
    (tmp_path / "unknown-key.toml").write_text(SWEEP.replace("agents", "agent"))
    (tmp_path / "secret.toml").write_text(SWEEP + 'key_env = "sk-0123456789abcdefghijklmnop"\n')
    done = cellmeter(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert sentence in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "sk-0123456789" not in done.stderr


def test_an_unknown_methodology_lists_the_known_ones(demo_log: Path) -> None:
    done = cellmeter("score", str(demo_log), "--methodology", "best", cwd=demo_log.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cab-0.1" in done.stderr


def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = cellmeter("proxy", "--upstream", "http://127.0.0.1:9/v1", "--listen", listen, cwd=tmp_path)
    assert done.returncode == 1
    assert f"{listen} is in use" in done.stderr


@pytest.mark.parametrize("format_", ["json", "jsonl", "csv"])
def test_the_audit_and_the_scores_are_data_in_every_format(demo_log: Path, format_: str) -> None:
    audit = cellmeter("audit", str(demo_log), "--format", format_, cwd=demo_log.parent)
    score = cellmeter("score", str(demo_log), "--no-append", "--format", format_, cwd=demo_log.parent)
    assert (audit.returncode, audit.stderr, score.returncode, score.stderr) == (0, "", 0, "")
    if format_ == "json":
        calls, cells = json.loads(audit.stdout), json.loads(score.stdout)
        assert {"cell_id", "seq", "attempts", "prompt_tokens"} <= set(calls[0])
        assert {"cell_id", "methodology", "failure_class", "axes", "composite"} <= set(cells[0])
        assert len(cells) == 24
    else:
        assert len(audit.stdout.splitlines()) > 20


def test_a_log_can_come_from_stdin(demo_log: Path) -> None:
    connection = sqlite3.connect(demo_log)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    named = cellmeter("audit", str(demo_log), "--format", "csv", cwd=demo_log.parent)
    piped = cellmeter("audit", "-", "--format", "csv", cwd=demo_log.parent, stdin=demo_log.read_bytes())
    assert piped.stdout == named.stdout


def test_verify_ends_with_one_where_something_is_wrong(demo_log: Path, tmp_path: Path) -> None:
    assert cellmeter("verify", str(demo_log), cwd=tmp_path).returncode == 0
    with Log.create(tmp_path / "damaged.db") as log:
        log.append(Call(call_id="1", session="s", seq=2, writer="gone/1/1", started_at=1))
    done = cellmeter("verify", "damaged.db", "--format", "json", cwd=tmp_path)
    assert done.returncode == 1
    assert {finding["kind"] for finding in json.loads(done.stdout)} == {"sequence gap"}


def test_a_reader_that_has_had_enough_gets_no_complaint(demo_log: Path) -> None:
    program = " ".join(CELLMETER)
    done = subprocess.run(
        ["bash", "-c", f"{program} audit {demo_log} --format jsonl | head -n 1 >/dev/null"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A proxy process in front of a scripted provider that runs in another one."""
    provider = subprocess.Popen(
        [sys.executable, "-c", PROVIDER], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert provider.stdout is not None
    upstream = provider.stdout.readline().strip()
    log = tmp_path / "calls.db"
    process = subprocess.Popen(
        [*CELLMETER, "proxy", "--upstream", upstream, "--listen", "127.0.0.1:0", "--log", str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on http://127.0.0.1:")
    yield process, line.split()[-1], log
    for one in (process, provider):
        one.kill()
        one.communicate()


PROVIDER = """
import asyncio
from cellmeter_proxy.scripted import Script, ScriptedProvider, Turn

async def main():
    async with ScriptedProvider([Script(name="hello", turns=[Turn(content="hello from the provider")])]) as provider:
        print(provider.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_curl_and_the_openai_client_are_recorded_streamed_and_not(
    proxy: tuple[subprocess.Popen[str], str, Path],
) -> None:
    process, url, log = proxy
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    curl = subprocess.run(
        ["curl", "-sS", f"{url}/chat/completions", "-H", "Authorization: Bearer sk-curl-0123456789abcdef", "-d", body],
        capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    billed = [json.loads(curl.stdout)["usage"]["prompt_tokens"]]
    client = openai.OpenAI(base_url=url, api_key="sk-client-0123456789abcdefgh")
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert answer.usage is not None
    billed.append(answer.usage.prompt_tokens)
    stream = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello from the provider"
    assert chunks[-1].usage is not None
    billed.append(chunks[-1].usage.prompt_tokens)
    client.close()
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "cellmeter audit" in talk
    with Log.read(log) as reading:
        calls = list(reading.rows(Call))
    assert [(call.outcome, call.stream, call.prompt_tokens) for call in calls] == [
        ("ok", False, billed[0]),
        ("ok", False, billed[1]),
        ("ok", True, billed[2]),
    ]
    assert calls[1].session == calls[2].session != calls[0].session
    assert calls[2].ttft_ms is not None
    table = cellmeter("audit", str(log), cwd=log.parent)
    assert "3 calls" in table.stdout


async def test_a_provider_that_is_not_there_is_a_sentence_to_the_client_and_a_row(tmp_path: Path) -> None:
    async with ScriptedProvider([Script(name="x", turns=[Turn(content="x")])]) as provider:
        gone = provider.url
    async with serve(ProxyConfig(upstream=gone, log=tmp_path / "a.db")) as running:
        client = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="sk-0123456789abcdefghij", max_retries=0)
        with pytest.raises(openai.APIStatusError, match="cannot be reached") as caught:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        await client.close()
    assert caught.value.status_code == 502
    with Log.read(tmp_path / "a.db") as log:
        assert [call.outcome for call in log.rows(Call)] == ["upstream_unreachable"]
