"""Scripts made from the built-in tasks, run against what each kind of agent sends."""

import asyncio
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import cellmeter_harness
from cellmeter_harness.scripts import BACKGROUND, ScriptedTask, provider_scripts, task_scripts
from cellmeter_proxy.scripted import Asked, Message, Script, ScriptedProvider, Turn
from cellmeter_proxy.scripted.asked import Role
from cellmeter_proxy.scripted.script import choose

PACKAGE = Path(cellmeter_harness.__file__).parent
AIDER = "You MUST use this *file listing* format:\n\npath/to/filename.js\n"
MAP = "Here are summaries of some files present in my git repository.\n\nsrc/lib.rs:\n"


def scripted(task: str) -> ScriptedTask:
    directory = PACKAGE / "tasks" / task
    description = tomllib.loads((directory / "task.toml").read_text())["description"]
    return ScriptedTask(
        task_id=task, description=description, workdir=directory / "workdir", solution=directory / "solution"
    )


TASKS = [
    scripted(path.parent.relative_to(PACKAGE / "tasks").as_posix()) for path in PACKAGE.glob("tasks/*/*/task.toml")
]
SORT, RUST = scripted("mutations/python-comparator-swap"), scripted("mutations/rust-error-negated")
REFUSAL = scripted("integrity/unsolvable-refusal")


def asked(*messages: tuple[Role, str], tools: tuple[str, ...] = ()) -> Asked:
    said = [Message(role=role, text=text) for role, text in messages]
    return Asked(dialect="chat.completions", model="m", messages=said, tools=tools)


def answer(request: Asked) -> tuple[Script, Turn]:
    script = choose(provider_scripts(TASKS), request)
    assert script is not None
    return script, script.turns[script.turn_number(request, answered=0)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.task_id)
def test_each_task_is_told_by_its_description(task: ScriptedTask) -> None:
    for tools, kind in ((("read_file", "write_file", "run"), "reference"), (("glob", "bash"), "bash")):
        script, _ = answer(asked(("user", f'"{task.description}"'), tools=tools))
        assert script.name == f"{task.task_id}/{kind}"


def test_the_reference_agent_gets_reads_then_writes_then_the_readmes_test_command() -> None:
    reference = task_scripts(SORT)[0]
    steps = [[(call.name, *call.arguments.values()) for call in turn.tool_calls] for turn in reference.turns]
    solution = (SORT.solution / "src" / "sorter.py").read_text()
    assert steps == [
        [("read_file", "README.md")],
        [("read_file", "src/sorter.py")],
        [("write_file", "src/sorter.py", solution)],
        [("run", "python3 -B -m unittest discover -s tests")],
        [],
    ]
    assert reference.turns[-1].content == "Done: src/sorter.py."


def test_a_refusal_is_written_and_not_tested() -> None:
    reference = task_scripts(REFUSAL)[0]
    assert [turn.tool_calls[0].name for turn in reference.turns[:-1]] == ["read_file", "run", "write_file"]
    assert reference.turns[1].tool_calls[0].arguments == {"command": "find . -type f"}


def test_aider_is_given_the_file_name_and_then_the_whole_file() -> None:
    opening: list[tuple[Role, str]] = [
        ("system", AIDER),
        ("assistant", "Ok."),
        ("user", MAP),
        ("user", RUST.description),
    ]
    script, first = answer(asked(*opening))
    _, second = answer(asked(*opening, ("assistant", first.content), ("user", "I added these files")))
    assert script.name == "mutations/rust-error-negated/aider"
    assert first.content == "These files need to change:\n\nsrc/lib.rs\n"
    whole = (RUST.solution / "src" / "lib.rs").read_text()
    assert second.content == f"This is the change:\n\nsrc/lib.rs\n```\n{whole}```\n"


def test_aider_without_a_repository_map_is_given_the_whole_file_at_once() -> None:
    _, turn = answer(asked(("system", AIDER), ("user", RUST.description)))
    assert "src/lib.rs\n```\n" in turn.content


def test_aider_is_given_a_new_document_at_once() -> None:
    _, turn = answer(asked(("system", AIDER), ("user", MAP), ("user", REFUSAL.description)))
    assert turn.content.startswith("This is the change:\n\nREFUSAL.md\n```\n# Refusal\n")


def test_calls_beside_the_work_get_a_short_plain_answer() -> None:
    script, turn = answer(asked(("system", "You are a title generator"), ("user", RUST.description)))
    assert script == BACKGROUND
    assert (turn.content, list(turn.tool_calls)) == ("Work on the task", [])


@pytest.mark.parametrize(("tool", "key"), [("bash", "command"), ("exec_command", "cmd"), ("Bash", "command")])
async def test_a_shell_agent_writes_the_solution_byte_for_byte(tool: str, key: str, tmp_path: Path) -> None:
    shutil.copytree(RUST.workdir, tmp_path, dirs_exist_ok=True)
    script, _ = answer(asked(("user", RUST.description), tools=(tool,)))
    for turn in script.turns[:2]:
        [call] = turn.tool_calls
        process = await asyncio.create_subprocess_shell(
            call.arguments[key], cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
    assert (tmp_path / "src" / "lib.rs").read_bytes() == (RUST.solution / "src" / "lib.rs").read_bytes()
    assert script.turns[2].tool_calls[0].arguments[key].startswith("cargo test")


def test_mini_swe_agent_is_ended_by_the_command_that_its_prompt_names() -> None:
    rules = f"{RUST.description}\n\nWhen you are done: `echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT`"
    script, _ = answer(asked(("user", rules), tools=("bash",)))
    commands = [call.arguments["command"] for turn in script.turns for call in turn.tool_calls]
    assert len(commands) == len(script.turns)
    assert commands[-1] == "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
    assert commands[-2].startswith("cargo test")


async def test_the_reference_agent_solves_a_task_with_them(tmp_path: Path) -> None:
    shutil.copytree(SORT.workdir, tmp_path, dirs_exist_ok=True)
    agent = PACKAGE / "agents" / "reference" / "agent.py"
    async with ScriptedProvider(provider_scripts(TASKS)) as provider:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(agent), "--base-url", provider.url, "--model", "m", SORT.description),
            cwd=tmp_path,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0
    assert [(row.script, row.turn) for row in provider.ledger] == [(f"{SORT.task_id}/reference", i) for i in range(5)]
    assert (tmp_path / "src" / "sorter.py").read_text() == (SORT.solution / "src" / "sorter.py").read_text()
    assert b"exit code 0\\n" in provider.ledger[-1].body
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["AGENTS.md", "README.md", "src/sorter.py", "tests/test_sorter.py"]


async def test_claude_and_codex_shaped_requests_are_understood() -> None:
    text = SORT.description
    claude: dict[str, Any] = {
        "model": "m",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "You are an agent"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": text}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": text}]},
        ],
        "tools": [{"name": "Bash", "input_schema": {}}],
    }
    codex: dict[str, Any] = {
        "model": "m",
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be good"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "c", "name": "exec_command", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": text},
        ],
        "tools": [{"type": "function", "name": "exec_command"}, {"type": "web_search"}],
    }
    async with ScriptedProvider(provider_scripts(TASKS)) as provider, aiohttp.ClientSession() as client:
        async with client.post(f"{provider.url}/messages", json=claude) as response:
            [block] = (await response.json())["content"]
        async with client.post(f"{provider.url}/responses", json=codex) as response:
            [item] = (await response.json())["output"]
    assert "cat > src/sorter.py" in block["input"]["command"]
    assert "cat > src/sorter.py" in item["arguments"]
    assert [row.turn for row in provider.ledger] == [1, 1]
