"""What is left of a sweep follows from the rows of its cells alone."""

from pathlib import Path

import msgspec
import pytest

from cellmeter_harness.agent import Agent
from cellmeter_harness.plan import Pending, abandoned, again, merged, once_more, outlook, refuse_mixture
from cellmeter_harness.sweep import CellPlan, SweepDocument
from cellmeter_harness.testing import tiny_agent, tiny_task
from cellmeter_proxy.budget import Account, Budget
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import Cell, FailureClass

INFRASTRUCTURE = frozenset({"rate_limited", "provider_error", "harness_error", "cancelled"})


@pytest.fixture
def plan(tmp_path: Path) -> CellPlan:
    agent = tiny_agent(tmp_path / "doer.toml", "true")
    return CellPlan(sweep_id="s", agent=agent, model="m", task=tiny_task(tmp_path / "fix"), run=1, timeout_s=20)


def row(plan: CellPlan, attempt: int, failure_class: FailureClass | None, ended_at: int | None = 2) -> Cell:
    return Cell(
        cell_id=plan.cell_id,
        attempt=attempt,
        sweep_id="s",
        agent=plan.agent.name,
        agent_version=plan.agent.version,
        model="m",
        category="tiny",
        task="fix",
        run=1,
        task_digest=plan.task.digest,
        isolation="process",
        started_at=1,
        ended_at=ended_at,
        failure_class=failure_class,
        task_facts=plan.task.facts(),
    )


def document(agent: Agent, **changes: object) -> SweepDocument:
    values = {
        "agents": {agent.name: agent.digest},
        "tasks": {},
        "models": ["m"],
        "repeats": 1,
        "isolation": "process",
        "concurrency": 1,
        "upstream": "scripted",
        "timeout_s": None,
        "retry_infrastructure": 1,
    }
    return msgspec.convert(values | changes, SweepDocument)


@pytest.mark.parametrize(
    ("history", "attempt"),
    [
        ([], 1),
        (["none"], None),
        (["agent_error"], None),
        (["agent_timeout"], None),
        (["rate_limited"], 2),
        (["rate_limited", "provider_error"], None),
        (["cancelled"], 2),
        (["cancelled", "cancelled", "cancelled"], 4),
        (["cancelled", "rate_limited"], 3),
        (["rate_limited", "cancelled"], 3),
        (["rate_limited", "none"], None),
        (["none", "rate_limited"], 3),
    ],
)
def test_the_newest_attempt_decides_whether_and_as_what_a_cell_is_run(
    plan: CellPlan, history: list[FailureClass], attempt: int | None
) -> None:
    rows = [row(plan, number, failure) for number, failure in enumerate(history, start=1)]
    found = outlook([plan], list(reversed(rows)), 1, INFRASTRUCTURE)
    assert [pending.attempt for pending in found.pending] == ([attempt] if attempt else [])
    over = history[-1:] and history[-1] in INFRASTRUCTURE
    assert len(found.done) + len(found.exhausted) == (0 if attempt else 1)
    if not attempt:
        assert (found.exhausted if over else found.done) == [rows[-1]]


def test_the_bound_counts_failures_of_the_infrastructure_and_nothing_else(plan: CellPlan) -> None:
    rows = [row(plan, 1, "rate_limited"), row(plan, 2, "cancelled")]
    (pending,) = outlook([plan], rows, 2, INFRASTRUCTURE).pending
    assert pending == Pending(plan=plan, attempt=3, failures=1)
    second = again(pending, row(plan, 3, "rate_limited"), 2, INFRASTRUCTURE)
    assert second is not None
    assert second == Pending(plan=plan, attempt=4, failures=2)
    assert again(second, row(plan, 4, "rate_limited"), 2, INFRASTRUCTURE) is None
    assert again(pending, row(plan, 3, "agent_error"), 2, INFRASTRUCTURE) is None
    assert again(pending, row(plan, 3, "none"), 2, INFRASTRUCTURE) is None


def test_a_cell_that_is_out_of_attempts_gets_exactly_one_more_after_all_others(plan: CellPlan) -> None:
    fresh = msgspec.structs.replace(plan, run=2)
    found = outlook([plan, fresh], [row(plan, 1, "rate_limited"), row(plan, 2, "provider_error")], 1, INFRASTRUCTURE)
    assert [cell.attempt for cell in found.exhausted] == [2]
    more = once_more(found, [plan, fresh], 1)
    assert more.exhausted == []
    assert more.pending == [Pending(plan=fresh, attempt=1), Pending(plan=plan, attempt=3, failures=1)]
    assert again(more.pending[1], row(plan, 3, "rate_limited"), 1, INFRASTRUCTURE) is None


@pytest.mark.parametrize(("owner", "made_again"), [("sweep", True), ("cell", False), ("session", False)])
def test_a_cell_that_the_budget_of_the_whole_sweep_ended_is_made_again_and_one_that_spent_its_own_is_done(
    plan: CellPlan, owner: str, made_again: bool
) -> None:
    refusal = Account(owner, Budget(tokens=1000), 0.0, tokens=1234).refusal(1.0)
    ended = msgspec.structs.replace(
        row(plan, 1, "budget_exceeded"), failure_reason=f"a budget ended the run: {refusal}"
    )
    found = outlook([plan], [ended], 1, INFRASTRUCTURE)
    assert found.pending == ([Pending(plan=plan, attempt=2)] if made_again else [])
    assert found.done == ([] if made_again else [ended])


def test_an_attempt_whose_harness_died_is_said_to_be_one_and_does_not_count(plan: CellPlan) -> None:
    running = row(plan, 1, None, ended_at=None)
    (told,) = abandoned([running, row(plan, 2, "none")])
    assert (told.failure_class, told.failure_reason, told.ended_at) == (
        "harness_error",
        "the harness ended before the cell did",
        None,
    )
    assert abandoned([told]) == []
    assert outlook([plan], [told], 0, INFRASTRUCTURE).pending == [Pending(plan=plan, attempt=2)]


def test_the_order_of_the_cells_is_kept(plan: CellPlan) -> None:
    plans = [msgspec.structs.replace(plan, run=run) for run in (3, 1, 2)]
    assert [pending.plan.run for pending in outlook(plans, [], 1, INFRASTRUCTURE).pending] == [3, 1, 2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task_digest": "sha256:other"}, "the task tiny/fix has changed since s/doer/m/tiny/fix#run1 was run"),
        ({"isolation": "bubblewrap"}, "its isolation was bubblewrap and would be process since s/doer"),
        ({"agent_version": "0.9"}, "doer was version 0.9 and is 1.0 since"),
    ],
)
def test_a_finished_cell_that_was_run_otherwise_stops_the_sweep(
    plan: CellPlan, change: dict[str, str], sentence: str
) -> None:
    done = msgspec.structs.replace(row(plan, 1, "none"), **change)
    now = document(plan.agent)
    with pytest.raises(CellmeterError, match=sentence) as caught:
        refuse_mixture([plan], [done], before=None, now=now, isolation="process", versions={})
    assert "another name" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ({"agents": {"doer": "sha256:other"}}, "the agent doer has changed"),
        ({"upstream": "https://other/v1"}, "its upstream was https://other/v1 and would be scripted"),
        ({"timeout_s": 5.0}, "its time limit was 5.0 and would be None"),
    ],
)
def test_a_sweep_whose_file_changed_what_its_cells_mean_is_stopped(
    plan: CellPlan, before: dict[str, object], sentence: str
) -> None:
    old, now = document(plan.agent, **before), document(plan.agent)
    done = [row(plan, 1, "none")]
    with pytest.raises(CellmeterError, match=sentence):
        refuse_mixture([plan], done, before=old, now=now, isolation="process", versions={})
    refuse_mixture([plan], [], before=old, now=now, isolation="process", versions={})
    refuse_mixture([plan], done, before=now, now=now, isolation="process", versions={"doer": "1.0"})


def test_what_becomes_of_429s_may_change_between_runs_as_what_came_of_them_is_in_the_rows(plan: CellPlan) -> None:
    old, now = document(plan.agent), document(plan.agent, on_429="pace", patience_s=60.0)
    refuse_mixture([plan], [row(plan, 1, "none")], before=old, now=now, isolation="process", versions={})
    assert merged(old, now).on_429 == "pace"


def test_what_a_sweep_no_longer_names_is_remembered(plan: CellPlan) -> None:
    old, now = document(plan.agent, agents={"gone": "d"}, tasks={"t": "1"}), document(plan.agent, tasks={"t": "2"})
    assert merged(old, now).agents == {"gone": "d", "doer": plan.agent.digest}
    assert merged(old, now).tasks == {"t": "2"}
    assert merged(None, now) == now
