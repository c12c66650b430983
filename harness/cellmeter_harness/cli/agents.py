"""``cellmeter agents``: the agents that a sweep can name, and whether they can run here."""

import subprocess

import click
import msgspec

from cellmeter_harness.agent import Agent, builtin_agents, expand_version_command, find_agent
from cellmeter_harness.cli.output import Column, Format, emit, format_option
from cellmeter_proxy.errors import CellmeterError


class AgentRow(msgspec.Struct, frozen=True, kw_only=True):
    """One agent."""

    name: str
    version: str
    kind: str
    description: str
    digest: str


class AgentCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one agent can run here."""

    name: str
    version: str
    found_version: str | None
    ok: bool
    problem: str | None


@click.group()
def agents() -> None:
    """List the agents, or check that they can run here."""


@agents.command("list")
@format_option
def list_agents(format_: Format) -> None:
    """List the agents that ship with cellmeter."""
    rows = [
        AgentRow(name=a.name, version=a.version, kind=a.kind, description=a.description, digest=a.digest)
        for a in builtin_agents()
    ]
    emit(
        rows,
        format_,
        [
            Column("agent", lambda row: row.name),
            Column("version", lambda row: row.version),
            Column("kind", lambda row: row.kind),
            Column("description", lambda row: row.description),
        ],
    )


@agents.command("check")
@click.argument("names", nargs=-1)
@format_option
def check_agents(names: tuple[str, ...], format_: Format) -> int:
    """Find the programs of agents (all built-in ones, or those named) and compare their versions."""
    chosen = [find_agent(name) for name in names] if names else builtin_agents()
    rows = [check_agent(agent) for agent in chosen]
    emit(
        rows,
        format_,
        [
            Column("agent", lambda row: row.name),
            Column("ok", lambda row: "yes" if row.ok else "no"),
            Column("manifest", lambda row: row.version),
            Column("found", lambda row: row.found_version or "–"),
            Column("problem", lambda row: row.problem or ""),
        ],
    )
    # An agent that was asked for by name must be there; the list of all says what there is.
    return 1 if names and not all(row.ok for row in rows) else 0


def check_agent(agent: Agent) -> AgentCheck:
    """Find an agent's programs and ask for its version."""
    try:
        command = expand_version_command(agent)
    except CellmeterError as error:
        problem = error.message if error.hint is None else f"{error.message}; {error.hint}"
        return AgentCheck(name=agent.name, version=agent.version, found_version=None, ok=False, problem=problem)
    found, problem = (agent.version, None) if not command else _ask_version(agent, command)
    return AgentCheck(name=agent.name, version=agent.version, found_version=found, ok=problem is None, problem=problem)


def _ask_version(agent: Agent, command: list[str]) -> tuple[str | None, str | None]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{command[0]} cannot be run: {error}"
    printed = (done.stdout.strip() or done.stderr.strip()).splitlines()
    found = printed[0] if printed else None
    if done.returncode != 0:
        return found, f"{command[0]} ended with exit code {done.returncode}"
    if found is None or agent.version not in found:
        return found, f"the manifest was written for {agent.version}"
    return found, None
