"""A sweep with everything around it: its log's place, its lock, its provider's key, and what a killed run left."""

import os
import subprocess
import tempfile
from pathlib import Path

import msgspec
import pytest

from cellmeter_harness.conduct import Provider, conduct, conduct_with
from cellmeter_harness.lock import sweep_lock
from cellmeter_harness.paths import Scratch, remove_dead_scratch, scratch_prefix
from cellmeter_harness.preflight import check_programs
from cellmeter_harness.sandbox.process import ProcessSandbox
from cellmeter_harness.sweep import SweepSpec, Upstream
from cellmeter_harness.testing import tiny_agent, tiny_task
from cellmeter_proxy.errors import CellmeterError

NOBODY = Provider("http://127.0.0.1:9", None)


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short path: the proxy's socket is in it, and those have a bound."""
    directory = Path(tempfile.mkdtemp())
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    return SweepSpec(
        name="s",
        agents=[tiny_agent(tmp_path / "fixer.toml", "echo fixed > state")],
        models=["m"],
        tasks=[tiny_task(tmp_path / "tasks" / "one")],
        log=tmp_path / "new" / "directory" / "log.db",
        isolation="process",
        upstream=Upstream(url="http://127.0.0.1:9/v1", key_env="A_KEY_THAT_IS_NOT_SET"),
    )


async def test_a_finished_sweep_asks_for_no_key_and_an_unfinished_one_does(spec: SweepSpec) -> None:
    with pytest.raises(CellmeterError, match="A_KEY_THAT_IS_NOT_SET"):
        await conduct(spec, lambda _: None)
    first = await conduct_with(NOBODY, spec, lambda _: None)
    assert (first.cells, first.passed) == (1, 1)
    again = await conduct(spec, lambda _: None)
    assert (again.cells, again.passed) == (1, 1)
    with pytest.raises(CellmeterError, match="A_KEY_THAT_IS_NOT_SET"):
        await conduct(msgspec.structs.replace(spec, repeats=2), lambda _: None)


async def test_two_runs_of_one_sweep_at_once_are_refused_before_the_log_is_opened(spec: SweepSpec) -> None:
    with sweep_lock(spec.log, spec.name), pytest.raises(CellmeterError, match="the sweep s is being run on"):
        await conduct_with(NOBODY, spec, lambda _: None)
    assert not spec.log.exists()


async def test_an_agent_that_is_given_a_repository_needs_git(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = tiny_agent(tmp_path / "doer.toml", "true", 'git = "repository"')
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CellmeterError, match="needs git"):
        await check_programs([agent], [], ProcessSandbox())


def test_scratch_of_the_dead_is_removed_and_that_of_the_living_is_not(scratch: Path) -> None:
    alive = Scratch.create("agent-task")
    foreign = scratch / "cellmeter-notes"
    elsewhere = scratch / "cellmeter-1.1.1-agent-x"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        dead = scratch / f"{scratch_prefix(process.pid)}agent-x"
    ours = scratch_prefix(os.getpid()).rpartition(".")[0]
    reused = scratch / f"{ours}.1-agent-x"
    for path in (foreign, elsewhere, dead, reused):
        (path / "workdir").mkdir(parents=True)
    assert remove_dead_scratch() == sorted([dead, reused])
    assert sorted(scratch.iterdir()) == sorted([alive.root, elsewhere, foreign])
