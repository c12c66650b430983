import msgspec
import pytest

from cellmeter_proxy.record import FailureClass, Grade, Workspace
from cellmeter_scoring.cell_score import CellScore, score_cell
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.finding import Finding
from cellmeter_scoring.leaderboard import Middle, Row, compare, leaderboard
from cellmeter_scoring.methodology import find_methodology
from cellmeter_scoring.testing import make_call, make_cell, make_failed_call

OURS = find_methodology("cellmeter-1")


def scored(agent: str, task: str, run: int, *, passed: bool, tokens: int = 1000, sweep: str = "s1") -> CellScore:
    cell = make_cell(
        sweep_id=sweep,
        cell_id=f"{sweep}/{agent}/m/c/{task}#run{run}",
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


def passing(agent: str, tasks: int, of: int, sweep: str = "s1") -> list[CellScore]:
    """One run of each of ``of`` tasks, of which the first ones passed."""
    return [scored(agent, f"{task:02}", 1, passed=task < tasks, sweep=sweep) for task in range(of)]


def test_fourteen_of_twenty_tasks_are_told_apart_from_six_of_them() -> None:
    rows = leaderboard([*passing("bad", 6, 20), *passing("good", 14, 20)])
    assert [row.name for row in rows] == ["good × m", "bad × m"]
    assert [row.not_separable_from for row in rows] == [[], []]


def test_rows_that_a_paired_test_does_not_tell_apart_are_named_as_not_separable() -> None:
    # Eight tasks between good and bad (p = 2/256), five between good and fair (p = 2/32), three between fair and bad.
    rows = leaderboard([*passing("bad", 6, 20), *passing("fair", 9, 20), *passing("good", 14, 20)])
    assert row_of(rows, "good").not_separable_from == ["fair × m"]
    assert row_of(rows, "fair").not_separable_from == ["good × m", "bad × m"]
    assert row_of(rows, "bad").not_separable_from == ["fair × m"]


def test_what_tells_two_rows_apart_alone_does_not_among_many() -> None:
    # Six tasks: p = 2/64 = 0.031, which Holm's adjustment triples for the smallest of three.
    pair = [*passing("one", 6, 10), *passing("two", 0, 10)]
    assert [row.not_separable_from for row in leaderboard(pair)] == [[], []]
    rows = leaderboard([*pair, *passing("three", 1, 10)])
    assert row_of(rows, "one").not_separable_from == ["three × m", "two × m"]


def test_runs_of_one_task_tell_nothing_about_others_and_rows_without_a_common_task_nothing_at_all() -> None:
    good = [scored("good", "t", run, passed=True) for run in range(20)]
    bad = [scored("bad", "t", run, passed=False) for run in range(20)]
    assert row_of(leaderboard([*good, *bad]), "good").not_separable_from == ["bad × m"]
    apart = leaderboard([scored("good", "t", 1, passed=True), scored("bad", "u", 1, passed=False)])
    assert row_of(apart, "good").not_separable_from == ["bad × m"]


def test_a_row_without_a_verdict_is_compared_with_none() -> None:
    rows = leaderboard([*passing("good", 14, 20), throttled("out", "00", 1)])
    assert [row.not_separable_from for row in rows] == [[], []]


def test_sweeps_are_kept_apart_and_named_only_where_there_are_several() -> None:
    scores = [*passing("pi", 2, 2), *passing("pi", 0, 2, sweep="s2"), *passing("null", 0, 2, sweep="s2")]
    rows = leaderboard(scores)
    assert [(row.name, row.passed, row.counted) for row in rows] == [
        ("s1: pi × m", 2, 2),
        ("s2: null × m", 0, 2),
        ("s2: pi × m", 0, 2),
    ]
    assert [row.not_separable_from for row in rows] == [[], ["s2: pi × m"], ["s2: null × m"]]
    assert [row.name for row in leaderboard(scores[:2])] == ["pi × m"]


def test_a_pass_without_a_recorded_call_is_shown_with_its_cells() -> None:
    silent = score_cell(CellEvidence(cell=make_cell(cell_id="x")), OURS)
    control = score_cell(CellEvidence(cell=make_cell(cell_id="y", expects_calls=False)), OURS)
    refused = score_cell(CellEvidence(cell=make_cell(cell_id="z"), calls=[make_failed_call("a", 1, 429)]), OURS)
    assert (silent.doubts, control.doubts, refused.doubts) == (["pass without a call"], [], ["pass without a call"])
    (row,) = leaderboard([silent, control, refused])
    assert row.findings == [
        Finding(
            kind="pass without a call",
            message="2 cells passed though no recorded call reached a model",
            ids=["x", "z"],
        )
    ]


def test_tokens_that_nobody_counted_are_shown_with_their_cells() -> None:
    hidden = make_call("a", dialect="unknown", prompt_tokens=None, completion_tokens=None, usage_source="none")
    score = score_cell(CellEvidence(cell=make_cell(cell_id="x"), calls=[hidden]), OURS)
    assert score.doubts == ["tokens unknown"]
    assert score.axes.composite.unearned == ["cost"]
    (row,) = leaderboard([score, scored("aider", "t", 1, passed=True)][:1])
    assert [(found.message, found.ids) for found in row.findings] == [
        ("1 cell called a model that nobody counted the tokens of", ["x"])
    ]


def test_a_cell_without_a_verdict_has_nothing_to_doubt() -> None:
    late = make_failed_call("a", 1, 504, outcome="timeout")
    score = score_cell(CellEvidence(cell=make_cell(grade=Grade(exit_code=1)), calls=[late]), OURS)
    assert (score.failure_class, score.doubts) == ("provider_error", [])


def test_the_composite_is_a_mean_over_cells() -> None:
    scores = [scored("pi", "t", run, passed=run == 3) for run in (1, 2, 3)]
    assert scores[2].composite is not None
    mean = leaderboard(scores)[0].composite
    assert mean.value == pytest.approx(scores[2].composite / 3)
    assert mean.cells == 3


def test_the_order_does_not_depend_on_the_order_of_the_cells() -> None:
    scores = [
        scored("b", "t", 1, passed=True),
        scored("a", "t", 1, passed=True),
        throttled("c", "t", 1),
        scored("z", "t", 1, passed=False),
    ]
    assert leaderboard(scores) == leaderboard(scores[::-1])
    assert [row.agent for row in leaderboard(scores)] == ["a", "b", "z", "c"]


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
