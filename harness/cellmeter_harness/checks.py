"""The proof that a task is one: untouched its grader fails, with its solution it passes."""

import msgspec

from cellmeter_harness.grading import graded, grader, within_guard
from cellmeter_harness.paths import Scratch
from cellmeter_harness.sandbox import Sandbox
from cellmeter_harness.task import Task
from cellmeter_harness.uninterrupted import in_thread
from cellmeter_harness.workspace import copy_tree, overlay
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import Grade


class TaskCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a task's proof. None: the grader could not be run."""

    task_id: str
    ok: bool
    untouched_passed: bool | None = None
    solution_passed: bool | None = None
    problem: str | None = None


async def check_task(task: Task, sandbox: Sandbox) -> TaskCheck:
    """Grade a task's workdir as it is, and with its solution."""
    try:
        untouched = await _grade(task, sandbox, solved=False)
        solved = await _grade(task, sandbox, solved=True)
    except (CellmeterError, OSError) as error:
        return TaskCheck(task_id=task.id, ok=False, problem=str(error))
    return TaskCheck(
        task_id=task.id,
        ok=solved.passed and not untouched.passed,
        untouched_passed=untouched.passed,
        solution_passed=solved.passed,
        problem=_problem(untouched, solved),
    )


async def _grade(task: Task, sandbox: Sandbox, *, solved: bool) -> Grade:
    scratch = Scratch.create(f"check-{task.id}")
    try:
        await in_thread(copy_tree, task.workdir, scratch.graded_workspace)
        if solved:
            await in_thread(overlay, task.solution, scratch.graded_workspace)
        execution = await grader(task, sandbox, scratch)
        await within_guard(execution, task.grader.timeout_s, "the grader")
        return graded(task, execution)
    finally:
        await in_thread(scratch.remove)


def _problem(untouched: Grade, solved: Grade) -> str | None:
    if untouched.passed:
        return "the grader passes an untouched workspace"
    if solved.passed:
        return None
    if solved.timed_out:
        return "the grader did not end in time on the solution"
    if solved.exit_code == 0:
        return f"the grader passes the solution without saying: {'; '.join(solved.missing)}"
    said = (solved.stderr_tail or solved.stdout_tail).strip().splitlines()
    return f"the grader ends with {solved.exit_code} on the solution: {said[-1] if said else 'it says nothing'}"
