"""What a run tells whoever shows its progress."""

import msgspec

from cellmeter_proxy.record import Cell


class SweepPlanned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """It is known what is left to be done."""

    sweep_id: str
    done: int
    """Cells that an earlier run finished."""
    pending: int


class CellStarted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An attempt at a cell begins."""

    cell_id: str
    attempt: int


class CellFinished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An attempt at a cell is over and in the log."""

    cell: Cell
    retried: bool
    """Whether the cell will be tried again."""


class SweepThrottled(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The provider limits the rate, so that fewer cells are run at once, or later; told once in a run."""

    status: int | None
    """Of the last call that it refused; None where calls only wait too long for their turn."""
    at_once: int
    """How many cells may run for now."""
    wait_s: float
    """How long no further cell is started, in seconds."""


class CellsLeft(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Cells will not be run in this run; a later one goes on with them."""

    reason: str
    cells: list[str]
    """Their ids. They have no row of this run."""


class SweepFinished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Nothing more is done in this run: the newest attempts at all cells, counted."""

    sweep_id: str
    cells: int
    passed: int
    infrastructure: int
    """Cells that failed for the infrastructure's reasons as often as the sweep's bound allows, or until the sweep or
    their agent with its model was stopped.
    """
    unrun: list[str] = []
    """Cells that were left for a later run, the ones included that the sweep's budget ended."""


Event = SweepPlanned | CellStarted | CellFinished | SweepThrottled | CellsLeft | SweepFinished
