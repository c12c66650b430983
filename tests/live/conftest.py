"""What the live tests share: the agents that are to be tried, each found in the version that its manifest is for."""

import os
from collections.abc import Awaitable, Callable

import pytest

from cellmeter_harness.agent import Agent, builtin_agents, find_agent
from cellmeter_harness.cli.agents import check_agent
from cellmeter_harness.sandbox.process import ProcessSandbox

FindAgent = Callable[[str], Awaitable[Agent]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take ``name`` run once for each real agent; where ``CELLMETER_CI_AGENTS`` names some, for those."""
    if "name" in metafunc.fixturenames:
        real = [agent.name for agent in builtin_agents() if agent.programs]
        provided = os.environ.get("CELLMETER_CI_AGENTS")
        metafunc.parametrize("name", real if provided is None else provided.split())


@pytest.fixture(scope="session")
def versions() -> dict[str, str | None]:
    """The versions that agents were found in; each is asked once, since some take seconds to say it."""
    return {}


@pytest.fixture
def find(need: Callable[..., str], versions: dict[str, str | None]) -> FindAgent:
    """A function that gives an agent, or ends the test where it is not here in its manifest's version."""

    async def found(name: str) -> Agent:
        agent = find_agent(name)
        for program in agent.programs.values():
            need(program.path, program.env)
        if name not in versions:
            versions[name] = (await check_agent(agent, ProcessSandbox())).found_version
        if versions[name] != agent.version:
            reason = f"needs {name} {agent.version}; here is {versions[name] or 'one that does not start'}"
            (pytest.fail if os.environ.get("CELLMETER_NO_SKIP") else pytest.skip)(reason)
        return agent

    return found
