"""How a sweep's progress is shown on stderr: a bar on a terminal, a line for each cell elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cellmeter_harness.cli.output import stderr_console
from cellmeter_harness.events import (
    CellFinished,
    CellsLeft,
    CellStarted,
    Event,
    SweepFinished,
    SweepPlanned,
    SweepThrottled,
)
from cellmeter_proxy.record import Cell


class SweepProgress:
    """Takes the events of a sweep; use it as a context manager around the run."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or stderr_console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._bar: TaskID | None = None
        self._started_at: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case SweepPlanned(sweep_id=sweep, done=done, pending=pending):
                self._bar = self._progress.add_task(sweep, total=done + pending, completed=done)
                if done:
                    self._console.print(f"{done} of {done + pending} cells are in the log already")
            case CellStarted(cell_id=cell_id):
                if self._bar is not None:
                    self._progress.update(self._bar, description=cell_id)
            case CellFinished(cell=cell, retried=retried):
                self._console.print(_line(cell, retried=retried))
                if self._bar is not None and not retried:
                    self._progress.advance(self._bar)
            case SweepThrottled(status=status, at_once=at_once, wait_s=wait_s):
                later = f", the next in {wait_s:.0f} s" if wait_s >= 1 else ""
                cells = "1 cell at a time" if at_once == 1 else f"{at_once} cells at once"
                why = "cells wait too long for its limit" if status is None else f"it refuses calls (HTTP {status})"
                self._console.print(f"the provider is busy, {why}: {cells}{later}")
            case CellsLeft(reason=reason, cells=left):
                self._console.print(f"{reason}; {len(left)} cells are left unrun")
            case SweepFinished(cells=cells, passed=passed, infrastructure=infrastructure, unrun=unrun):
                kept_out = f", {infrastructure} failed for the infrastructure's reasons" if infrastructure else ""
                self._console.print(f"{cells} cells, {passed} passed{kept_out}")
                if unrun:
                    self._console.print("left for a later run:", *unrun, sep="\n  ")


def _line(cell: Cell, *, retried: bool) -> str:
    took = (cell.ended_at - cell.started_at) / 1e6 if cell.ended_at is not None else 0
    if cell.grade is not None and cell.grade.passed and cell.failure_class in {None, "none"}:
        verdict = "passed"
    elif cell.failure_class in {None, "none"}:
        verdict = "failed"
    else:
        verdict = f"{cell.failure_class}: {cell.failure_reason}"
    again = "; will be tried again" if retried else ""
    return f"{cell.cell_id}  {took:.1f} s  {verdict}{again}"
