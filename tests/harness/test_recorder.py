"""A running proxy is a recorder: the calls of a cell are recorded under it, and its log holds the cell."""

from pathlib import Path

import pytest

from cellmeter_harness.agent import find_agent
from cellmeter_harness.cell import Bench, run_cell
from cellmeter_harness.recorder import ProxyRecorder, attempts_of, calls_of, cells_of, sweep_of
from cellmeter_harness.sandbox import Sandbox
from cellmeter_harness.sandbox.bubblewrap import BubblewrapSandbox, problem
from cellmeter_harness.sandbox.process import ProcessSandbox
from cellmeter_harness.scripts import ScriptedTask, provider_scripts
from cellmeter_harness.sweep import CellPlan
from cellmeter_harness.task import find_tasks
from cellmeter_proxy.scripted import ScriptedProvider
from cellmeter_proxy.server import ProxyConfig, serve
from cellmeter_scoring import classify

TROUBLE = problem()
SANDBOXES = [
    ProcessSandbox(),
    pytest.param(
        BubblewrapSandbox(),
        marks=pytest.mark.skipif(TROUBLE is not None, reason=f"bubblewrap does not work here: {TROUBLE}"),
    ),
]


@pytest.mark.parametrize("sandbox", SANDBOXES, ids=lambda sandbox: sandbox.isolation)
async def test_the_calls_of_an_agent_are_recorded_under_its_cell_as_the_provider_billed_them(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    (task,) = find_tasks(["mutations/python-comparator-swap"])
    plan = CellPlan(sweep_id="s", agent=find_agent("reference"), model="scripted/small", task=task, run=1, timeout_s=60)
    about = ScriptedTask(task_id=task.id, description=task.description, workdir=task.workdir, solution=task.solution)
    async with ScriptedProvider(provider_scripts([about])) as provider:
        config = ProxyConfig(
            upstream=provider.url, log=tmp_path / "log.db", cells_only=True, socket_path=tmp_path / "proxy.sock"
        )
        async with serve(config) as running:
            recorder = ProxyRecorder(running)
            cell = await run_cell(plan, 1, Bench(sandbox=sandbox, recorder=recorder, classify=classify))
            calls = await recorder.read(calls_of(cell.cell_id, 1))
            attempts = await recorder.read(attempts_of(cell.cell_id, 1))
            assert await recorder.read(cells_of("s")) == [cell]
            assert await recorder.read(sweep_of("s")) is None

    assert cell.grade is not None
    assert (cell.grade.passed, cell.failure_class, cell.isolation) == (True, "none", sandbox.isolation)
    billed = [served.billed for served in provider.ledger if served.billed is not None]
    assert len(calls) == len(billed) > 1
    assert [(call.prompt_tokens, call.completion_tokens) for call in calls] == [
        (usage.prompt_tokens, usage.completion_tokens) for usage in billed
    ]
    assert {call.state for call in calls} == {"closed"}
    assert [attempt.call_id for attempt in attempts] == [call.call_id for call in calls]
    assert cell.reported is not None
    assert cell.reported.prompt_tokens == sum(usage.prompt_tokens or 0 for usage in billed)
