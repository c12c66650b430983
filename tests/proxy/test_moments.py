"""Two rows of one key: the later one is found whichever comes first, and contradictions are not overlooked."""

from typing import Any

import pytest
from msgspec.structs import replace

from cellmeter_proxy.moments import differences, later
from cellmeter_proxy.record import Attempt, Call, Cell, Grade, Phase, Record, Sweep, TaskFacts, Workspace

OPEN = Call(
    call_id="1",
    session="s",
    seq=1,
    writer="h/1/1",
    body_hash="sha256:1",
    sent_hash="sha256:2",
    redactions=0,
    started_at=5,
)
MARKED = replace(OPEN, state="interrupted", outcome="interrupted", error="the recording process ended")
CLOSED = replace(
    OPEN,
    state="closed",
    outcome="http_error",
    error="HTTP 400",
    redactions=1,
    sent_hash=None,
    status=400,
    ended_at=9,
    latency_ms=0.004,
    response_blob="sha256:3",
)
STOPPED = replace(CLOSED, state="interrupted", outcome="interrupted")
PRICED = replace(CLOSED, cost=0.5, price_source="p")
ESTIMATED = replace(CLOSED, estimated_prompt_tokens=7, estimate_method="m", usage_source="estimated")
BEGUN = Cell(
    cell_id="s/a/m/c/t#run1",
    sweep_id="s",
    agent="a",
    model="m",
    category="c",
    task="t",
    run=1,
    task_digest="sha256:0",
    isolation="process",
    started_at=5,
    task_facts=TaskFacts(language="rust", description="d", timeout_s=600.0),
)
GIVEN_UP = replace(BEGUN, failure_class="harness_error", failure_reason="the harness ended")
FINISHED = replace(
    BEGUN,
    ended_at=9,
    phases=[Phase(name="run", started_at=5, ended_at=9)],
    exit_code=0,
    timed_out=True,
    failure_class="agent_timeout",
    failure_reason="it took too long",
    evidence=["1"],
    workspace=Workspace(),
    grade=Grade(),
)
ATTEMPT = Attempt(call_id="1", n=1, started_at=5)
SWEEP = Sweep(sweep_id="s", spec="{}", spec_digest="sha256:0", started_at=1, software_version="1", host="{}")


@pytest.mark.parametrize(
    ("earlier", "afterwards"),
    [
        (OPEN, MARKED),
        (OPEN, CLOSED),
        (OPEN, STOPPED),
        (OPEN, PRICED),
        (MARKED, CLOSED),
        (CLOSED, PRICED),
        (CLOSED, ESTIMATED),
        (BEGUN, GIVEN_UP),
        (BEGUN, FINISHED),
        (GIVEN_UP, FINISHED),
    ],
)
def test_the_later_moment_of_a_row_is_found_from_either_side(earlier: Record, afterwards: Record) -> None:
    assert later(earlier, afterwards) is afterwards
    assert later(afterwards, earlier) is afterwards
    assert later(afterwards, afterwards) is afterwards


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (OPEN, replace(OPEN, body_hash="sha256:9")),
        (OPEN, replace(CLOSED, body_hash="sha256:9")),
        (OPEN, replace(CLOSED, seq=2)),
        (OPEN, replace(CLOSED, started_at=6)),
        (OPEN, replace(MARKED, writer="other/1/1")),
        (OPEN, replace(OPEN, cell_id="c")),
        (CLOSED, replace(CLOSED, status=200)),
        (CLOSED, replace(CLOSED, response_blob=None)),
        (CLOSED, replace(CLOSED, redactions=2)),
        (CLOSED, STOPPED),
        (CLOSED, replace(CLOSED, completion_tokens=3)),
        (PRICED, replace(PRICED, cost=0.6)),
        (PRICED, ESTIMATED),
        (replace(CLOSED, usage_source="provider"), replace(CLOSED, usage_source="partial")),
        (MARKED, replace(MARKED, error="another reason")),
        (BEGUN, replace(FINISHED, started_at=6)),
        (BEGUN, replace(FINISHED, task_digest="sha256:1")),
        (FINISHED, replace(FINISHED, failure_class="none")),
        (FINISHED, replace(FINISHED, evidence=[])),
        (GIVEN_UP, replace(GIVEN_UP, failure_reason="another reason")),
        (ATTEMPT, replace(ATTEMPT, status=200)),
        (SWEEP, replace(SWEEP, spec_digest="sha256:1")),
        (SWEEP, replace(SWEEP, spec="[]")),
    ],
)
def test_a_contradiction_is_found_from_either_side(one: Record, other: Record) -> None:
    assert later(one, other) is None
    assert later(other, one) is None


@pytest.mark.parametrize("changes", [{"started_at": 0}, {"host": "[]"}, {"software_version": "0.9"}])
def test_of_one_sweep_on_two_machines_the_same_row_stays_whichever_comes_first(changes: dict[str, Any]) -> None:
    other = replace(SWEEP, **changes)
    assert later(SWEEP, other) is later(other, SWEEP)
    assert later(SWEEP, replace(SWEEP, started_at=0)) == replace(SWEEP, started_at=0)


@pytest.mark.parametrize("row", [CLOSED, FINISHED])
def test_a_column_that_differs_between_two_complete_rows_is_always_a_contradiction(row: Any) -> None:
    later_ones = {"cost", "price_source", "estimated_prompt_tokens", "estimated_completion_tokens", "estimate_method"}
    for name in row.__struct_fields__:
        if name not in later_ones:
            other = replace(row, **{name: "something else"})
            assert later(row, other) is None, name
            assert differences(row, other) == [name]
