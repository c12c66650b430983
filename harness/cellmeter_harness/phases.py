"""The phases of a cell before its end: prepare → run → collect → grade. Each works on the cell's state.

Invariants: the agent's workspace is read only when no process of the agent is alive; what is graded is a copy
of it, in a room that the agent never saw, with the pristine tests put back.
"""

import errno
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from cellmeter_harness.agent import Agent, expand, resolve_programs
from cellmeter_harness.grading import graded, grader, required_programs, within_guard
from cellmeter_harness.patch import make_patch
from cellmeter_harness.paths import Scratch
from cellmeter_harness.recorder import Recorder
from cellmeter_harness.sandbox import Command, Execution, Gate, Room, Sandbox, View
from cellmeter_harness.sweep import CellPlan
from cellmeter_harness.trace import OpenSpan, Trace
from cellmeter_harness.uninterrupted import in_thread
from cellmeter_harness.workspace import Snapshot, copy_tree, differences, open_up, overlay, snapshot
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import UNCOLLECTABLE, Grade, Reported, Workspace
from cellmeter_proxy.redact import Redactor

P = ParamSpec("P")
T = TypeVar("T")

PLUGIN_STACK: Final[list[str]] = []
BEHAVIOR_MODE: Final = "factory"
_OF_THE_MACHINE: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
"""What keeps a workspace from being read or copied and is not its own doing."""
_GIT_IDENTITY: Final = "[user]\n\tname = agent\n\temail = agent@localhost\n"
_GIT_DATE: Final = "2026-01-01T00:00:00Z"


class CellState:
    """What is known of one attempt at a cell, filled phase by phase."""

    def __init__(self, plan: CellPlan, attempt: int, sandbox: Sandbox, recorder: Recorder) -> None:
        self.plan = plan
        self.attempt = attempt
        self.sandbox = sandbox
        self.recorder = recorder
        self.trace = Trace(plan.cell_id, attempt)
        self.scratch: Scratch | None = None
        self.room: Room | None = None
        self.before: Snapshot | None = None
        self.key: str | None = None
        self.execution: Execution | None = None
        self.patch: bytes | None = None
        self.workspace: Workspace | None = None
        self.reported: Reported | None = None
        self.grading: Execution | None = None
        self.grade: Grade | None = None

    def redactor(self) -> Redactor:
        """Masks the cell's own key, however it is written."""
        return Redactor([self.key] if self.key else [])


async def prepare(state: CellState) -> None:
    """Lay out a fresh workspace from the task, and the agent's own directories."""
    plan = state.plan
    state.scratch = scratch = Scratch.create(f"{plan.agent.name}-{plan.task.id}")
    attrs = {
        "workdir": str(scratch.workspace),
        "task_category": plan.task.category,
        "plugin_stack": PLUGIN_STACK,
        "behavior_mode": BEHAVIOR_MODE,
    }
    with state.trace.span("task_setup", f"prepare:{plan.task.id}", attrs):
        left = await in_thread(copy_tree, plan.task.workdir, scratch.workspace)
        if left:
            raise CellmeterError(f"the task {plan.task.id} holds what cannot be given to an agent: {', '.join(left)}")
        in_workspace = plan.agent.home == "workspace"
        state.room = await in_thread(scratch.agent_room, plan.agent.directory, home_is_workspace=in_workspace)
        if not in_workspace:
            (state.room.home / ".gitconfig").write_text(_GIT_IDENTITY)
        state.before = await in_thread(snapshot, scratch.workspace)


async def run(state: CellState) -> None:
    """Let the agent do its work, or do what a control does instead."""
    plan, agent, room = state.plan, state.plan.agent, _present(state.room)
    attrs = {"timeout_s": plan.timeout_s, "plugin_stack": PLUGIN_STACK, "exit_code": None}
    with state.trace.span("adapter_run", f"{agent.name}:{plan.task.id}", attrs) as adapter:
        if agent.git != "none":
            await _give_git(state, room, adapter)
        with state.trace.span("tool_call", "applied_plugins", _applied_plugins(agent), adapter):
            pass
        if agent.kind == "oracle":
            await in_thread(overlay, plan.task.solution, room.workspace)
        elif agent.kind == "command":
            await _launch(state, room, adapter)
            adapter.attrs["exit_code"] = state.execution.exit_code if state.execution else None


async def collect(state: CellState) -> None:
    """Read what the agent left behind, and copy it for grading.

    Raises:
        CellmeterError: the workspace is such that it cannot be read; its sentence starts with ``UNCOLLECTABLE``.

    """
    scratch, before, workdir = _present(state.scratch), _present(state.before), state.plan.task.workdir
    state.reported = _reported(state)
    try:
        await in_thread(open_up, scratch.workspace)
        after = await in_thread(snapshot, scratch.workspace)
        state.workspace = differences(before, after)
        state.patch = await in_thread(make_patch, workdir, before, scratch.workspace, after)
        await in_thread(copy_tree, scratch.workspace, scratch.graded_workspace)
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise
        raise CellmeterError(f"{UNCOLLECTABLE}: {error.strerror or error}") from error


async def grade(state: CellState) -> None:
    """Put the pristine tests back and run the grader, in a fresh room; without a network, where the sandbox can."""
    task, scratch = state.plan.task, _present(state.scratch)
    with state.trace.span("grade", f"grade:{task.id}", {"timeout_s": task.grader.timeout_s}) as span:
        state.grading = await grader(task, state.sandbox, scratch)
        await within_guard(state.grading, task.grader.timeout_s, "the grader")
        state.grade = graded(task, state.grading)
        span.attrs |= {"exit_code": state.grading.exit_code, "timed_out": state.grading.timed_out}


def _reported(state: CellState) -> Reported | None:
    """The totals that the agent printed; a sum over output of which a part was dropped would be none."""
    totals, execution = state.plan.agent.reported, state.execution
    if totals is None or execution is None:
        return None
    output = execution.stdout if totals.stream == "stdout" else execution.stderr
    return None if output.dropped and totals.combine == "sum" else totals.read(output.text())


async def _launch(state: CellState, room: Room, adapter: OpenSpan) -> None:
    """Run the agent's command with a key of its own, which ends with it."""
    plan, agent = state.plan, state.plan.agent
    programs = resolve_programs(agent)
    gate = Gate(url=state.recorder.url, socket=state.recorder.socket_path)
    state.key = key = state.recorder.issue_key(plan.cell_id, state.attempt, plan.budget)
    try:
        values = _values(state.sandbox.view(room, gate), plan, key) | {n: str(path) for n, path in programs.items()}
        await in_thread(_lay_out, room.home, {name: expand(text, values) for name, text in agent.files.items()})
        argv = [*(expand(word, values) for word in agent.command), *(expand(word, values) for word in agent.extra_args)]
        command = Command(
            argv=argv,
            env={name: expand(value, values) for name, value in (agent.env | agent.extra_env).items()},
            timeout_s=plan.timeout_s,
            programs=[*programs.values(), *required_programs(plan.task).values()],
        )
        execution = state.execution = state.sandbox.execute(room, command, gate)
        attrs = {
            "image": None,
            "program": Path(argv[0]).name,
            "argv": [state.redactor().text(word)[0] for word in argv[1:]],
        }
        with state.trace.span(
            "container", f"{agent.name}:launch", attrs | {"timeout_s": plan.timeout_s}, adapter
        ) as span:
            try:
                await within_guard(execution, plan.timeout_s, "the agent")
            finally:
                span.duration_ms = execution.duration_ms
                duration_s = execution.duration_ms / 1000 if execution.duration_ms is not None else None
                span.attrs |= {
                    "exit_code": execution.exit_code,
                    "timed_out": execution.timed_out,
                    "duration_s": duration_s,
                }
    finally:
        state.recorder.revoke_key(key)


def _lay_out(home: Path, files: Mapping[str, str]) -> None:
    """Write the agent's settings into its HOME, where nothing of the agent has been yet."""
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _values(view: View, plan: CellPlan, key: str) -> dict[str, str]:
    return {
        "prompt": plan.task.description,
        "model": plan.model,
        "base_url": f"{view.api_root}/v1",
        "api_root": view.api_root,
        "api_key": key,
        "workspace": view.workspace,
        "home": view.home,
        "python": view.python,
        "agent_dir": view.agent_dir,
    }


async def _give_git(state: CellState, room: Room, adapter: OpenSpan) -> None:
    """An empty ``.git`` for agents that only look for one, or a repository with the task as its one commit."""
    marker = state.plan.agent.git == "marker"
    attrs = {"workdir": str(room.workspace)}
    with state.trace.span("task_setup", f"{state.plan.agent.name}:git-init-marker", attrs, adapter) as span:
        if marker:
            (room.workspace / ".git").mkdir()
        else:
            await in_thread(_commit_all, room)
        span.attrs["git_dir_exists"] = (room.workspace / ".git").is_dir()


def _commit_all(room: Room) -> None:
    config = room.tmp / "gitconfig"
    config.write_text(_GIT_IDENTITY)
    # Neither the user's settings nor the clock is part of what the agent is given.
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    env |= {"GIT_AUTHOR_DATE": _GIT_DATE, "GIT_COMMITTER_DATE": _GIT_DATE}
    for command in (["init", "-q", "-b", "main"], ["add", "-A", "-f"], ["commit", "-q", "--allow-empty", "-m", "Task"]):
        subprocess.run(["git", *command], cwd=room.workspace, env=env, check=True, capture_output=True)
    config.unlink()


def _applied_plugins(agent: Agent) -> dict[str, object]:
    return {
        "tui": agent.name,
        "count": 0,
        "applied": [],
        "env_keys": sorted(agent.extra_env),
        "extra_args": agent.extra_args,
        "applied_count": 0,
        "skipped_count": 0,
    }


def _present(value: T | None) -> T:
    if value is None:
        raise RuntimeError("a phase ran before the one that it builds on")
    return value
