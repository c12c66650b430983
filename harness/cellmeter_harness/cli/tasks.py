"""``cellmeter tasks``: the corpus, and the proof that each task fails untouched and passes solved."""

import click
import msgspec

from cellmeter_harness.checks import TaskCheck, check_task
from cellmeter_harness.cli.aio import run_async
from cellmeter_harness.cli.output import Column, Format, emit, format_option, stderr_console
from cellmeter_harness.sandbox import choose
from cellmeter_harness.task import Task, builtin_tasks, find_tasks


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """One task."""

    task_id: str
    language: str
    description: str
    expected_refusal: bool
    requires: list[str]
    timeout_s: float
    digest: str


@click.group()
def tasks() -> None:
    """List the tasks, or prove them."""


@tasks.command("list")
@click.argument("patterns", nargs=-1)
@format_option
def list_tasks(patterns: tuple[str, ...], format_: Format) -> None:
    """List tasks: all built-in ones, or those that globs over ids or paths (./dir) name."""
    rows = [
        TaskRow(
            task_id=task.id,
            language=task.language,
            description=task.description,
            expected_refusal=task.expected_refusal,
            requires=task.requires,
            timeout_s=task.timeout_s,
            digest=task.digest,
        )
        for task in _chosen(patterns)
    ]
    emit(
        rows,
        format_,
        [
            Column("task", lambda row: row.task_id),
            Column("language", lambda row: row.language),
            Column("needs", lambda row: ", ".join(row.requires) or "–"),
            Column("refusal", lambda row: "expected" if row.expected_refusal else ""),
            Column("description", lambda row: row.description),
        ],
    )


@tasks.command("check")
@click.argument("patterns", nargs=-1)
@click.option("--isolation", type=click.Choice(["auto", "bubblewrap", "process"]), default="auto", show_default=True)
@format_option
def check_tasks(patterns: tuple[str, ...], isolation: str, format_: Format) -> int:
    """Prove tasks: untouched they fail, with their solution they pass."""
    sandbox = choose(isolation)

    async def prove() -> list[TaskCheck]:
        rows = []
        for task in _chosen(patterns):
            stderr_console().print(f"checking {task.id}")
            rows.append(await check_task(task, sandbox))
        return rows

    rows = run_async(prove())
    emit(
        rows,
        format_,
        [
            Column("task", lambda row: row.task_id),
            Column("ok", lambda row: "yes" if row.ok else "no"),
            Column("untouched", lambda row: _verdict(row.untouched_passed)),
            Column("solved", lambda row: _verdict(row.solution_passed)),
            Column("problem", lambda row: row.problem or ""),
        ],
    )
    return 0 if all(row.ok for row in rows) else 1


def _chosen(patterns: tuple[str, ...]) -> list[Task]:
    return find_tasks(patterns) if patterns else builtin_tasks()


def _verdict(passed: bool | None) -> str:
    return "–" if passed is None else "passes" if passed else "fails"
