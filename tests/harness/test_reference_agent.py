"""The reference agent as the process that it is, against the scripted provider."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cellmeter_harness
from cellmeter_proxy.scripted import Fault, Script, ScriptedProvider, Served, ToolCall, Turn

AGENT = Path(cellmeter_harness.__file__).parent / "agents" / "reference" / "agent.py"


class Ran(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str
    ledger: list[Served]

    @property
    def messages(self) -> Any:
        """The conversation as it stood in the last request."""
        return json.loads(self.ledger[-1].body)["messages"]


async def run(turns: Sequence[Turn], workspace: Path, *options: str, key: str | None = "sk-test") -> Ran:
    async with ScriptedProvider([Script(name="s", turns=turns)], key="sk-test") as provider:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(AGENT),
            *("--model", "m", *options, "Fix it"),
            cwd=workspace,
            env={"PATH": os.environ["PATH"], "OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": key or ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await asyncio.wait_for(process.communicate(), 20)
    return Ran(process.returncode or 0, stdout.decode(), stderr.decode(), provider.ledger)


def calling(name: str, **arguments: str) -> Turn:
    return Turn(tool_calls=[ToolCall(name=name, arguments=arguments)])


@pytest.mark.parametrize("options", [[], ["--no-stream"]])
async def test_it_reads_writes_runs_and_stops(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Say hello in a/b.txt")
    turns = [
        calling("read_file", path="README.md"),
        calling("write_file", path="a/b.txt", content="hello\n"),
        Turn(content="Both.", tool_calls=[ToolCall(name="run", arguments={"command": "cat a/b.txt; exit 3"})] * 2),
        Turn(content="Done."),
    ]
    ran = await run(turns, tmp_path, *options)
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert (tmp_path / "a" / "b.txt").read_text() == "hello\n"
    results = [message["content"] for message in ran.messages if message["role"] == "tool"]
    assert results == ["Say hello in a/b.txt", "wrote 6 characters to a/b.txt", *["exit code 3\nhello\n"] * 2]
    assert [message["role"] for message in ran.messages][:3] == ["system", "user", "assistant"]
    assert "README.md" in ran.messages[1]["content"]
    assert ran.messages[1]["content"].startswith("Fix it\n")
    assert [row.stream for row in ran.ledger] == [not options] * 4


async def test_its_totals_are_what_the_provider_billed(tmp_path: Path) -> None:
    ran = await run([calling("run", command="true"), Turn(content="Done.")], tmp_path)
    billed = [row.billed for row in ran.ledger if row.billed]
    prompt, completion = (sum(getattr(b, f"{kind}_tokens") for b in billed) for kind in ("prompt", "completion"))
    assert ran.stdout.endswith(f"Done.\ntokens: prompt={prompt} completion={completion}\n")
    assert re.search(r"tokens: prompt=(?P<prompt>\d+) completion=(?P<completion>\d+)", ran.stdout)


async def test_a_total_with_a_hole_in_it_is_unknown(tmp_path: Path) -> None:
    ran = await run([calling("run", command="true"), Turn(content="Done.", show_usage="absent")], tmp_path)
    assert ran.stdout.endswith("tokens: prompt=unknown completion=unknown\n")


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_it_waits_as_it_is_told_and_says_how_often_it_tried(status: int, tmp_path: Path) -> None:
    fault = Fault(status=status, retry_after="0.05", times=2, counted_by="retry_count")
    ran = await run([Turn(content="Done.", fault=fault)], tmp_path)
    assert ran.exit_code == 0
    assert [(row.status, row.retry_number) for row in ran.ledger] == [(status, 0), (status, 1), (200, 2)]
    assert ran.stderr.count(" in 0.1 s: ") == 2
    assert ran.ledger[0].body == ran.ledger[2].body


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_after=2, times=1),
        Fault(truncate_after=2, times=1),
        Fault(error_after=2, times=1),
    ],
)
async def test_half_an_answer_is_asked_for_again(fault: Fault, tmp_path: Path) -> None:
    ran = await run([Turn(content="Done, in a good many words.", fault=fault)], tmp_path)
    assert ran.exit_code == 0
    assert ran.stdout.startswith("Done, in a good many words.\n")
    assert len(ran.ledger) == 2


async def test_it_gives_up_after_its_retries(tmp_path: Path) -> None:
    fault = Fault(status=429, retry_after="0")
    ran = await run([Turn(fault=fault)], tmp_path, "--max-retries", "2")
    assert ran.exit_code == 1
    assert ran.stderr.splitlines()[-1].startswith("reference agent: the model did not answer in 3 tries: ")
    assert len(ran.ledger) == 3


async def test_it_stops_at_once_on_an_error_of_its_own(tmp_path: Path) -> None:
    ran = await run([Turn(content="Done.")], tmp_path, key="sk-wrong")
    assert ran.exit_code == 1
    assert ran.stderr.startswith("reference agent: the provider answered 401: ")
    assert len(ran.ledger) == 1
    assert "sk-wrong" not in ran.stdout + ran.stderr


async def test_it_ends_a_loop_that_does_not_end(tmp_path: Path) -> None:
    ran = await run([calling("run", command="true")], tmp_path, "--max-turns", "3")
    assert (ran.exit_code, len(ran.ledger)) == (1, 3)
    assert ran.stderr == "reference agent: the model was not done after 3 turns\n"


async def test_a_tool_call_that_fails_is_told_to_the_model(tmp_path: Path) -> None:
    turns = [calling("read_file", path="absent"), calling("fly"), calling("run", cmd="ls"), Turn(content="Done.")]
    ran = await run(turns, tmp_path)
    results = [message["content"] for message in ran.messages if message["role"] == "tool"]
    assert ran.exit_code == 0
    assert [result.split(":")[1].strip() for result in results] == ["FileNotFoundError", "KeyError", "TypeError"]


async def test_a_child_that_outlives_its_command_does_not_hold_the_agent(tmp_path: Path) -> None:
    ran = await run([calling("run", command="sleep 5 & echo started"), Turn(content="Done.")], tmp_path)
    assert ran.messages[-1]["content"] == "exit code 0\nstarted\n"


def test_it_needs_nothing_but_the_standard_library() -> None:
    imported = set(re.findall(r"^(?:import|from) (\w+)", AGENT.read_text(), re.MULTILINE))
    assert imported <= sys.stdlib_module_names
