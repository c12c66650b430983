"""Running or resuming a sweep.

Invariants: one run of a sweep at a time on a log; every attempt is kept; a sweep that is cut short, by Ctrl-C,
by a full disk or by kill -9, goes on from what its log holds.
"""

import asyncio
import json
import os
import platform
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.metadata import version
from typing import Final

import msgspec

from cellmeter_harness.backoff import Backoff
from cellmeter_harness.cell import Bench, Classify, run_cell
from cellmeter_harness.events import (
    CellFinished,
    CellsLeft,
    CellStarted,
    Event,
    SweepFinished,
    SweepPlanned,
    SweepThrottled,
)
from cellmeter_harness.plan import (
    Outlook,
    Pending,
    abandoned,
    again,
    is_failure,
    merged,
    once_more,
    outlook,
    refuse_mixture,
    was_cut_short,
)
from cellmeter_harness.preflight import check_programs
from cellmeter_harness.recorder import Recorder, attempts_of, calls_of, cells_of, sweep_of
from cellmeter_harness.sandbox import Sandbox
from cellmeter_harness.streaks import Pair, Streaks
from cellmeter_harness.sweep import SweepDocument, SweepSpec, describe, plan_cells, read_document, spec_json
from cellmeter_proxy.log import digest_of
from cellmeter_proxy.record import Attempt, Call, Cell, Sweep, now_us

_GLANCE_S: Final = 0.2
"""How often a cell that is held back looks again: the provider may have refused more, and others may have ended."""


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """The scoring library's part in a run: why a cell failed, and which reasons are the infrastructure's."""

    classify: Classify
    infrastructure: Collection[str]
    is_denied: Callable[[Sequence[Call], Sequence[Attempt]], bool]
    """Whether the calls of a cell all ended in a refusal of the provider's key."""


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
    """Run what is left of a sweep. The caller holds its lock (``lock.sweep_lock``).

    Args:
        spec: the sweep.
        recorder: the proxy that its calls go through, and its log.
        sandbox: where its cells run.
        judge: how completed cells are judged.
        on_event: told of progress, in the order in which things happen.

    Raises:
        CellmeterError: a program is missing, its cells would be mixed with ones that
            were run under other conditions, or the log cannot be written.
        asyncio.CancelledError: the caller was cancelled; the cells in flight have been recorded as cancelled.

    """
    versions = await check_programs(spec.agents, spec.tasks, sandbox)
    bench = Bench(sandbox=sandbox, recorder=recorder, classify=judge.classify, versions=versions)
    return await _Run(spec, bench, judge, on_event).to_its_end()


class _Run:
    """One run of a sweep: the attempts that are still to be made, and the cells that will not be tried again."""

    def __init__(self, spec: SweepSpec, bench: Bench, judge: Judge, on_event: Callable[[Event], None]) -> None:
        self._spec = spec
        self._bench = bench
        self._judge = judge
        self._on_event = on_event
        self._queue: deque[Pending] = deque()
        self._final: list[Cell] = []
        self._retrying: dict[str, Cell] = {}
        """The newest attempt at each cell that is to be tried again."""
        self._streaks = Streaks()
        self._stopped: set[Pair] = set()
        self._unrun: list[str] = []
        self._backoff = Backoff(bench.recorder.throttle, spec.concurrency)
        self._told = False

    async def to_its_end(self) -> SweepFinished:
        todo = await self._resume()
        self._queue.extend(todo.pending)
        self._final += [*todo.done, *todo.exhausted]
        self._on_event(SweepPlanned(sweep_id=self._spec.name, done=len(self._final), pending=len(todo.pending)))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._spec.concurrency, len(self._queue))):
                    group.create_task(self._work())
        except BaseExceptionGroup as several:
            raise _first(several) from None
        end = _summary(self._final, self._unrun, self._spec.name, self._judge.infrastructure)
        self._on_event(end)
        return end

    async def _resume(self) -> Outlook:
        """Bring the rows of a dead run and of the sweep up to date, and decide what is left to be done."""
        spec, recorder, isolation = self._spec, self._bench.recorder, self._bench.sandbox.isolation
        for cell in abandoned(await recorder.read(cells_of(spec.name))):
            await recorder.replace(cell)
        plans, rows = plan_cells(spec), await recorder.read(cells_of(spec.name))
        todo = outlook(plans, rows, spec.retry.infrastructure, self._judge.infrastructure)
        if spec.retry_failed:
            todo = once_more(todo, plans, spec.retry.infrastructure)
        earlier = await recorder.read(sweep_of(spec.name))
        before, now = read_document(earlier.spec) if earlier else None, describe(spec)
        versions = dict(self._bench.versions)
        refuse_mixture(plans, todo.done, before=before, now=now, isolation=isolation, versions=versions)
        row = _sweep_row(spec.name, merged(before, now), isolation, earlier.started_at if earlier else now_us())
        await (recorder.replace(row) if earlier else recorder.append(row))
        return todo

    async def _work(self) -> None:
        """Make attempts until none is pending."""
        while await self._may_go_on():
            pending = self._queue.popleft()
            self._on_event(CellStarted(cell_id=pending.plan.cell_id, attempt=pending.attempt))
            at_start = self._backoff.start()
            cell = await run_cell(pending.plan, pending.attempt, self._bench)
            self._backoff.end(at_start, starved=cell.failure_class == "rate_limited")
            self._conclude(pending, cell, self._streaks.add(cell, denied=await self._is_denied(cell)))

    async def _may_go_on(self) -> bool:
        """Wait until another cell may be started; whether there is one to be made."""
        while self._queue:
            spent = self._bench.recorder.sweep_spent()
            if spent is not None:
                self._leave(spent, self._queue)
                return False
            backoff = self._backoff
            backoff.look()
            if backoff.slowed and not self._told:
                self._told = True
                status = self._bench.recorder.throttle.status
                self._on_event(SweepThrottled(status=status, at_once=backoff.at_once, wait_s=backoff.wait_s()))
            if backoff.may_start:
                return True
            await asyncio.sleep(min(backoff.wait_s() or _GLANCE_S, _GLANCE_S))
        return False

    def _conclude(self, pending: Pending, cell: Cell, stop: str | None) -> None:
        """Decide what follows from a finished attempt; ``stop`` says why its pair is to be stopped, if it is."""
        pair = Pair(cell.agent, cell.model)
        if stop is not None:
            self._stopped.add(pair)
        bound, infrastructure = self._spec.retry.infrastructure, self._judge.infrastructure
        further = None if pair in self._stopped else again(pending, cell, bound, infrastructure)
        self._on_event(CellFinished(cell=cell, retried=further is not None))
        if stop is not None:
            self._leave(stop, [other for other in self._queue if pair == (other.plan.agent.name, other.plan.model)])
        # At the end of the queue, so that whatever was wrong has had time to pass.
        if further is not None:
            self._retrying[cell.cell_id] = cell
            self._queue.append(further)
        elif was_cut_short(cell):
            self._unrun.append(cell.cell_id)
        else:
            self._final.append(cell)

    async def _is_denied(self, cell: Cell) -> bool:
        if not is_failure(cell, self._judge.infrastructure):
            return False
        read, (cell_id, attempt) = self._bench.recorder.read, (cell.cell_id, cell.attempt)
        return self._judge.is_denied(await read(calls_of(cell_id, attempt)), await read(attempts_of(cell_id, attempt)))

    def _leave(self, reason: str, pending: Iterable[Pending]) -> None:
        """Make no further attempt at these cells in this run; the ones that have had one keep it."""
        ids = [one.plan.cell_id for one in pending]
        self._queue = deque(one for one in self._queue if one.plan.cell_id not in ids)
        unrun = [cell_id for cell_id in ids if cell_id not in self._retrying]
        self._final += [self._retrying[cell_id] for cell_id in ids if cell_id in self._retrying]
        self._unrun += unrun
        self._on_event(CellsLeft(reason=reason, cells=unrun))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _summary(newest: Iterable[Cell], unrun: list[str], sweep_id: str, infrastructure: Collection[str]) -> SweepFinished:
    cells = list(newest)
    failed = [cell for cell in cells if is_failure(cell, infrastructure)]
    passed = sum(1 for cell in cells if cell.grade is not None and cell.grade.passed)
    return SweepFinished(sweep_id=sweep_id, cells=len(cells), passed=passed, infrastructure=len(failed), unrun=unrun)


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
