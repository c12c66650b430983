"""Grading: the pristine tests put back over a copy of a workspace, and the grader run on it.

It is given no way to the proxy, and in a sandbox that cuts the network off, no network.
"""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

from cellmeter_harness.agent import expand
from cellmeter_harness.paths import Scratch
from cellmeter_harness.sandbox import Command, Execution, Sandbox
from cellmeter_harness.sandbox.environment import search_path
from cellmeter_harness.task import Task
from cellmeter_harness.uninterrupted import in_thread
from cellmeter_harness.workspace import restore_tests
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import Grade

OUTER_GUARD_S: Final = 30.0
"""Beyond the time that a command is given: then it is given up, whatever the sandbox says."""
TAIL_CHARACTERS: Final = 4_096


async def grader(task: Task, sandbox: Sandbox, scratch: Scratch) -> Execution:
    """The execution of a task's grader on ``scratch.graded_workspace``, in a fresh room; it is still to be entered.

    Raises:
        CellmeterError: a program that the task needs is not here.

    """
    room = await in_thread(scratch.grading_room)
    await in_thread(restore_tests, task.tests, task.workdir, room.workspace)
    values = {"python": sandbox.view(room, None).python}
    command = Command(
        argv=[expand(word, values) for word in task.grader.command],
        timeout_s=task.grader.timeout_s,
        programs=list(required_programs(task).values()),
    )
    return sandbox.execute(room, command, None)


def required_programs(task: Task) -> dict[str, Path]:
    """Where the programs that a task needs are on this machine.

    Raises:
        CellmeterError: one of them is not here.

    """
    path = os.pathsep.join(str(entry) for entry in search_path(os.environ))
    found = {name: shutil.which(name, path=path) for name in task.requires}
    for name, place in found.items():
        if place is None:
            raise CellmeterError(f"the task {task.id} needs {name}, which is not on PATH", hint=f"install {name}")
    return {name: Path(place) for name, place in found.items() if place is not None}


async def within_guard(execution: Execution, timeout_s: float, who: str) -> None:
    """Enter an execution and wait for it, trusting the sandbox's own time limit only so far."""
    limit = timeout_s + OUTER_GUARD_S
    try:
        async with asyncio.timeout(limit), execution:
            await execution.wait()
    except TimeoutError:
        raise TimeoutError(f"{who} was given up after {limit:g} s (outer guard)") from None


def graded(task: Task, execution: Execution) -> Grade:
    """What a grader that has ended said."""
    stdout, stderr = execution.stdout.text(), execution.stderr.text()
    missing = [line for line in task.grader.require_stdout if line not in stdout]
    return Grade(
        exit_code=execution.exit_code,
        timed_out=execution.timed_out,
        stdout_tail=stdout[-TAIL_CHARACTERS:],
        stderr_tail=stderr[-TAIL_CHARACTERS:],
        passed=execution.exit_code == 0 and not execution.timed_out and not missing,
        missing=missing,
    )
