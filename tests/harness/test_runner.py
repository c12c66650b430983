"""A sweep is run to its end, resumed from its log, and never mixed with cells run under other conditions."""

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from cellmeter_harness.agent import load_agent
from cellmeter_harness.events import (
    CellFinished,
    CellsLeft,
    CellStarted,
    Event,
    SweepFinished,
    SweepPlanned,
    SweepThrottled,
)
from cellmeter_harness.runner import Judge, run_sweep
from cellmeter_harness.sandbox.process import ProcessSandbox
from cellmeter_harness.sweep import Limits, Retry, SweepSpec, Upstream
from cellmeter_harness.testing import LogRecorder, tiny_agent, tiny_task
from cellmeter_proxy.budget import Budget
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import Attempt, Call, Cell, FailureClass, Record, Sweep


class Verdict(msgspec.Struct, frozen=True):
    failure_class: FailureClass
    reason: str | None = None
    evidence: list[str] = []


def by_the_exit(cell: Cell, calls: Sequence[Call], attempts: Sequence[Attempt]) -> Verdict:
    """Exit code 75 stands for a provider that limits the rate, as EX_TEMPFAIL does in sysexits.h."""
    if cell.exit_code == 75:
        return Verdict("rate_limited")
    if cell.grade and cell.grade.passed:
        return Verdict("none")
    # As the real judge has it: an agent that failed after its first call is convicted by a call.
    return Verdict("agent_error", evidence=[] if cell.exit_code else ["c"])


JUDGE = Judge(
    classify=by_the_exit,
    infrastructure=frozenset({"rate_limited", "harness_error", "cancelled"}),
    is_denied=lambda _calls, _attempts: False,
)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[LogRecorder]:
    recorder = LogRecorder(tmp_path / "log.db")
    yield recorder
    recorder.close()


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    agents = [
        tiny_agent(tmp_path / "fixer.toml", "echo fixed > state"),
        tiny_agent(tmp_path / "idler.toml", "true"),
    ]
    tasks = [tiny_task(tmp_path / "tasks" / name) for name in ("one", "two")]
    return SweepSpec(
        name="s",
        agents=agents,
        models=["m"],
        tasks=tasks,
        repeats=2,
        log=tmp_path / "log.db",
        concurrency=2,
        upstream=Upstream(scripted=True),
    )


async def go(spec: SweepSpec, recorder: LogRecorder, events: list[Event] | None = None) -> SweepFinished:
    seen: list[Event] = [] if events is None else events
    return await run_sweep(spec, recorder, sandbox=ProcessSandbox(), judge=JUDGE, on_event=seen.append)


def rows(recorder: LogRecorder) -> list[Cell]:
    return list(recorder.log.rows(Cell, "1 ORDER BY started_at"))


async def test_every_cell_is_run_once_and_the_events_say_so(spec: SweepSpec, recorder: LogRecorder) -> None:
    events: list[Event] = []
    end = await go(spec, recorder, events)
    assert end == SweepFinished(sweep_id="s", cells=8, passed=4, infrastructure=0)
    assert events[0] == SweepPlanned(sweep_id="s", done=0, pending=8)
    assert events[-1] == end
    started = [event.cell_id for event in events if isinstance(event, CellStarted)]
    finished = [event.cell for event in events if isinstance(event, CellFinished)]
    assert len(set(started)) == 8
    assert started[:2] == ["s/fixer/m/tiny/one#run1", "s/idler/m/tiny/one#run1"]
    assert sorted(cell.cell_id for cell in finished) == sorted(started)
    assert {cell.cell_id: cell for cell in rows(recorder)} == {cell.cell_id: cell for cell in finished}
    assert {cell.failure_class for cell in finished if cell.agent == "idler"} == {"agent_error"}


async def test_the_sweeps_row_says_what_was_run_with_what_and_where(spec: SweepSpec, recorder: LogRecorder) -> None:
    await go(spec, recorder)
    (sweep,) = recorder.log.rows(Sweep)
    document = json.loads(sweep.spec)
    assert document["agents"] == {agent.name: agent.digest for agent in spec.agents}
    assert document["tasks"] == {task.id: task.digest for task in spec.tasks}
    assert sweep.spec_digest.startswith("sha256:")
    assert json.loads(sweep.host)["isolation"] == "process"


async def test_no_more_cells_run_at_once_than_the_sweep_says(spec: SweepSpec, recorder: LogRecorder) -> None:
    events: list[Event] = []
    await go(spec, recorder, events)
    running, most = 0, 0
    for event in events:
        running += isinstance(event, CellStarted) - isinstance(event, CellFinished)
        most = max(most, running)
    assert most == 2


async def test_a_finished_sweep_has_nothing_left_and_a_wider_one_runs_only_what_is_new(
    spec: SweepSpec, recorder: LogRecorder
) -> None:
    await go(spec, recorder)
    before = rows(recorder)
    events: list[Event] = []
    assert await go(spec, recorder, events) == SweepFinished(sweep_id="s", cells=8, passed=4, infrastructure=0)
    assert events[0] == SweepPlanned(sweep_id="s", done=8, pending=0)
    assert rows(recorder) == before

    wider = msgspec.structs.replace(spec, repeats=3)
    assert (await go(wider, recorder)).cells == 12
    assert rows(recorder)[:8] == before
    assert len(rows(recorder)) == 12
    assert len(list(recorder.log.rows(Sweep))) == 1


async def test_failures_of_the_infrastructure_are_tried_again_within_the_bound_and_all_attempts_kept(
    tmp_path: Path, spec: SweepSpec, recorder: LogRecorder
) -> None:
    limited = tiny_agent(tmp_path / "limited.toml", "exit 75")
    narrow = msgspec.structs.replace(
        spec, agents=[limited], tasks=spec.tasks[:1], repeats=1, retry=Retry(infrastructure=2)
    )
    events: list[Event] = []
    end = await go(narrow, recorder, events)
    assert end == SweepFinished(sweep_id="s", cells=1, passed=0, infrastructure=1)
    assert [(cell.attempt, cell.failure_class) for cell in rows(recorder)] == [
        (1, "rate_limited"),
        (2, "rate_limited"),
        (3, "rate_limited"),
    ]
    assert [event.retried for event in events if isinstance(event, CellFinished)] == [True, True, False]

    assert (await go(narrow, recorder)).infrastructure == 1
    assert len(rows(recorder)) == 3
    await go(msgspec.structs.replace(narrow, retry=Retry(infrastructure=3)), recorder)
    assert [cell.attempt for cell in rows(recorder)] == [1, 2, 3, 4]


async def test_a_cell_that_is_out_of_attempts_is_tried_once_more_where_the_caller_says_so(
    tmp_path: Path, spec: SweepSpec, recorder: LogRecorder
) -> None:
    limited = tiny_agent(tmp_path / "limited.toml", "exit 75")
    narrow = msgspec.structs.replace(spec, agents=[limited], tasks=spec.tasks[:1], repeats=1)
    await go(narrow, recorder)
    assert [cell.attempt for cell in rows(recorder)] == [1, 2]
    events: list[Event] = []
    assert (await go(msgspec.structs.replace(narrow, retry_failed=True), recorder, events)).infrastructure == 1
    assert events[0] == SweepPlanned(sweep_id="s", done=0, pending=1)
    assert [cell.attempt for cell in rows(recorder)] == [1, 2, 3]


async def test_a_cell_that_recovers_is_done(tmp_path: Path, spec: SweepSpec, recorder: LogRecorder) -> None:
    script = f"if [ -e {tmp_path}/tried ]; then echo fixed > state; else echo > {tmp_path}/tried; exit 75; fi"
    flaky = tiny_agent(tmp_path / "flaky.toml", script)
    narrow = msgspec.structs.replace(spec, agents=[flaky], tasks=spec.tasks[:1], repeats=1)
    assert await go(narrow, recorder) == SweepFinished(sweep_id="s", cells=1, passed=1, infrastructure=0)
    assert [cell.failure_class for cell in rows(recorder)] == ["rate_limited", "none"]


async def test_a_cancelled_run_records_its_cells_in_flight_and_is_resumed_without_loss(
    tmp_path: Path, spec: SweepSpec, recorder: LogRecorder, scratch: Path
) -> None:
    gate = tmp_path / "gate"
    script = (
        f"echo fixed > state; case $PWD in *one*) ;; *) echo >> {tmp_path}/waiting; [ -e {gate} ] || sleep 600;; esac"
    )
    slow = msgspec.structs.replace(spec, agents=[tiny_agent(tmp_path / "slow.toml", script)])
    running = asyncio.create_task(go(slow, recorder))
    waiting = tmp_path / "waiting"
    while not waiting.exists() or len(waiting.read_text()) < 2:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    by_class = [cell.failure_class for cell in rows(recorder)]
    assert sorted(str(name) for name in by_class) == ["cancelled", "cancelled", "none", "none"]
    assert list(scratch.iterdir()) == []

    gate.touch()
    assert await go(slow, recorder) == SweepFinished(sweep_id="s", cells=4, passed=4, infrastructure=0)
    assert sorted((cell.attempt, cell.failure_class) for cell in rows(recorder)) == [
        (1, "cancelled"),
        (1, "cancelled"),
        (1, "none"),
        (1, "none"),
        (2, "none"),
        (2, "none"),
    ]


async def test_a_cell_whose_harness_was_killed_is_redone_as_a_new_attempt(
    spec: SweepSpec, recorder: LogRecorder
) -> None:
    await go(spec, recorder)
    dead = msgspec.structs.replace(rows(recorder)[0], ended_at=None, failure_class=None, grade=None)
    recorder.log.replace(dead)
    end = await go(spec, recorder)
    assert end.cells == 8
    attempts = list(recorder.log.rows(Cell, "cell_id = ? ORDER BY attempt", (dead.cell_id,)))
    assert [(cell.attempt, cell.failure_class) for cell in attempts] == [(1, "harness_error"), (2, "none")]
    assert attempts[0].ended_at is None


async def test_a_sweep_whose_task_changed_is_not_resumed_and_its_cell_is_named(
    spec: SweepSpec, recorder: LogRecorder
) -> None:
    await go(spec, recorder)
    changed = msgspec.structs.replace(spec.tasks[0], digest="sha256:other")
    mixed = msgspec.structs.replace(spec, tasks=[changed, spec.tasks[1]])
    with pytest.raises(CellmeterError, match=r"the task tiny/one has changed since s/fixer/m/tiny/one#run1 was run"):
        await go(mixed, recorder)
    assert len(rows(recorder)) == 8


async def test_a_changed_agent_is_refused_even_after_a_run_that_did_not_name_it(
    tmp_path: Path, spec: SweepSpec, recorder: LogRecorder
) -> None:
    await go(spec, recorder)
    await go(msgspec.structs.replace(spec, agents=spec.agents[1:]), recorder)
    other = tiny_agent(tmp_path / "fixer.toml", "echo fixed > state; true")
    with pytest.raises(CellmeterError, match="the agent fixer has changed since"):
        await go(msgspec.structs.replace(spec, agents=[other]), recorder)


async def test_a_program_that_is_missing_is_found_out_before_the_first_cell(
    tmp_path: Path, spec: SweepSpec, recorder: LogRecorder
) -> None:
    needy = tiny_task(tmp_path / "tasks" / "needy", requires='["no-such-program"]')
    with pytest.raises(CellmeterError, match="the task tiny/needy needs no-such-program"):
        await go(msgspec.structs.replace(spec, tasks=[*spec.tasks, needy]), recorder)
    manifest = tmp_path / "gone.toml"
    manifest.write_text(
        'name = "gone"\nversion = "1"\ndescription = "d"\nkind = "command"\ncommand = ["{gone}"]\n'
        '[programs]\ngone = { path = "no-such-program", hint = "install it" }\n'
    )
    with pytest.raises(CellmeterError, match="the agent gone cannot run here: no-such-program is not on PATH"):
        await go(msgspec.structs.replace(spec, agents=[load_agent(manifest)]), recorder)
    assert rows(recorder) == []


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo tool v2.10.3-beta", "2.10.3-beta"),
        ("echo This is tool version 2.4.6.", "2.4.6"),
        ("echo 7", "7"),
        ("echo 'no such option' >&2; exit 2", None),
        ("true", None),
    ],
)
async def test_agents_are_asked_for_their_versions(
    tmp_path: Path, spec: SweepSpec, recorder: LogRecorder, script: str, version: str | None
) -> None:
    agent = tiny_agent(tmp_path / "asked.toml", "true", f'version_command = ["sh", "-c", "{script}"]')
    narrow = msgspec.structs.replace(spec, agents=[agent], tasks=spec.tasks[:1], repeats=1)
    if version is None:
        with pytest.raises(CellmeterError, match="the agent asked does not start: asked for its version, it said"):
            await go(narrow, recorder)
    else:
        await go(narrow, recorder)
        assert [cell.agent_version for cell in rows(recorder)] == [version]


class FullDisk(LogRecorder):
    """A log that cannot be written any more after a while."""

    left = 5

    async def append(self, *records: Record) -> None:
        self.left -= 1
        if self.left == 0:
            raise CellmeterError("the log cannot be written: the disk is full")
        await super().append(*records)


async def test_a_log_that_cannot_be_written_stops_the_sweep_with_its_sentence(
    tmp_path: Path, spec: SweepSpec, scratch: Path
) -> None:
    recorder = FullDisk(tmp_path / "full.db")
    with pytest.raises(CellmeterError, match="the disk is full"):
        await go(spec, recorder)
    assert list(scratch.iterdir()) == []
    recorder.close()


async def test_a_pair_that_cannot_work_is_stopped_and_a_later_run_goes_on_with_it(
    spec: SweepSpec, recorder: LogRecorder, tmp_path: Path
) -> None:
    broken = tiny_agent(tmp_path / "broken.toml", f"[ -e {tmp_path}/repaired ] && echo fixed > state || exit 3")
    spec = msgspec.structs.replace(spec, agents=[*spec.agents, broken], concurrency=1)
    events: list[Event] = []
    end = await go(spec, recorder, events)
    left = "s/broken/m/tiny/two#run2"
    sentence = "broken with m is stopped after 3 agent_error in a row: None"
    assert [event for event in events if isinstance(event, CellsLeft)] == [CellsLeft(reason=sentence, cells=[left])]
    assert (end.cells, end.unrun) == (11, [left])
    assert left not in {cell.cell_id for cell in rows(recorder)}
    (tmp_path / "repaired").touch()
    again = await go(spec, recorder)
    assert (again.cells, again.unrun) == (12, [])
    assert left in {cell.cell_id for cell in rows(recorder)}


async def test_a_spent_sweep_runs_no_further_cell(spec: SweepSpec, recorder: LogRecorder) -> None:
    recorder.spent = "the budget of 1 call of this sweep is spent (1 made)"
    events: list[Event] = []
    end = await go(spec, recorder, events)
    assert (end.cells, len(end.unrun)) == (0, 8)
    assert events[1] == CellsLeft(reason=recorder.spent, cells=end.unrun)
    assert rows(recorder) == []
    recorder.spent = None
    assert (await go(spec, recorder)).cells == 8


async def test_every_key_carries_the_budget_of_its_cell(spec: SweepSpec, recorder: LogRecorder) -> None:
    limits = Limits(calls=7)
    await go(msgspec.structs.replace(spec, limits=limits), recorder)
    assert recorder.budgets == [Budget(calls=7)] * 8
    with pytest.raises(CellmeterError, match="the budget of its cells has changed"):
        await go(spec, recorder)


async def test_a_throttling_provider_is_given_fewer_cells_at_once_and_none_before_its_retry_after_and_once_it_is_said(
    tmp_path: Path, spec: SweepSpec, recorder: LogRecorder
) -> None:
    spec = msgspec.structs.replace(spec, concurrency=4)
    refusal = Attempt(call_id="c", n=1, started_at=1, status=429, retry_after_ms=1000)
    events: list[tuple[float, Event]] = []

    def on_event(event: Event) -> None:
        events.append((recorder.throttle.clock(), event))
        if isinstance(event, CellFinished) and sum(isinstance(other, CellFinished) for _, other in events) == 1:
            recorder.throttle.note(refusal)

    await run_sweep(spec, recorder, sandbox=ProcessSandbox(), judge=JUDGE, on_event=on_event)
    (said,) = [event for _, event in events if isinstance(event, SweepThrottled)]
    assert (said.status, said.at_once) == (429, 2)
    assert 0.9 < said.wait_s <= 1
    first = next(at for at, event in events if isinstance(event, SweepThrottled))
    later = [at for at, event in events if isinstance(event, CellStarted) and at > first]
    assert len(later) == 4
    assert min(later) >= first + said.wait_s - 0.01
    # Two were started then, not the four that there is room for without the refusal.
    finished = min(at for at, event in events if isinstance(event, CellFinished) and at > later[0])
    assert len([at for at in later if at < finished]) == 2
    assert len(rows(recorder)) == 8


async def test_cells_that_starve_for_a_limit_that_refuses_nothing_are_run_fewer_at_once_too(
    tmp_path: Path, spec: SweepSpec, recorder: LogRecorder
) -> None:
    starving = tiny_agent(tmp_path / "starving.toml", "exit 75")
    spec = msgspec.structs.replace(spec, agents=[starving], concurrency=2)
    events: list[Event] = []
    await go(spec, recorder, events)
    told = [event for event in events if isinstance(event, SweepThrottled)]
    assert told == [SweepThrottled(status=None, at_once=1, wait_s=0.0)]
    running, most = 0, list[int]()
    for event in events[events.index(told[0]) :]:
        running += isinstance(event, CellStarted) - isinstance(event, CellFinished)
        most.append(running)
    assert max(most) <= 1
