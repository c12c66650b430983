"""One attempt at a cell: ``prepare → run → collect → grade → finalize``.

Invariants: the cell's row is in the log before anything happens, and is completed in any case: also when a
phase fails, when the grader cannot run and when the whole is cancelled. What stops a phase is kept in its
``Phase``; later phases that can still run, do. When it is over, the key is worth nothing, no process of the
agent is alive, and the scratch directory is gone.

``started_at`` and ``ended_at`` bound the agent's part, preparation included: on the pages of
codingagentbench.com a cell's wall clock is the sum of its ``prepare`` and ``adapter_run`` spans, and grading
is not charged to the agent. The phases have times of their own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from cellmeter_harness.phases import (
    BEHAVIOR_MODE,
    PLUGIN_STACK,
    CellState,
    collect,
    grade,
    prepare,
    run,
)
from cellmeter_harness.recorder import Recorder, attempts_of, calls_of
from cellmeter_harness.sandbox import Sandbox
from cellmeter_harness.sweep import CellPlan
from cellmeter_harness.trace import sentence
from cellmeter_harness.uninterrupted import in_thread, uninterrupted
from cellmeter_proxy.record import Artifact, Attempt, Call, Cell, FailureClass, Grade, Phase, PhaseName, now_us

_SETTLE_S: Final = 10.0
_POLL_S: Final = 0.05


class Verdict(Protocol):
    """Why a cell failed, if it did, and the calls that prove it."""

    @property
    def failure_class(self) -> FailureClass: ...

    @property
    def reason(self) -> str | None: ...

    @property
    def evidence(self) -> Sequence[str]: ...


class Classify(Protocol):
    """How a completed cell is judged; ``cellmeter_scoring.classify`` is one."""

    def __call__(self, cell: Cell, calls: Sequence[Call], attempts: Sequence[Attempt]) -> Verdict: ...


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """What all cells of a run share."""

    sandbox: Sandbox
    recorder: Recorder
    classify: Classify
    versions: Mapping[str, str] = {}
    """The version of each agent as it was found on this machine; else its manifest's is recorded."""


async def run_cell(plan: CellPlan, attempt: int, bench: Bench) -> Cell:
    """Run one attempt at a cell, and return its completed row.

    Raises:
        asyncio.CancelledError: the caller was cancelled; the row has been completed as cancelled.
        CellmeterError: the log cannot be written.

    """
    state = CellState(plan, attempt, bench.sandbox, bench.recorder)
    running = _new_row(plan, attempt, bench)
    phases: list[Phase] = []
    await bench.recorder.append(running)
    cancelled = False
    try:
        await _run_phases(state, phases)
    except asyncio.CancelledError:
        cancelled = True
        raise
    finally:
        cell = await uninterrupted(_finalize(state, running, phases, None if cancelled else bench.classify))
    return cell


async def _run_phases(state: CellState, phases: list[Phase]) -> None:
    if not await _timed("prepare", prepare(state), phases):
        return
    # An agent that failed may still have changed the workspace: it is collected and graded all the same.
    await _timed("run", run(state), phases)
    if await _timed("collect", collect(state), phases):
        await _timed("grade", grade(state), phases)


async def _timed(name: PhaseName, work: Awaitable[None], phases: list[Phase]) -> bool:
    """Do a phase's work and note its time and what stopped it; whether it was done."""
    started_at = now_us()
    error: str | None = None
    try:
        await work
    except asyncio.CancelledError as cancellation:
        error = sentence(cancellation)
        raise
    except Exception as stopped:  # noqa: BLE001 - whatever stops a phase is a fact about the cell
        error = sentence(stopped)
    finally:
        phases.append(Phase(name=name, started_at=started_at, ended_at=now_us(), error=error))
    return error is None


def _new_row(plan: CellPlan, attempt: int, bench: Bench) -> Cell:
    agent, task = plan.agent, plan.task
    return Cell(
        cell_id=plan.cell_id,
        attempt=attempt,
        sweep_id=plan.sweep_id,
        agent=agent.name,
        agent_version=bench.versions.get(agent.name, agent.version),
        model=plan.model,
        category=task.category,
        task=task.name,
        run=plan.run,
        task_digest=task.digest,
        isolation=bench.sandbox.isolation,
        expects_calls=agent.expects_calls,
        plugin_stack=PLUGIN_STACK,
        behavior_mode=BEHAVIOR_MODE,
        started_at=now_us(),
        task_facts=task.facts(),
        state_files=agent.state_files,
    )


async def _finalize(state: CellState, running: Cell, phases: list[Phase], classify: Classify | None) -> Cell:
    """Clean up, keep what there is, and complete the row. Without a ``classify`` the cell was cancelled."""
    ended_at = _end_of_the_run(state, phases)
    await _timed("finalize", _clean_up(state), phases)
    artifacts = await _store_artifacts(state)
    execution = state.execution
    cell = msgspec.structs.replace(
        running,
        ended_at=ended_at,
        phases=phases,
        exit_code=execution.exit_code if execution else None,
        timed_out=execution.timed_out if execution else False,
        workspace=state.workspace,
        grade=_redacted_grade(state),
        reported=state.reported,
    )
    cell = await _classified(cell, state.recorder, classify)
    await state.recorder.append(*artifacts, *sorted(state.trace.spans, key=lambda span: span.started_at))
    await state.recorder.replace(cell)
    return cell


def _end_of_the_run(state: CellState, phases: Sequence[Phase]) -> int:
    """When the agent ended or its time was up; the grace that it was given after that is not its time."""
    if state.execution is not None and state.execution.ended_at is not None:
        return state.execution.ended_at
    return next((phase.ended_at for phase in phases if phase.name == "run"), now_us())


async def _clean_up(state: CellState) -> None:
    with state.trace.span("cleanup", f"cleanup:{state.plan.agent.name}"):
        if state.scratch is not None:
            await in_thread(state.scratch.remove)


async def _store_artifacts(state: CellState) -> list[Artifact]:
    """Keep outputs and the patch in the log. The cell's own key is no part of them."""
    redactor = state.redactor()
    contents: dict[str, bytes | None] = {
        "stdout": state.execution.stdout.content() if state.execution else None,
        "stderr": state.execution.stderr.content() if state.execution else None,
        "diff": state.patch,
        "grader_stdout": state.grading.stdout.content() if state.grading else None,
        "grader_stderr": state.grading.stderr.content() if state.grading else None,
    }
    artifacts = []
    for name, content in contents.items():
        if content is not None:
            clean, _ = redactor.bytes(content)
            row = {"cell_id": state.plan.cell_id, "cell_attempt": state.attempt, "name": name, "size": len(clean)}
            artifacts.append(msgspec.convert(row | {"blob": await state.recorder.store(clean)}, Artifact))
    return artifacts


def _redacted_grade(state: CellState) -> Grade | None:
    if state.grade is None:
        return None
    redactor = state.redactor()
    return msgspec.structs.replace(
        state.grade,
        stdout_tail=redactor.text(state.grade.stdout_tail)[0],
        stderr_tail=redactor.text(state.grade.stderr_tail)[0],
    )


async def _classified(cell: Cell, recorder: Recorder, classify: Classify | None) -> Cell:
    """The cell with its failure class, decided on the calls as they were when the last of them was over."""
    if classify is None:
        return msgspec.structs.replace(cell, failure_class="cancelled", failure_reason="the run was interrupted")
    calls = await _settled_calls(cell, recorder)
    attempts = await recorder.read(attempts_of(cell.cell_id, cell.attempt))
    try:
        verdict = classify(cell, calls, attempts)
    except Exception as error:  # noqa: BLE001 - the row is completed in any case
        reason = f"the cell could not be classified: {sentence(error)}"
        return msgspec.structs.replace(cell, failure_class="harness_error", failure_reason=reason)
    return msgspec.structs.replace(
        cell,
        failure_class=verdict.failure_class,
        failure_reason=verdict.reason,
        evidence=list(verdict.evidence),
    )


async def _settled_calls(cell: Cell, recorder: Recorder) -> list[Call]:
    """The calls of the cell once none is open: the proxy drains an answer, within a bound, after its agent has gone."""
    query: Callable[..., list[Call]] = calls_of(cell.cell_id, cell.attempt)
    calls = await recorder.read(query)
    deadline = asyncio.get_running_loop().time() + _SETTLE_S
    while any(call.state == "open" for call in calls) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_POLL_S)
        calls = await recorder.read(query)
    return calls
