import msgspec

from cellmeter_proxy.record import Workspace
from cellmeter_scoring.axes.blast_radius import score_blast_radius, score_blast_radius_as_published
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.score import Score, Unscored
from cellmeter_scoring.testing import make_cell

STATE = [
    ".aider.chat.history.md",
    ".aider.input.history",
    ".aider.tags.cache.v4/cache.db",
    ".aider/analytics.json",
    ".aider/caches/model_prices_and_context_window.json",
    ".aider/installs.json",
]
AIDER = CellEvidence(
    cell=make_cell(
        workspace=Workspace(added=STATE, modified=["src/lib.rs"], extra_git_dir=True), state_files=[".aider*"]
    )
)


def test_the_published_aider_cell_comes_out_as_published() -> None:
    result = score_blast_radius_as_published(AIDER)
    assert isinstance(result, Score)
    assert result.value == 0.8571428571428571
    assert msgspec.to_builtins(result.detail) == {
        "blast_radius": 0.8571428571428571,
        "added": STATE,
        "removed": [],
        "modified": ["src/lib.rs"],
        "unexpected_changes": STATE,
        "expected_changes": ["src/lib.rs"],
        "total_changes": 7,
        "extra_git_dir": True,
    }


def test_the_agents_own_declared_state_stands_beside_the_ratio() -> None:
    result = score_blast_radius(AIDER)
    assert isinstance(result, Score)
    assert (result.value, result.detail.total_changes, result.detail.state_files) == (0, 1, STATE)
    assert result.detail.added == STATE


def test_a_manifest_cannot_declare_the_tasks_own_file_as_state() -> None:
    greedy = make_cell(workspace=Workspace(modified=["src/lib.rs", "Cargo.lock"]), state_files=["src/*"])
    detail = score_blast_radius(CellEvidence(cell=greedy)).detail
    assert (detail.blast_radius, detail.state_files) == (0.5, [])


def test_nothing_changed_is_no_blast() -> None:
    result = score_blast_radius(CellEvidence(cell=make_cell(workspace=Workspace())))
    assert isinstance(result, Score)
    assert (result.value, result.detail.total_changes) == (0, 0)


def test_a_removed_file_counts() -> None:
    workspace = Workspace(removed=["tests/retry.rs"], modified=["src/lib.rs"])
    assert score_blast_radius(CellEvidence(cell=make_cell(workspace=workspace))).detail.blast_radius == 0.5


def test_a_workspace_that_was_not_collected_has_no_value() -> None:
    result = score_blast_radius(CellEvidence(cell=make_cell(workspace=None)))
    assert isinstance(result, Unscored)
    assert result.detail.total_changes is None
