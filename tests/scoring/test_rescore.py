from pathlib import Path

import msgspec
import pytest

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log, make_blob
from cellmeter_proxy.record import Artifact, Grade, ScoreRow, Workspace
from cellmeter_scoring.cell_score import CellScore
from cellmeter_scoring.compose import compose
from cellmeter_scoring.rescore import rescore
from cellmeter_scoring.testing import CELL_ID, at, make_attempt, make_call, make_cell, make_failed_call

AXES = ["pass_rate", "tokens", "latency", "blast_radius", "refusal", "integrity", "composite"]


@pytest.fixture
def passed(tmp_path: Path) -> Path:
    """A log of one cell that passed with two calls."""
    path = tmp_path / "passed.db"
    with Log.create(path, "process") as log:
        log.append(make_cell(), make_call("a", 1, seq=1), make_call("b", 3, seq=2), make_attempt("a", 1, 1, 200))
    return path


@pytest.fixture
def throttled(tmp_path: Path) -> Path:
    """A log of one cell whose every call the provider refused with 429."""
    path = tmp_path / "throttled.db"
    with Log.create(path, "process") as log:
        log.append(
            make_cell(grade=Grade(exit_code=1), workspace=Workspace(), exit_code=1),
            make_failed_call("a", 1, 429, seq=1),
            make_failed_call("b", 2, 429, seq=2),
        )
    return path


def only(scores: list[CellScore]) -> CellScore:
    assert len(scores) == 1
    return scores[0]


def test_a_correct_cell_has_every_axis_and_the_composite_of_its_components(passed: Path) -> None:
    score = only(rescore(passed))
    assert (score.cell_id, score.methodology, score.failure_class) == (CELL_ID, "cellmeter-1", "none")
    assert (score.agent, score.model, score.task_id, score.run) == ("aider", "vendor/small", "mutations/retry", 1)
    assert score.values.tokens == 2200
    expected = compose(
        {
            "pass": 1,
            "integrity": 1,
            "blast_radius": 0,
            "tokens_per_correct_task": 2200,
            "wall_clock_ms": 20_000,
            "expected_refusal": False,
            "refusal_produced": False,
        },
        "cellmeter-1",
    )
    assert score.composite == expected.composite
    assert score.axes.composite.components == expected.components


def test_the_json_has_the_keys_of_the_pages_and_unscored_only_where_there_is_no_value(passed: Path) -> None:
    document = msgspec.json.decode(msgspec.json.encode(only(rescore(passed))))
    assert list(document["axes"]) == AXES
    assert [axis for axis in AXES if "unscored" in document["axes"][axis]] == ["refusal"]
    assert list(document["axes"]["pass_rate"]) == [
        "pass",
        "exit_code",
        "timed_out",
        "stdout_tail",
        "stderr_tail",
        "partial_score",
    ]
    assert list(document["axes"]["composite"]) == ["composite", "weights", "components", "note"]


def test_a_throttled_cell_is_unscored_here_and_published_as_a_failure_there(throttled: Path) -> None:
    ours = only(rescore(throttled))
    assert (ours.failure_class, ours.evidence, ours.composite) == ("rate_limited", ["a", "b"], None)
    why = "rate_limited: all 2 calls ended in the provider's rate limit (HTTP 429)"
    assert {axis: getattr(ours.axes, axis).unscored for axis in AXES[:-1]} == dict.fromkeys(AXES[:-1], why)
    assert ours.axes.composite.unscored == f"no value for pass_rate, integrity: {why}"
    assert ours.axes.latency.wall_clock_ms == 20_000
    published = only(rescore(throttled, "cab-0.1"))
    assert published.failure_class == "rate_limited"
    assert published.axes.composite.components.cost_efficiency == 1
    assert (
        published.composite
        == compose(
            {
                "pass": 0,
                "integrity": 1,
                "blast_radius": 0,
                "wall_clock_ms": 20_000,
                "expected_refusal": False,
                "refusal_produced": False,
            }
        ).composite
    )


def test_tokens_spent_on_nothing_correct_earn_nothing_under_either_methodology(tmp_path: Path) -> None:
    with Log.create(tmp_path / "wrong.db", "process") as log:
        log.append(make_cell(grade=Grade(exit_code=1)), make_call("a", 1, seq=1))
        for methodology in ("cab-0.1", "cellmeter-1"):
            components = only(rescore(log, methodology)).axes.composite.components
            assert (components.cost_efficiency, components.tokens_per_correct_task) == (0, None)
        assert only(rescore(log)).composite == 0


def test_a_call_without_usage_leaves_cab_without_a_composite_and_cellmeter_without_the_cost(tmp_path: Path) -> None:
    with Log.create(tmp_path / "blind.db", "process") as log:
        log.append(
            make_cell(grade=Grade(exit_code=1)),
            make_call("a", 1, seq=1, prompt_tokens=None, completion_tokens=None, usage_source="none"),
        )
        blind = only(rescore(log, "cab-0.1"))
        assert blind.composite is None
        assert blind.axes.composite.unscored == (
            "no value for tokens: 1 of 1 calls that reached a model carry no token usage"
        )
        ours = only(rescore(log))
        assert (ours.composite, ours.axes.composite.unearned) == (0, ["cost"])


def test_the_newest_attempt_counts_and_older_calls_do_not_mix_in(tmp_path: Path) -> None:
    with Log.create(tmp_path / "retried.db", "process") as log:
        log.append(
            make_cell(grade=Grade(exit_code=1), exit_code=1),
            make_failed_call("a", 1, 429, seq=1),
            make_cell(attempt=2),
            make_call("b", 2, seq=2, cell_attempt=2),
        )
        score = only(rescore(log))
    assert (score.attempt, score.failure_class, score.axes.tokens.model_calls) == (2, "none", 1)


def test_the_agents_stdout_is_read_from_the_log(tmp_path: Path) -> None:
    printed = make_blob(b"the request was refused\n")
    with Log.create(tmp_path / "words.db", "process") as log:
        log.append(make_cell(), Artifact(cell_id=CELL_ID, cell_attempt=1, name="stdout", blob=printed.digest, size=24))
        assert only(rescore(log)).axes.refusal.keyword_hits == []
        log.put_blob(printed)
        assert only(rescore(log)).axes.refusal.keyword_hits == ["stdout_tail"]


def test_scores_are_appended_each_time_and_say_unscored_or_a_value(passed: Path) -> None:
    rescore(passed)
    rescore(passed, "cab-0.1")
    rescore(passed, append=False)
    with Log.read(passed) as log:
        rows = list(log.rows(ScoreRow))
    assert [(row.methodology, row.axis) for row in rows] == [
        *(("cellmeter-1", axis) for axis in AXES),
        *(("cab-0.1", axis) for axis in AXES),
    ]
    assert all((row.value is None) != (row.unscored is None) for row in rows)
    assert rows[4].unscored == "not applicable: the task expects no refusal"
    assert (rows[1].value, rows[1].detail["total_tokens"]) == (2200, 2200)


def test_a_log_that_cannot_be_written_is_scored_all_the_same(passed: Path) -> None:
    with Log.read(passed) as log, pytest.warns(RuntimeWarning, match="not added to .*passed.db"):
        assert only(rescore(log)).failure_class == "none"


def test_a_log_that_another_process_is_writing_is_scored_all_the_same(passed: Path) -> None:
    with Log.create(passed) as busy, Log.create(passed) as log:
        busy.conn.execute("BEGIN IMMEDIATE")
        log.conn.execute("PRAGMA busy_timeout=0")
        with pytest.warns(RuntimeWarning, match="database is locked"):
            assert only(rescore(log)).failure_class == "none"


def test_a_row_is_scored_even_where_the_run_has_no_end(tmp_path: Path) -> None:
    with Log.create(tmp_path / "open.db", "process") as log:
        log.append(make_cell(ended_at=None, grade=None, workspace=None, exit_code=None))
        score = only(rescore(log, append=False))
    assert (score.failure_class, score.composite) == ("harness_error", None)


def test_a_missing_log_and_an_unknown_methodology_are_refused(tmp_path: Path, passed: Path) -> None:
    with pytest.raises(CellmeterError, match="there is no log at"):
        rescore(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(CellmeterError, match="no methodology 'mine'"):
        rescore(passed, "mine")


def test_cells_come_in_the_order_in_which_they_were_first_run(tmp_path: Path) -> None:
    with Log.create(tmp_path / "many.db", "process") as log:
        log.append(make_cell(cell_id="z"), make_cell(cell_id="a"), make_cell(cell_id="z", attempt=2, ended_at=at(9)))
        assert [(score.cell_id, score.attempt) for score in rescore(log)] == [("z", 2), ("a", 1)]
