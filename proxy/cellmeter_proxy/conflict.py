"""Rows of two logs that cannot both stand in one, and what is said about them. Pure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.moments import differences
from cellmeter_proxy.record import Call, Cell, Record, Sweep
from cellmeter_proxy.schema import TABLES

_CHANGED: Final = "one of the two was changed after it was recorded; `cellmeter verify` may say which"
_CURES: Final[dict[type[Record], str]] = {
    Sweep: "two sweeps of one name cannot share a log: keep their logs apart, or run one of them again under another"
    " name; where one log holds an earlier form of the same sweep, merge only the newer one, into a new log",
    Cell: "the cell was run twice, each time as the same attempt: keep the logs apart, or run one of the two sweeps"
    " again under another name",
}
_SESSION: Final = (
    "calls of one session are numbered once: keep the logs apart, and record under names that differ"
    " (`http://HOST:PORT/s/NAME/v1`)"
)
_SHOWN: Final = 60
_NAMED: Final = 3


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """Two rows that cannot both stand."""

    table: str
    key: str
    what: str
    """The columns that differ, each with both values."""
    cure: str


class MergeConflictError(CellmeterError):
    """Logs that contradict each other; nothing was written."""

    def __init__(self, message: str, conflicts: list[Conflict], *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.conflicts = conflicts


def conflict_of(ours: Record, theirs: Record, key: Sequence[object]) -> Conflict:
    """The conflict of two rows of one key."""
    names = differences(ours, theirs)
    said = [f"{name} is {_short(getattr(ours, name))} in OUT, {_short(getattr(theirs, name))} in LOG" for name in names]
    return Conflict(
        table=TABLES[type(ours)],
        key=", ".join(map(str, key)),
        what="; ".join(said[:_NAMED]) + (f"; {', '.join(names[_NAMED:])} differ too" if names[_NAMED:] else ""),
        cure=_CURES.get(type(ours), _CHANGED),
    )


def conflict_of_place(ours: Call, theirs: Call) -> Conflict:
    """The conflict of two calls that have the same number in one session."""
    return Conflict(
        table=TABLES[Call],
        key=f"number {ours.seq} of session {ours.session!r}",
        what=f"is the call {ours.call_id} in OUT, the call {theirs.call_id} in LOG",
        cure=_SESSION,
    )


def refusal(log: Path, out: Path, conflicts: list[Conflict]) -> MergeConflictError:
    """What to say of a log whose rows contradict those of ``out``, with the cure."""
    first, more = conflicts[0], len(conflicts) - 1
    return MergeConflictError(
        f"{log} cannot be merged into {out}: {first.table}: {first.key}: {first.what}"
        + (f" (and {more} more of {first.table})" if more else ""),
        conflicts,
        hint=first.cure,
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
