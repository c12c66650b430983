"""``cellmeter agents``: the agents that a sweep can name, and whether they can run here."""

from collections.abc import Sequence

import click
import msgspec

from cellmeter_harness.agent import Agent, builtin_agents, find_agent
from cellmeter_harness.cli.aio import run_async
from cellmeter_harness.cli.output import Column, Format, emit, format_option
from cellmeter_harness.preflight import check_programs
from cellmeter_harness.sandbox import Sandbox, choose
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
    rows = run_async(_check_all(chosen))
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


async def _check_all(chosen: Sequence[Agent]) -> list[AgentCheck]:
    sandbox = choose("auto")
    return [await check_agent(agent, sandbox) for agent in chosen]


async def check_agent(agent: Agent, sandbox: Sandbox) -> AgentCheck:
    """Find an agent's programs and ask it for its version."""
    try:
        versions = await check_programs([agent], [], sandbox)
    except CellmeterError as error:
        problem = error.message if error.hint is None else f"{error.message}; {error.hint}"
        return AgentCheck(name=agent.name, version=agent.version, found_version=None, ok=False, problem=problem)
    found = versions.get(agent.name, agent.version)
    differs = None if found == agent.version else f"the manifest was written for {agent.version}"
    return AgentCheck(name=agent.name, version=agent.version, found_version=found, ok=True, problem=differs)
