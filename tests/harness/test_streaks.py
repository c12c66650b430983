"""Three failures in a row that no repeat can change stop an agent with a model, and nothing else does."""

import pytest

from cellmeter_harness.streaks import Streaks
from cellmeter_proxy.record import Cell, FailureClass, Phase
from cellmeter_scoring.testing import make_cell

UNPREPARED = [Phase(name="prepare", started_at=1, ended_at=2, error="no such program")]


def failed(kind: FailureClass, *, evidence: bool = False, phases: list[Phase] | None = None, model: str = "m") -> Cell:
    calls = ["c1"] if evidence else []
    return make_cell(model=model, failure_class=kind, failure_reason="why", evidence=calls, phases=phases or [])


@pytest.mark.parametrize(
    "cell",
    [
        failed("incompatible", evidence=True),
        failed("no_model_call"),
        failed("agent_error"),
        failed("harness_error", phases=UNPREPARED),
    ],
)
def test_three_failures_that_a_repeat_cannot_change_stop_the_pair_once(cell: Cell) -> None:
    streaks = Streaks()
    said = [streaks.add(cell) for _ in range(4)]
    sentence = f"{cell.agent} with m is stopped after 3 {cell.failure_class} in a row: why"
    assert said == [None, None, sentence, None]


def test_a_refused_key_stops_the_pair_and_another_failure_of_the_provider_does_not() -> None:
    streaks, cell = Streaks(), failed("provider_error", evidence=True)
    said = [streaks.add(cell, denied=denied) for denied in (True, True, False, True, True, True)]
    assert said == [None] * 5 + [f"{cell.agent} with m is stopped after 3 provider_error in a row: why"]


@pytest.mark.parametrize(
    "cell",
    [
        failed("none"),
        failed("rate_limited", evidence=True),
        failed("provider_error", evidence=True),
        failed("agent_error", evidence=True),
        failed("agent_timeout", evidence=True),
        failed("budget_exceeded", evidence=True),
        failed("harness_error"),
        failed("grader_error"),
    ],
)
def test_what_a_repeat_may_change_or_the_agent_did_itself_stops_nothing_and_ends_a_row(cell: Cell) -> None:
    streaks, hopeless = Streaks(), failed("incompatible", evidence=True)
    assert [streaks.add(cell) for _ in range(5)] == [None] * 5
    assert [streaks.add(one) for one in (hopeless, hopeless, cell, hopeless, hopeless)] == [None] * 5


def test_rows_are_of_one_class_and_one_pair() -> None:
    streaks = Streaks()
    mixed = [failed("incompatible"), failed("no_model_call"), failed("incompatible"), failed("no_model_call")]
    assert [streaks.add(cell) for cell in mixed] == [None] * 4
    apart = [failed("incompatible", model=model) for model in "xyxy"]
    assert [streaks.add(cell) for cell in apart] == [None] * 4
