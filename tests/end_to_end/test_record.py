"""``cellmeter record`` as it is typed: real commands, a real terminal, real signals."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.scripted import Script, ScriptedProvider, Turn
from cellmeter_proxy.testing import LiteralProvider
from cellmeter_scoring import audit, verify

RECORD = [sys.executable, "-m", "cellmeter_harness", "record"]
KEY = "sk-own-key-0123456789abcdefgh"
CURL = """curl -sS "$OPENAI_BASE_URL/chat/completions" -H "Authorization: Bearer $OPENAI_API_KEY" \
-d '{"model":"m","messages":[{"role":"user","content":"hi"}]}'"""
CURL_MESSAGES = """curl -sS "$ANTHROPIC_BASE_URL/v1/messages" -H "x-api-key: $OPENAI_API_KEY" \
-d '{"model":"c","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'"""
CLIENT = """
import openai
client = openai.OpenAI()
chunks = client.chat.completions.create(
    model="m", messages=[{"role": "user", "content": "hi"}], stream=True, stream_options={"include_usage": True}
)
print("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
"""
# A terminal of its own for the command, fed from stdin and shown on stdout.
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
AT_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: print("caught", flush=True))
print("terminal", [os.isatty(fd) for fd in range(3)], os.tcgetpgrp(0) == os.getpgrp(), flush=True)
print("line", input(), flush=True)
sys.exit(3)
"""


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider(
        [Script(name="x", turns=[Turn(content="hello from the provider")])], key=KEY
    ) as running:
        yield running


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith(("_proxy", "_url", "_base"))}
    return {**kept, "OPENAI_API_KEY": KEY, **changes}


async def start(
    arguments: list[str], cwd: Path, changes: Mapping[str, str] = MappingProxyType({}), *, before: Sequence[str] = ()
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *before,
        *RECORD,
        *arguments,
        cwd=cwd,
        env=environment(changes),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def run(arguments: list[str], cwd: Path, **changes: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``cellmeter record`` with these arguments."""
    process = await start(arguments, cwd, changes)
    out, err = await asyncio.wait_for(process.communicate(b"typed"), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def until(process: asyncio.subprocess.Process, text: bytes) -> bytes:
    assert process.stdout is not None
    return await asyncio.wait_for(process.stdout.readuntil(text), 30)


def calls(cwd: Path) -> list[Call]:
    with Log.read(cwd / "cellmeter.db") as log:
        return list(log.rows(Call))


async def test_a_command_is_recorded_with_its_own_key_and_its_own_output(
    tmp_path: Path, provider: ScriptedProvider
) -> None:
    script = f"cat; {CURL}; {CURL_MESSAGES} >/dev/null; exit 7"
    code, out, err = await run(["--upstream", provider.url, "--session", "try", "--", "sh", "-c", script], tmp_path)
    assert code == 7
    assert out.startswith("typed")
    assert json.loads(out.removeprefix("typed"))["choices"][0]["message"]["content"] == "hello from the provider"
    assert "2 calls" in err
    assert "cellmeter audit cellmeter.db --session try" in err
    assert [(call.session, call.seq, call.dialect, call.outcome) for call in calls(tmp_path)] == [
        ("try", 1, "chat.completions", "ok"),
        ("try", 2, "messages", "ok"),
    ]
    billed = [served.billed.prompt_tokens for served in provider.ledger if served.billed is not None]
    assert [call.prompt_tokens for call in calls(tmp_path)] == billed
    assert KEY not in err
    assert verify(tmp_path / "cellmeter.db") == []
    # A second run of that name is a session of its own, and the audit is of that run alone.
    code, _, err = await run(["--upstream", provider.url, "--session", "try", "sh", "-c", CURL], tmp_path)
    assert code == 0
    assert "session try@2" in err
    assert "1 call" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cellmeter.db"]


async def test_each_provider_of_the_environment_gets_its_own_calls_on_one_log(
    tmp_path: Path, provider: ScriptedProvider
) -> None:
    async with ScriptedProvider([Script(name="y", turns=[Turn(content="another")])]) as other:
        code, _, err = await run(
            ["sh", "-c", f"{CURL} & {CURL_MESSAGES}; wait"],
            tmp_path,
            OPENAI_API_BASE=provider.url,
            ANTHROPIC_BASE_URL=other.url.removesuffix("/v1"),
        )
        assert code == 0, err
        assert [len(provider.ledger), len(other.ledger)] == [1, 1]
    recorded = calls(tmp_path)
    assert {call.upstream: call.dialect for call in recorded} == {
        provider.url: "chat.completions",
        other.url.removesuffix("/v1"): "messages",
    }
    assert len({call.session for call in recorded}) == 1
    assert sorted(call.seq or 0 for call in recorded) == [1, 2]
    assert recorded[0].session.startswith("sh-")


async def test_the_openai_client_and_the_reference_agent_need_no_telling(
    tmp_path: Path, provider: ScriptedProvider
) -> None:
    agent = str(files("cellmeter_harness") / "agents" / "reference" / "agent.py")
    both = f'"$PY" -c "$CLIENT" && "$PY" {agent} --model m "say hello"'
    code, out, err = await run(
        ["--upstream", provider.url, "sh", "-c", both], tmp_path, PY=sys.executable, CLIENT=CLIENT
    )
    assert code == 0, err
    assert out.startswith("hello from the provider\n")
    found = audit(tmp_path / "cellmeter.db")
    assert [call.stream for call in found.calls] == [True, True]
    last = found.calls[-1]
    assert f"tokens: prompt={last.prompt_tokens} completion={last.completion_tokens}" in out


async def test_a_command_that_is_killed_passes_its_signal_on_and_its_calls_are_audited(
    tmp_path: Path, provider: ScriptedProvider
) -> None:
    (tmp_path / "prices.toml").write_text("[[price]]\ninput = 1000\noutput = 0\n")
    arguments = ["--upstream", provider.url, "--prices", "prices.toml", "sh", "-c", f"{CURL}; kill -9 $$"]
    code, _, err = await run(arguments, tmp_path)
    assert code == 137
    assert "1 call" in err
    (call,) = calls(tmp_path)
    assert call.prompt_tokens is not None
    assert call.cost == pytest.approx(call.prompt_tokens / 1000)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_that_no_terminal_sent_reaches_the_command(tmp_path: Path, number: signal.Signals) -> None:
    program = f"import signal, sys\nsignal.signal({int(number)}, lambda *_: sys.exit(5))\nprint('up', flush=True)\n"
    # In small pieces: one that comes just before a wait begins is answered only after it.
    process = await start([sys.executable, "-c", program + "import time\nwhile True: time.sleep(0.05)"], tmp_path)
    await until(process, b"up\n")
    process.send_signal(number)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 5
    assert b"no model call was recorded" in err
    assert b"OPENAI_BASE_URL" in err


async def test_a_command_has_the_terminal_to_itself_and_gets_its_interrupt_once(tmp_path: Path) -> None:
    process = await start([sys.executable, "-c", AT_TERMINAL], tmp_path, before=[sys.executable, "-c", TERMINAL])
    assert process.stdin is not None
    assert b"terminal [True, True, True] True" in await until(process, b"\n")
    process.stdin.write(b"\x03")
    await until(process, b"caught\r\n")
    process.stdin.write(b"ann\n")
    await process.stdin.drain()
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 3
    assert b"line ann" in out
    assert b"caught" not in out
    assert out.index(b"no model call was recorded") > out.index(b"line ann")


async def test_an_interrupt_at_the_terminal_ends_the_command_and_then_comes_the_audit(
    tmp_path: Path, provider: ScriptedProvider
) -> None:
    script = f"{CURL} >/dev/null; echo up; exec sleep 60"
    arguments = ["--upstream", provider.url, "sh", "-c", script]
    process = await start(arguments, tmp_path, before=[sys.executable, "-c", TERMINAL])
    await until(process, b"up\r\n")
    assert process.stdin is not None
    process.stdin.write(b"\x03")
    await process.stdin.drain()
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130
    assert b"1 call" in out


async def test_signals_that_were_ignored_stay_ignored(tmp_path: Path) -> None:
    show = "import signal; print(signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGINT))"
    nohup = ["sh", "-c", 'trap "" HUP INT; exec "$@"', "sh"]
    process = await start([sys.executable, "-c", show], tmp_path, before=nohup)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert out.decode().split() == [str(signal.SIG_IGN)] * 2


async def test_the_provider_is_reached_by_the_proxy_of_the_network(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    async with LiteralProvider([answer]) as network:
        code, out, _ = await run(
            ["sh", "-c", CURL],
            tmp_path,
            HTTP_PROXY=network.url.removesuffix("/v1"),
            http_proxy=network.url.removesuffix("/v1"),
            OPENAI_BASE_URL="http://provider.invalid/v1",
        )
    assert (code, out) == (0, "{}")
    assert network.received[0].startswith(b"POST http://provider.invalid/v1/chat/completions HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["no-such-program"], 127, "there is no program no-such-program"),
        (["./not-a-program"], 126, "./not-a-program is not a program that may be run"),
        (["./no-interpreter"], 126, "./no-interpreter cannot be run"),
        (["--session", "a/b", "true"], 2, "is not a name for a session"),
        (["--upstream", "nowhere", "true"], 2, "--upstream: the upstream 'nowhere' is not an address of a provider"),
        (["--log", "no/such/dir.db", "true"], 1, "cannot be opened"),
        ([], 2, "Missing argument"),
    ],
)
async def test_what_cannot_be_run_is_said_in_a_sentence(
    tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "not-a-program").write_text("text")
    (tmp_path / "no-interpreter").write_text("#!/no/such/interpreter\n")
    (tmp_path / "no-interpreter").chmod(0o755)
    returned, out, err = await run(arguments, tmp_path)
    assert (returned, out) == (code, "")
    assert sentence in err
    assert "Traceback" not in err
