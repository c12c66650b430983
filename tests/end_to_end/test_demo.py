"""The demo's sweep in process: agents through the proxy into the log, and the log alone into scores."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from cellmeter_harness.cli.demo import SHOWN, write_sweep
from cellmeter_harness.conduct import conduct
from cellmeter_harness.events import CellFinished, Event, SweepFinished, SweepPlanned
from cellmeter_harness.sweep import load_sweep
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Artifact, Attempt, Call, Cell, ScoreRow, Span
from cellmeter_scoring import audit, leaderboard, rescore, verify


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """The log of one run of the demo's sweep, and what the run told of itself."""
    directory = tmp_path_factory.mktemp("demo")
    events: list[Event] = []
    spec = load_sweep(write_sweep(directory))
    asyncio.run(conduct(spec, events.append, durability="process"))
    return spec.log, events


def test_every_cell_is_run_once_and_told_of(demo: tuple[Path, list[Event]]) -> None:
    log, events = demo
    assert events[0] == SweepPlanned(sweep_id="demo", done=0, pending=24)
    assert events[-1] == SweepFinished(sweep_id="demo", cells=24, passed=16, infrastructure=0)
    finished = [event.cell.cell_id for event in events if isinstance(event, CellFinished)]
    with Log.read(log) as reading:
        cells = list(reading.rows(Cell))
    assert sorted(finished) == sorted(cell.cell_id for cell in cells)
    assert {cell.ended_at is not None and cell.grade is not None for cell in cells} == {True}
    assert [phase.name for phase in cells[0].phases] == ["prepare", "run", "collect", "grade", "finalize"]


def test_only_the_agent_that_calls_a_model_has_calls_and_all_of_them_are_closed(demo: tuple[Path, list[Event]]) -> None:
    with Log.read(demo[0]) as log:
        calls = list(log.rows(Call))
        tried = {attempt.call_id for attempt in log.rows(Attempt)}
    assert {(call.cell_id or "").split("/")[1] for call in calls} == {"reference"}
    assert {(call.state, call.outcome, call.status, call.usage_source) for call in calls} == {
        ("closed", "ok", 200, "provider")
    }
    assert tried == {call.call_id for call in calls}
    for cell_id in {call.cell_id for call in calls}:
        places = [call.seq for call in calls if call.cell_id == cell_id]
        assert sorted(place or 0 for place in places) == list(range(1, len(places) + 1))


def test_the_leaderboard_says_what_the_control_agents_are_there_to_say(demo: tuple[Path, list[Event]]) -> None:
    rows = {row.agent: row for row in leaderboard(rescore(demo[0], "cellmeter-1", append=False))}
    assert {name: (row.passed, row.counted) for name, row in rows.items()} == {
        "oracle": (8, 8),
        "reference": (8, 8),
        "null": (0, 8),
    }
    assert rows["null"].composite.value == 0
    assert rows["reference"].tokens.value is not None
    assert rows["reference"].tokens.value > 0


def test_the_agents_own_totals_agree_with_the_recorded_ones(demo: tuple[Path, list[Event]]) -> None:
    found = audit(demo[0])
    assert {line.agreement for line in found.reconciliations} == {"agrees"}
    assert len(found.reconciliations) == 2 * 8
    assert found.totals.prompt_tokens.missing == 0


def test_a_cells_axes_have_exactly_the_keys_of_the_pages(demo: tuple[Path, list[Event]]) -> None:
    score = next(one for one in rescore(demo[0], "cab-0.1", append=False) if one.cell_id == SHOWN)
    axes = msgspec.to_builtins(score.axes)
    pages = {
        "pass_rate": "pass exit_code timed_out stdout_tail stderr_tail partial_score",
        "tokens": "prompt_tokens completion_tokens total_tokens model_calls tokens_per_correct_task"
        " pass_used_for_division",
        "latency": "wall_clock_ms container_active_ms model_call_ms",
        "blast_radius": "blast_radius added removed modified unexpected_changes expected_changes total_changes"
        " extra_git_dir",
        "refusal": "refusal not_applicable expected_refusal refusal_produced refusal_correct marker_hits keyword_hits",
        "composite": "composite weights components note",
    }
    for axis, keys in pages.items():
        assert list(axes[axis]) == keys.split(), axis
    assert list(axes["integrity"])[:3] == ["integrity", "not_applicable", "task_id"]


def test_scores_are_added_never_replaced(demo: tuple[Path, list[Event]], tmp_path: Path) -> None:
    copy = Path(shutil.copy(demo[0], tmp_path / "copy.db"))
    rescore(copy, "cab-0.1")
    rescore(copy, "cab-0.1")
    with Log.read(copy) as log:
        rows = list(log.rows(ScoreRow, "cell_id = ? AND methodology = 'cab-0.1'", (SHOWN,)))
    assert len(rows) == 2 * 7


def test_the_trace_has_the_spans_of_the_pages(demo: tuple[Path, list[Event]]) -> None:
    with Log.read(demo[0]) as log:
        spans = list(log.rows(Span, "cell_id = ?", (SHOWN,)))
        artifacts = {artifact.name for artifact in log.rows(Artifact, "cell_id = ?", (SHOWN,))}
    task = "mutations/python-comparator-swap"
    assert [(span.kind, span.name) for span in spans] == [
        ("task_setup", f"prepare:{task}"),
        ("adapter_run", f"reference:{task}"),
        ("tool_call", "applied_plugins"),
        ("container", "reference:launch"),
        ("grade", f"grade:{task}"),
        ("cleanup", "cleanup:reference"),
    ]
    assert {"stdout", "stderr", "diff"} <= artifacts


def test_the_log_is_sound_and_holds_no_key(demo: tuple[Path, list[Event]]) -> None:
    log, _ = demo
    assert verify(log) == []
    written = b"".join(path.read_bytes() for path in log.parent.glob("cellmeter.db*"))
    assert b"sk-scripted-" not in written
    with Log.read(log) as reading:
        stored = [reading.blob(str(row[0])) for row in reading.conn.execute("SELECT digest FROM blobs")]
    assert not any(b"sk-scripted-" in content for content in stored)
    assert not any(b"Bearer cm-" in content for content in stored)


async def test_a_second_run_finds_everything_done(demo: tuple[Path, list[Event]]) -> None:
    events: list[Event] = []
    spec = load_sweep(demo[0].parent / "demo.toml")
    await conduct(spec, events.append, durability="process")
    assert events[0] == SweepPlanned(sweep_id="demo", done=24, pending=0)
    assert not any(isinstance(event, CellFinished) for event in events)
