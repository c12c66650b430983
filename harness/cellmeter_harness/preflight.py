"""What can be found out before the first cell is run, so that no cell fails for it: programs and versions."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cellmeter_harness.agent import Agent, expand, resolve_programs
from cellmeter_harness.grading import required_programs
from cellmeter_harness.paths import Scratch
from cellmeter_harness.sandbox import Command, Sandbox
from cellmeter_harness.task import Task
from cellmeter_harness.uninterrupted import in_thread
from cellmeter_proxy.errors import CellmeterError

_VERSION: Final = re.compile(r"\d+(?:\.\d+)+(?:[.+-]?[A-Za-z0-9]+)*|^\d+$", re.MULTILINE)
"""A dotted number with what belongs to it, wherever it stands, or a number that has a line of its own."""

_TIMEOUT_S: Final = 60.0


async def check_programs(agents: Iterable[Agent], tasks: Iterable[Task], sandbox: Sandbox) -> dict[str, str]:
    """Find every program that a sweep needs, and ask the agents for their versions.

    Returns:
        The version of each agent that can be asked, by name.

    Raises:
        CellmeterError: a program is not here, or an agent does not start.

    """
    for task in tasks:
        required_programs(task)
    agents = list(agents)
    for agent in agents:
        if agent.git == "repository" and shutil.which("git") is None:
            raise CellmeterError(
                f"the agent {agent.name} is given a repository, which needs git; it is not on PATH", hint="install git"
            )
    programs = {agent.name: (agent, resolve_programs(agent)) for agent in agents}
    return {
        name: await _version(agent, found, sandbox)
        for name, (agent, found) in programs.items()
        if agent.version_command
    }


async def _version(agent: Agent, programs: dict[str, Path], sandbox: Sandbox) -> str:
    scratch = Scratch.create(f"{agent.name}-version")
    try:
        scratch.workspace.mkdir()
        room = await in_thread(scratch.agent_room, agent.directory, home_is_workspace=False)
        view = sandbox.view(room, None)
        values = {"python": view.python, "agent_dir": view.agent_dir} | {n: str(path) for n, path in programs.items()}
        argv = [expand(word, values) for word in agent.version_command]
        execution = sandbox.execute(
            room, Command(argv=argv, timeout_s=_TIMEOUT_S, programs=list(programs.values())), None
        )
        async with execution:
            await execution.wait()
    except OSError as error:
        raise CellmeterError(f"the agent {agent.name} does not start: {error}") from None
    finally:
        await in_thread(scratch.remove)
    said = execution.stdout.text() + execution.stderr.text()
    found = _VERSION.search(said)
    if execution.exit_code != 0 or found is None:
        last = (said.strip().splitlines() or ["nothing"])[-1]
        raise CellmeterError(f"the agent {agent.name} does not start: asked for its version, it said: {last[:300]}")
    return found[0]
