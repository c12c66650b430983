"""``cellmeter doctor``: what this machine can do."""

import importlib.util
import platform
import shutil
import sqlite3
from importlib.metadata import version

import click
import msgspec

from cellmeter_harness.agent import builtin_agents
from cellmeter_harness.cli.agents import check_agent
from cellmeter_harness.cli.aio import run_async
from cellmeter_harness.cli.output import Column, Format, emit, format_option
from cellmeter_harness.sandbox import choose
from cellmeter_harness.task import builtin_tasks
from cellmeter_proxy.errors import CellmeterError


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing about this machine."""

    check: str
    ok: bool
    detail: str
    hint: str | None = None


@click.command()
@format_option
def doctor(format_: Format) -> None:
    """Say what this machine can do: isolation, toolchains, agents, versions."""
    rows = [*_versions(), _bubblewrap(), *_toolchains(), *run_async(_agents())]
    emit(
        rows,
        format_,
        [
            Column("check", lambda row: row.check),
            Column("ok", lambda row: "yes" if row.ok else "no"),
            Column("detail", lambda row: row.detail),
            Column("hint", lambda row: row.hint or ""),
        ],
    )


def _versions() -> list[Check]:
    uvloop = importlib.util.find_spec("uvloop") is not None
    return [
        Check(check="cellmeter", ok=True, detail=version("cellmeter")),
        Check(check="python", ok=True, detail=platform.python_version()),
        Check(check="sqlite", ok=True, detail=sqlite3.sqlite_version),
        Check(
            check="uvloop",
            ok=uvloop,
            detail=version("uvloop") if uvloop else "not installed: the proxy costs about a quarter more CPU",
            hint=None if uvloop else "pip install 'cellmeter[speed]'",
        ),
        Check(check="isolation: process", ok=True, detail="a temporary directory; keeps nothing from an agent"),
    ]


def _bubblewrap() -> Check:
    try:
        choose("bubblewrap")
    except CellmeterError as error:
        return Check(check="isolation: bubblewrap", ok=False, detail=error.message, hint=error.hint)
    return Check(check="isolation: bubblewrap", ok=True, detail="no network but the proxy, own processes and /tmp")


def _toolchains() -> list[Check]:
    needed: dict[str, list[str]] = {}
    for task in builtin_tasks():
        for program in task.requires:
            needed.setdefault(program, []).append(task.id)
    return [
        Check(
            check=f"program: {program}",
            ok=path is not None,
            detail=path or "not on PATH",
            hint=None if path else f"install it for {', '.join(tasks)}",
        )
        for program, tasks in sorted(needed.items())
        for path in [shutil.which(program)]
    ]


async def _agents() -> list[Check]:
    sandbox = choose("auto")
    checks = [await check_agent(agent, sandbox) for agent in builtin_agents()]
    return [
        Check(check=f"agent: {row.name}", ok=row.ok, detail=row.found_version or "not found", hint=row.problem)
        for row in checks
    ]
