"""``pass_rate``: did the task's grader pass the work?"""

import msgspec
from msgspec import UNSET, UnsetType

from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.score import Detail, Result, Score, Unscored


class PassRate(Detail, frozen=True, kw_only=True):
    """What the grader said."""

    pass_: int | None = msgspec.field(name="pass")
    exit_code: int | None
    """Of the grader; the agent's own is a fact of the cell."""
    timed_out: bool | None
    stdout_tail: str | None
    stderr_tail: str | None
    partial_score: float | None
    missing: list[str] | UnsetType = UNSET
    """Lines that the task requires on the grader's stdout and that were not there."""


def score_pass_rate(evidence: CellEvidence) -> Result[PassRate]:
    """1 where the grader passed, 0 where it did not."""
    grade = evidence.cell.grade
    if grade is None:
        return Unscored("the cell was not graded", _nothing())
    return Score(
        float(grade.passed),
        PassRate(
            pass_=int(grade.passed),
            exit_code=grade.exit_code,
            timed_out=grade.timed_out,
            stdout_tail=grade.stdout_tail,
            stderr_tail=grade.stderr_tail,
            partial_score=grade.partial_score,
            missing=grade.missing or UNSET,
        ),
    )


def _nothing() -> PassRate:
    return PassRate(pass_=None, exit_code=None, timed_out=None, stdout_tail=None, stderr_tail=None, partial_score=None)
