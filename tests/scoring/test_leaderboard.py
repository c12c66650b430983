import msgspec
import pytest

from cellmeter_proxy.record import FailureClass, Grade, Workspace
from cellmeter_scoring.cell_score import CellScore, score_cell
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.leaderboard import Middle, Row, compare, leaderboard
from cellmeter_scoring.methodology import find_methodology
from cellmeter_scoring.testing import make_call, make_cell, make_failed_call

OURS = find_methodology("cellmeter-1")


def scored(agent: str, task: str, run: int, *, passed: bool, tokens: int = 1000) -> CellScore:
    cell = make_cell(
        cell_id=f"s1/{agent}/m/c/{task}#run{run}",
        agent=agent,
        model="m",
        category="c",
        task=task,
        run=run,
        grade=Grade(exit_code=0 if passed else 1, passed=passed),
    )
    return score_cell(CellEvidence(cell=cell, calls=[make_call("a", prompt_tokens=tokens, completion_tokens=0)]), OURS)


def throttled(agent: str, task: str, run: int) -> CellScore:
    cell = make_cell(
        agent=agent,
        model="m",
        category="c",
        task=task,
        run=run,
        grade=Grade(exit_code=1),
        exit_code=1,
        workspace=Workspace(),
    )
    return score_cell(CellEvidence(cell=cell, calls=[make_failed_call("a", 1, 429)]), OURS)


def row_of(rows: list[Row], agent: str) -> Row:
    return next(row for row in rows if row.agent == agent)


def test_infrastructure_is_left_out_counted_by_class_and_bounded_both_ways() -> None:
    row = leaderboard([scored("pi", "t", 1, passed=True), scored("pi", "t", 2, passed=False), throttled("pi", "t", 3)])[
        0
    ]
    excluded: dict[FailureClass, int] = {"rate_limited": 1}
    assert (row.cells, row.passed, row.counted, row.excluded) == (3, 1, 2, excluded)
    assert row.pass_rate == 0.5
    assert (row.lowest, row.highest) == pytest.approx((1 / 3, 2 / 3))
    assert row.composite.cells == 2


def test_one_task_has_wilsons_interval_about_this_task() -> None:
    row = leaderboard([scored("pi", "t", run, passed=True) for run in (1, 2, 3)])[0]
    assert row.interval is not None
    assert (row.interval.method, row.interval.estimand) == ("Wilson", "this task")
    assert (row.interval.low, row.interval.high) == pytest.approx((0.4385, 1), abs=1e-3)


def test_over_tasks_repeats_are_averaged_first_and_the_interval_is_about_tasks_like_these() -> None:
    scores = [
        *(scored("pi", "hard", run, passed=False) for run in (1, 2, 3, 4)),
        *(scored("pi", "half", run, passed=run == 1) for run in (1, 2)),
        *(scored("pi", "easy", run, passed=True) for run in (1, 2)),
    ]
    row = leaderboard(scores)[0]
    assert (row.passed, row.counted, row.tasks) == (3, 8, 3)
    assert row.pass_rate == 0.5
    assert row.interval is not None
    assert (row.interval.method, row.interval.estimand) == ("Student t", "tasks like these")
    assert (row.interval.low, row.interval.high) == (0, 1)
    assert (row.k, row.pass_at_k, row.pass_hat_k) == pytest.approx((2, 2 / 3, 1 / 3))


def test_tasks_without_a_spread_still_have_a_width() -> None:
    row = leaderboard([scored("pi", task, 1, passed=True) for task in ("a", "b")])[0]
    assert row.interval is not None
    assert row.interval.method == "Wilson"
    assert row.interval.low < 0.5


def test_rows_whose_intervals_overlap_are_named_as_not_separable() -> None:
    good = [scored("good", "t", run, passed=True) for run in range(20)]
    fair = [scored("fair", "t", run, passed=run < 15) for run in range(20)]
    bad = [scored("bad", "t", run, passed=False) for run in range(20)]
    rows = leaderboard([*bad, *fair, *good])
    assert [row.name for row in rows] == ["good × m", "fair × m", "bad × m"]
    assert row_of(rows, "good").not_separable_from == ["fair × m"]
    assert row_of(rows, "fair").not_separable_from == ["good × m"]
    assert row_of(rows, "bad").not_separable_from == []


def test_the_order_does_not_depend_on_the_order_of_the_cells() -> None:
    scores = [scored("b", "t", 1, passed=True), scored("a", "t", 1, passed=True), throttled("c", "t", 1)]
    assert leaderboard(scores) == leaderboard(scores[::-1])
    assert [row.agent for row in leaderboard(scores)] == ["a", "b", "c"]


def test_a_row_without_a_verdict_has_no_rate_but_its_bounds() -> None:
    row = leaderboard([throttled("pi", "t", 1)])[0]
    assert (row.pass_rate, row.interval, row.k, row.pass_at_k) == (None, None, None, None)
    assert (row.lowest, row.highest, row.counted) == (0, 1, 0)
    assert row.tokens == Middle(value=None, cells=0)


def test_tokens_and_latency_are_medians_over_the_cells_that_have_them() -> None:
    scores = [scored("pi", "t", run, passed=True, tokens=tokens) for run, tokens in enumerate((100, 200, 9000))]
    row = leaderboard([*scores, throttled("pi", "t", 9)])[0]
    assert row.tokens == Middle(value=200, cells=3)
    assert row.latency_ms == Middle(value=20_000, cells=3)


def test_two_agents_are_compared_task_by_task_on_what_both_have() -> None:
    scores = [
        *(scored("one", task, 1, passed=True) for task in "abcdef"),
        *(scored("two", task, 1, passed=task == "a") for task in "abcdeg"),
    ]
    comparison = compare(scores, ("one", "m"), ("two", "m"))
    assert msgspec.to_builtins(comparison) == {
        "tasks": 5,
        "difference": 0.8,
        "p_value": 2 / 16,
        "discordant": ["c/b", "c/c", "c/d", "c/e"],
    }


def test_agents_without_a_common_task_cannot_be_compared() -> None:
    comparison = compare([scored("one", "a", 1, passed=True)], ("one", "m"), ("two", "m"))
    assert (comparison.tasks, comparison.difference, comparison.p_value) == (0, None, None)
