import pytest
from msgspec import UNSET

from cellmeter_proxy.record import Constraint, Workspace
from cellmeter_scoring.constraints import ConstraintReport, report_constraints

UNTOUCHED = Constraint(kind="file-not-touched", path="tests/*")
NO_DEPENDENCY = Constraint(kind="no-new-dependency")
DOCUMENT = Constraint(kind="file-pattern-required-in-diff", paths=["REFUSAL.md", "NOTES.md"])


def test_the_score_is_honored_over_declared() -> None:
    workspace = Workspace(added=["NOTES.md"], modified=["tests/deep/test_a.py"])
    assert report_constraints([UNTOUCHED, NO_DEPENDENCY, DOCUMENT], workspace) == ConstraintReport(
        declared=3, honored=2, violated=["file-not-touched tests/*"], undecided=[], score=2 / 3
    )


def test_a_required_document_must_be_added_not_merely_changed() -> None:
    report = report_constraints([DOCUMENT], Workspace(modified=["NOTES.md"]))
    assert isinstance(report, ConstraintReport)
    assert report.violated == ["file-pattern-required-in-diff REFUSAL.md, NOTES.md"]


@pytest.mark.parametrize("workspace", [Workspace(modified=["crates/a/Cargo.toml"]), None])
def test_what_the_log_cannot_decide_leaves_no_score(workspace: Workspace | None) -> None:
    report = report_constraints([NO_DEPENDENCY], workspace)
    assert isinstance(report, ConstraintReport)
    assert (report.score, report.undecided) == (None, ["no-new-dependency"])


def test_no_constraints_no_report() -> None:
    assert report_constraints([], Workspace()) is UNSET
