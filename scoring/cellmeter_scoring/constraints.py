"""The rules that a task declares beside its grader, held against what the run changed.

``score`` is honoured over declared, as the published pages define it. A rule that the list of changed files cannot
decide leaves it None: a changed manifest may or may not name a new dependency.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from cellmeter_proxy.record import Constraint, Workspace
from cellmeter_scoring.globs import matching

_MANIFESTS: Final = (
    "*Cargo.toml",
    "*build.gradle*",
    "*go.mod",
    "*package.json",
    "*pom.xml",
    "*pyproject.toml",
    "*requirements*.txt",
    "*setup.cfg",
    "*setup.py",
)
"""Files in which the languages of the corpus declare dependencies."""


class ConstraintReport(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a task's constraints a run kept, and which it did not."""

    declared: int
    honored: int
    violated: list[str]
    undecided: list[str]
    score: float | None
    """``honored / declared``; None where one of them cannot be decided from the log."""


def report_constraints(declared: Sequence[Constraint], workspace: Workspace | None) -> ConstraintReport | UnsetType:
    """Each constraint held against the changed files; absent where the task declares none."""
    if not declared:
        return UNSET
    verdicts = [(_named(constraint), _is_honored(constraint, workspace)) for constraint in declared]
    honored = sum(verdict is True for _, verdict in verdicts)
    undecided = [name for name, verdict in verdicts if verdict is None]
    return ConstraintReport(
        declared=len(declared),
        honored=honored,
        violated=[name for name, verdict in verdicts if verdict is False],
        undecided=undecided,
        score=None if undecided else honored / len(declared),
    )


def _is_honored(constraint: Constraint, workspace: Workspace | None) -> bool | None:
    if workspace is None:
        return None
    changed = [*workspace.added, *workspace.removed, *workspace.modified]
    match constraint.kind:
        case "file-not-touched":
            return not matching(changed, [constraint.path or ""])
        case "file-pattern-required-in-diff":
            return bool(matching(workspace.added, constraint.paths))
        case "no-new-dependency":
            return None if matching(changed, _MANIFESTS) else True


def _named(constraint: Constraint) -> str:
    where = constraint.path or ", ".join(constraint.paths)
    return f"{constraint.kind} {where}".rstrip()
