import msgspec

from cellmeter_proxy.record import Grade
from cellmeter_scoring.axes.pass_rate import score_pass_rate
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.score import Score, Unscored
from cellmeter_scoring.testing import make_cell


def test_a_pass_publishes_the_graders_words_under_the_keys_of_the_pages() -> None:
    grade = Grade(exit_code=0, passed=True, stdout_tail="4 passed", partial_score=None)
    result = score_pass_rate(CellEvidence(cell=make_cell(grade=grade, exit_code=3)))
    assert isinstance(result, Score)
    assert result.value == 1
    assert msgspec.to_builtins(result.detail) == {
        "pass": 1,
        "exit_code": 0,
        "timed_out": False,
        "stdout_tail": "4 passed",
        "stderr_tail": "",
        "partial_score": None,
    }


def test_exit_0_without_the_required_lines_is_no_pass_and_says_what_is_missing() -> None:
    grade = Grade(exit_code=0, passed=False, missing=["ok: 4 tests"])
    result = score_pass_rate(CellEvidence(cell=make_cell(grade=grade)))
    assert isinstance(result, Score)
    assert (result.value, result.detail.missing) == (0, ["ok: 4 tests"])


def test_a_cell_without_a_grade_has_no_value() -> None:
    result = score_pass_rate(CellEvidence(cell=make_cell(grade=None)))
    assert isinstance(result, Unscored)
    assert (result.reason, result.detail.pass_) == ("the cell was not graded", None)
