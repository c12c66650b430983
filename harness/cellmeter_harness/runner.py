"""Running or resuming a sweep.

Invariants: one run of a sweep at a time on a log; every attempt is kept; a sweep that is cut short, by Ctrl-C,
by a full disk or by kill -9, goes on from what its log holds.
"""

import asyncio
import json
import os
import platform
from collections import deque
from collections.abc import Callable, Collection, Iterable
from importlib.metadata import version

import msgspec

from cellmeter_harness.cell import Bench, Classify, run_cell
from cellmeter_harness.events import CellFinished, CellStarted, Event, SweepFinished, SweepPlanned
from cellmeter_harness.lock import sweep_lock
from cellmeter_harness.plan import Outlook, Pending, abandoned, again, is_failure, merged, outlook, refuse_mixture
from cellmeter_harness.preflight import check_programs
from cellmeter_harness.recorder import Recorder, cells_of, sweep_of
from cellmeter_harness.sandbox import Sandbox
from cellmeter_harness.sweep import SweepDocument, SweepSpec, describe, plan_cells, read_document, spec_json
from cellmeter_proxy.log import digest_of
from cellmeter_proxy.record import Cell, Sweep, now_us


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """The scoring library's part in a run: why a cell failed, and which reasons are the infrastructure's."""

    classify: Classify
    infrastructure: Collection[str]


def _silent(_event: Event) -> None:
    pass


async def run_sweep(
    spec: SweepSpec,
    recorder: Recorder,
    *,
    sandbox: Sandbox,
    judge: Judge,
    on_event: Callable[[Event], None] = _silent,
) -> SweepFinished:
    """Run what is left of a sweep.

    Args:
        spec: the sweep.
        recorder: the proxy that its calls go through, and its log.
        sandbox: where its cells run.
        judge: how completed cells are judged.
        on_event: told of progress, in the order in which things happen.

    Raises:
        CellmeterError: a program is missing, the sweep is being run already, its cells would be mixed with ones that
            were run under other conditions, or the log cannot be written.
        asyncio.CancelledError: the caller was cancelled; the cells in flight have been recorded as cancelled.

    """
    with sweep_lock(spec.log, spec.name):
        needed = {plan.task.id: plan.task for plan in plan_cells(spec)}
        versions = await check_programs(spec.agents, needed.values(), sandbox)
        bench = Bench(sandbox=sandbox, recorder=recorder, classify=judge.classify, versions=versions)
        todo = await _resume(spec, bench, judge)
        on_event(SweepPlanned(sweep_id=spec.name, done=len(todo.done), pending=len(todo.pending)))
        queue = deque(todo.pending)
        finished: list[Cell] = []
        await _work_off(queue, finished, spec, bench, judge, on_event)
        end = _summary([*todo.done, *todo.exhausted, *finished], spec.name, judge.infrastructure)
        on_event(end)
        return end


async def _resume(spec: SweepSpec, bench: Bench, judge: Judge) -> Outlook:
    """Bring the sweep's row and the rows of a dead run up to date, and decide what is left to be done."""
    recorder = bench.recorder
    for row in abandoned(await recorder.read(cells_of(spec.name))):
        await recorder.replace(row)
    plans, rows = plan_cells(spec), await recorder.read(cells_of(spec.name))
    todo = outlook(plans, rows, spec.retry.infrastructure, judge.infrastructure)
    earlier = await recorder.read(sweep_of(spec.name))
    before, now = read_document(earlier.spec) if earlier else None, describe(spec)
    isolation, versions = bench.sandbox.isolation, dict(bench.versions)
    refuse_mixture(plans, todo.done, before=before, now=now, isolation=isolation, versions=versions)
    row = _sweep_row(spec.name, merged(before, now), isolation, earlier.started_at if earlier else now_us())
    await (recorder.replace(row) if earlier else recorder.append(row))
    return todo


async def _work_off(
    queue: deque[Pending],
    finished: list[Cell],
    spec: SweepSpec,
    bench: Bench,
    judge: Judge,
    on_event: Callable[[Event], None],
) -> None:
    """Run attempts until none is pending, as many at a time as the sweep says."""

    async def worker() -> None:
        while queue:
            pending = queue.popleft()
            on_event(CellStarted(cell_id=pending.plan.cell_id, attempt=pending.attempt))
            cell = await run_cell(pending.plan, pending.attempt, bench)
            further = again(pending, cell, spec.retry.infrastructure, judge.infrastructure)
            on_event(CellFinished(cell=cell, retried=further is not None))
            # At the end of the queue, so that whatever was wrong has had time to pass.
            if further is not None:
                queue.append(further)
            else:
                finished.append(cell)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(spec.concurrency, len(queue))):
                group.create_task(worker())
    except BaseExceptionGroup as several:
        raise _first(several) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _summary(newest: Iterable[Cell], sweep_id: str, infrastructure: Collection[str]) -> SweepFinished:
    cells = list(newest)
    failed = [cell for cell in cells if is_failure(cell, infrastructure)]
    passed = sum(1 for cell in cells if cell.grade is not None and cell.grade.passed)
    return SweepFinished(sweep_id=sweep_id, cells=len(cells), passed=passed, infrastructure=len(failed))


def _sweep_row(sweep_id: str, document: SweepDocument, isolation: str, started_at: int) -> Sweep:
    spec = spec_json(document)
    host = {
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "isolation": isolation,
    }
    return Sweep(
        sweep_id=sweep_id,
        spec=spec.decode(),
        spec_digest=digest_of(spec),
        started_at=started_at,
        software_version=version("cellmeter"),
        host=json.dumps(host),
    )
