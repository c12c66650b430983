"""Provider scripts that solve a task, in the words of each kind of agent, made from the task's own solution.

One model answers every agent here; which words it uses follows from the request alone: the tools that are
offered, or the edit format that the system prompt asks for. The same request always gets the same answer.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cellmeter_proxy.record import Record
from cellmeter_proxy.scripted import Match, Script, ToolCall, Turn

REFERENCE_TOOLS: Final = ("read_file", "write_file", "run")

SHELL_ARGUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "bash": {"command": None, "description": "One step of the task"},
    "Bash": {"command": None, "description": "One step of the task"},
    "exec_command": {"cmd": None},
    "run_shell_command": {"command": None, "is_background": False},
}
"""Shell tools by name, as opencode, pi, Copilot and mini-swe-agent; Claude Code; codex; and qwen-code offer them.
None is the place of the command."""

MINI_SWE_AGENT_END: Final = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
"""The command that mini-swe-agent is ended by; a plain answer is an error to it."""

AIDER_WHOLE_FILES: Final = "You MUST use this *file listing* format"
AIDER_REPOSITORY_MAP: Final = "Here are summaries of some files present in my git repository"

BACKGROUND: Final = Script(name="background", turns=[Turn(content="Work on the task")])
"""Answers what no task's script does: titles, summaries and other calls that agents make beside the work."""


class ScriptedTask(Record, frozen=True, kw_only=True):
    """What a script needs to know of a task."""

    task_id: str
    description: str
    workdir: Path
    solution: Path


def provider_scripts(tasks: Iterable[ScriptedTask]) -> list[Script]:
    """Scripts for all the tasks, for every kind of agent, and for their background calls."""
    return [script for task in tasks for script in task_scripts(task)] + [BACKGROUND]


def task_scripts(task: ScriptedTask) -> list[Script]:
    """Scripts that solve one task.

    Raises:
        OSError: if the workdir or the solution cannot be read.

    """
    change = _Change.of(task)
    shells = [_script(task, name, _shell(change, name), tools=[name]) for name in SHELL_ARGUMENTS]
    whole_files = Turn(content=_listing(change))
    named = Turn(content="These files need to change:\n\n" + "\n".join(change.existing) + "\n")
    mapped = [named, whole_files] if change.existing else [whole_files]
    return [
        _script(task, "reference", _reference(change), tools=REFERENCE_TOOLS),
        _script(task, "mini-swe-agent", _shell(change, "bash", end=MINI_SWE_AGENT_END), texts=[MINI_SWE_AGENT_END]),
        *shells,
        _script(task, "aider", mapped, texts=[AIDER_WHOLE_FILES, AIDER_REPOSITORY_MAP]),
        _script(task, "aider-without-map", [whole_files], texts=[AIDER_WHOLE_FILES]),
    ]


class _Change(Record, frozen=True, kw_only=True):
    """What the solution does to the workspace."""

    files: dict[str, str]
    """New content by path."""
    existing: Sequence[str]
    """Those of the paths that are there already."""
    test_command: str | None
    """The last command that the README shows."""

    @classmethod
    def of(cls, task: ScriptedTask) -> "_Change":
        paths = sorted(path for path in task.solution.rglob("*") if path.is_file())
        files = {path.relative_to(task.solution).as_posix(): path.read_text(encoding="utf-8") for path in paths}
        readme = (task.workdir / "README.md").read_text(encoding="utf-8")
        commands = re.findall(r"^ {4}(\S.*)$", readme, re.MULTILINE)
        existing = [path for path in files if (task.workdir / path).exists()]
        return cls(files=files, existing=existing, test_command=commands[-1] if commands else None)

    @property
    def closing(self) -> str:
        return f"Done: {', '.join(self.files)}."


def _script(
    task: ScriptedTask, kind: str, turns: Sequence[Turn], *, tools: Sequence[str] = (), texts: Sequence[str] = ()
) -> Script:
    match = Match(task=task.description, tools=tools, texts=texts)
    return Script(name=f"{task.task_id}/{kind}", match=match, turns=turns)


def _reference(change: _Change) -> list[Turn]:
    """Read the task, look, write, test, say so: in the reference agent's tools."""
    reads = [ToolCall(name="read_file", arguments={"path": path}) for path in change.existing]
    look = reads or [ToolCall(name="run", arguments={"command": "find . -type f"})]
    writes = [
        ToolCall(name="write_file", arguments={"path": path, "content": text}) for path, text in change.files.items()
    ]
    tests = [ToolCall(name="run", arguments={"command": change.test_command})] if _tests(change) else []
    steps = [[ToolCall(name="read_file", arguments={"path": "README.md"})], look, writes, tests]
    opening = Turn(content="I read the task first.", tool_calls=steps[0])
    return [opening, *(Turn(tool_calls=calls) for calls in steps[1:] if calls), Turn(content=change.closing)]


def _shell(change: _Change, tool: str, end: str | None = None) -> list[Turn]:
    """The same, for an agent whose one tool of use is a shell; ``end`` is a command to close with, not a text."""
    writes = "\n".join(_write_command(path, text) for path, text in change.files.items())
    commands = ["cat README.md", writes, *([change.test_command] if _tests(change) else []), end]
    calls = [ToolCall(name=tool, arguments=_arguments(tool, command)) for command in commands if command]
    closing = [] if end else [Turn(content=change.closing)]
    return [*(Turn(tool_calls=[call]) for call in calls), *closing]


def _tests(change: _Change) -> bool:
    """Where nothing that exists is changed, a refusal was written, and there is nothing to test."""
    return bool(change.existing and change.test_command)


def _arguments(tool: str, command: str) -> dict[str, Any]:
    return {key: command if value is None else value for key, value in SHELL_ARGUMENTS[tool].items()}


def _write_command(path: str, text: str) -> str:
    newline = "" if text.endswith("\n") else "\n"
    return f"cat > {shlex.quote(path)} <<'END_OF_FILE'\n{text}{newline}END_OF_FILE"


def _listing(change: _Change) -> str:
    """The whole-file format of aider: the path alone on a line, then the file in a fence."""
    listings = [f"{path}\n```\n{text.rstrip()}\n```\n" for path, text in change.files.items()]
    return "\n".join(["This is the change:\n", *listings])
