"""Real agents, unmodified, through the recording proxy: what the log says of each call is what the provider billed."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from cellmeter_harness.agent import Agent, with_additions
from cellmeter_harness.conduct import Provider, conduct_with, scripted_provider
from cellmeter_harness.events import Event
from cellmeter_harness.sandbox.bubblewrap import problem
from cellmeter_harness.scripts import BACKGROUND
from cellmeter_harness.sweep import IsolationChoice, SweepSpec, Upstream
from cellmeter_harness.task import find_tasks
from cellmeter_proxy.log import Log, digest_of
from cellmeter_proxy.record import Cell, Usage
from cellmeter_proxy.scripted import Served
from cellmeter_scoring import AuditedCall, audit, verify
from cellmeter_scoring.globs import matching
from cellmeter_scoring.reconcile import printed_as

pytestmark = pytest.mark.live

FindAgent = Callable[[str], Awaitable[Agent]]
KEY = "sk-live-0123456789abcdef0123456789abcdef"
TASK = "mutations/python-comparator-swap"
TROUBLE = problem()


def quiet(_event: Event) -> None:
    pass


async def run_once(agent: Agent, log: Path, isolation: IsolationChoice) -> list[Served]:
    """One cell of an agent; the provider's ledger of it."""
    spec = SweepSpec(
        name="live",
        agents=[agent],
        models=["mistralai/mistral-small-4-119b-2603"],
        tasks=find_tasks([TASK], base=Path()),
        log=log,
        isolation=isolation,
        upstream=Upstream(scripted=True),
    )
    async with scripted_provider(spec.tasks, KEY) as provider:
        await conduct_with(Provider(provider.url, KEY), spec, quiet)
    return provider.ledger


def parts(usage: Usage | AuditedCall) -> tuple[int, ...]:
    """A call's tokens by kind; some dialects must write 0 for a part that nobody counted."""
    return (usage.cache_read_tokens or 0, usage.cache_write_tokens or 0, usage.reasoning_tokens or 0)


def assert_recorded_as_billed(log: Path, ledger: Sequence[Served], agent: Agent) -> None:
    """Each request that the provider answered is one closed row with its tokens, and there are no others."""
    calls = {call.request_id: call for call in audit(log).calls}
    assert len(ledger) > 1
    assert [served.request_id for served in ledger] == sorted(calls, key=str)
    for served in ledger:
        call, billed = calls[served.request_id], served.billed
        assert (served.status, served.outcome) == (200, "complete")
        assert (call.state, call.outcome, call.status) == ("closed", "ok", 200)
        assert (call.dialect, call.stream) == (agent.dialect, bool(served.stream))
        assert (call.sent_hash or call.body_hash) == digest_of(served.body)
        assert billed is not None
        assert (call.prompt_tokens, call.completion_tokens) == (billed.prompt_tokens, billed.completion_tokens)
        assert (parts(call), call.usage_source) == (parts(billed), "provider")


def assert_only_declared_changes(cell: Cell, agent: Agent) -> None:
    """Beside the change that the task asks for, nothing but the state files that the manifest declares."""
    assert cell.workspace is not None
    assert (cell.workspace.modified, cell.workspace.removed) == (["src/sorter.py"], [])
    assert cell.workspace.added == matching(cell.workspace.added, agent.state_files)


def assert_printed_totals(cell: Cell, ledger: Sequence[Served], agent: Agent) -> None:
    """What the agent prints is what its work cost, less its background calls."""
    if agent.reported is None:
        assert cell.reported is None
        return
    assert cell.reported is not None
    billed = [served.billed for served in ledger if served.billed and served.script != BACKGROUND.name]
    printed = (cell.reported.prompt_tokens, cell.reported.completion_tokens)
    exact = (sum(usage.prompt_tokens or 0 for usage in billed), sum(usage.completion_tokens or 0 for usage in billed))
    per_call = [(printed_as(usage.prompt_tokens or 0), printed_as(usage.completion_tokens or 0)) for usage in billed]
    assert printed in {exact, (sum(prompt for prompt, _ in per_call), sum(answer for _, answer in per_call))}


@pytest.mark.parametrize(
    "isolation",
    [
        "process",
        pytest.param(
            "bubblewrap",
            marks=pytest.mark.skipif(TROUBLE is not None, reason=f"bubblewrap does not work here: {TROUBLE}"),
        ),
    ],
)
async def test_every_call_of_an_agent_is_recorded_with_what_the_provider_billed(
    name: str, isolation: IsolationChoice, tmp_path: Path, find: FindAgent
) -> None:
    agent = await find(name)
    log = tmp_path / "live.db"
    ledger = await run_once(agent, log, isolation)

    with Log.read(log) as reading:
        (cell,) = reading.rows(Cell)
    assert (cell.failure_class, cell.isolation, cell.exit_code) == ("none", isolation, 0)
    assert {call.cell_id for call in audit(log).calls} == {cell.cell_id}
    assert_recorded_as_billed(log, ledger, agent)
    assert_only_declared_changes(cell, agent)
    assert_printed_totals(cell, ledger, agent)
    assert verify(log) == []


async def test_a_streamed_answer_is_recorded_as_billed_although_aider_does_not_ask_for_its_usage(
    tmp_path: Path, find: FindAgent
) -> None:
    agent = with_additions(await find("aider"), {}, ["--stream"])
    log = tmp_path / "live.db"
    ledger = await run_once(agent, log, "auto")
    assert [served.stream for served in ledger] == [True, True]
    assert_recorded_as_billed(log, ledger, agent)
    assert verify(log) == []
