"""``blast_radius``: the share of the changed files that the task does not expect, 0 where nothing changed."""

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from cellmeter_proxy.record import Workspace
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.globs import matching
from cellmeter_scoring.score import Detail, Result, Score, Unscored


class BlastRadius(Detail, frozen=True, kw_only=True):
    """The changed files; ``.git`` is never among them."""

    blast_radius: float | None
    added: list[str] | None
    removed: list[str] | None
    modified: list[str] | None
    unexpected_changes: list[str] | None
    expected_changes: list[str] | None
    """The changed files that the task expects."""
    total_changes: int | None
    """How many changes the ratio is over."""
    extra_git_dir: bool | None
    """A ``.git`` stood in the workspace when the agent had finished."""
    state_files: list[str] | UnsetType = UNSET
    """Changes that are the agent's own declared state, and not part of the ratio."""


def score_blast_radius_as_published(evidence: CellEvidence) -> Result[BlastRadius]:
    """Over every changed file, the agent's own state included."""
    workspace = evidence.cell.workspace
    return _not_collected() if workspace is None else _ratio(evidence, workspace, None)


def score_blast_radius(evidence: CellEvidence) -> Result[BlastRadius]:
    """Over every changed file but the agent's own declared state, which is listed beside it."""
    workspace = evidence.cell.workspace
    if workspace is None:
        return _not_collected()
    expected = set(matching(changes_of(workspace), evidence.cell.task_facts.expected_changes))
    state = matching(changes_of(workspace), evidence.cell.state_files)
    # A file that the task wants changed counts, whatever the agent's manifest says.
    return _ratio(evidence, workspace, [path for path in state if path not in expected])


def changes_of(workspace: Workspace) -> list[str]:
    """Every changed path: added, removed, modified."""
    return [*workspace.added, *workspace.removed, *workspace.modified]


def _ratio(evidence: CellEvidence, workspace: Workspace, state: Sequence[str] | None) -> Score[BlastRadius]:
    own = set(state or ())
    counted = [path for path in changes_of(workspace) if path not in own]
    expected = matching(counted, evidence.cell.task_facts.expected_changes)
    unexpected = [path for path in counted if path not in set(expected)]
    blast = len(unexpected) / len(counted) if counted else 0.0
    return Score(
        blast,
        BlastRadius(
            blast_radius=blast,
            added=workspace.added,
            removed=workspace.removed,
            modified=workspace.modified,
            unexpected_changes=unexpected,
            expected_changes=expected,
            total_changes=len(counted),
            extra_git_dir=workspace.extra_git_dir,
            state_files=UNSET if state is None else list(state),
        ),
    )


def _not_collected() -> Unscored[BlastRadius]:
    return Unscored(
        "the workspace was not collected",
        BlastRadius(
            blast_radius=None,
            added=None,
            removed=None,
            modified=None,
            unexpected_changes=None,
            expected_changes=None,
            total_changes=None,
            extra_git_dir=None,
        ),
    )
