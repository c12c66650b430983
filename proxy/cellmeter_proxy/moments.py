"""Two rows of one key: the same, one of them at a later moment, or in conflict. Pure.

A writer completes a row that it has begun: a call is open, then closed, or marked as interrupted where its process had
ended; later its cost and its estimates are filled in. A cell is begun, then finished, or given up where its harness had
ended. So a later row says more than an earlier one and contradicts it nowhere, but for the columns that tell of the
progress itself. A sweep that was begun on several machines is one sweep where its spec is the same. Rows of the other
tables are complete when they are written.
"""

from typing import Final, TypeVar

from cellmeter_proxy.record import Call, Cell, Numbers, Record, Sweep

R = TypeVar("R", bound=Record)

_MOVING: Final[dict[type[Record], frozenset[str]]] = {
    Call: frozenset({"state", "outcome", "error", "redactions", "sent_hash", "usage_source"}),
    Cell: frozenset({"failure_class", "failure_reason", "timed_out"}),
}
"""The columns that a row's completion may change, rather than fill in."""
_FILLED_IN_LATER: Final[dict[type[Record], frozenset[str]]] = {
    Call: frozenset(Numbers.__struct_fields__) | {"usage_source"}
}
"""The columns that are filled in once a row is complete."""
_BEGINNING: Final = ("started_at", "software_version", "host")
"""The columns of a sweep that tell when and where it was begun, rather than what it is."""


def later(ours: R, theirs: R) -> R | None:
    """The row that says more, ours where both say the same, or None where they contradict each other.

    Of one sweep the row of its first beginning stays, whichever that is.
    """
    if isinstance(ours, Sweep):
        if not set(differences(ours, theirs)) <= set(_BEGINNING):
            return None
        here, there = ([getattr(row, name) for name in _BEGINNING] for row in (ours, theirs))
        return ours if here <= there else theirs
    if _follows(theirs, ours):
        return ours
    return theirs if _follows(ours, theirs) else None


def differences(ours: Record, theirs: Record) -> list[str]:
    """The columns in which two rows of one type differ."""
    return [name for name in ours.__struct_fields__ if getattr(ours, name) != getattr(theirs, name)]


def _follows(earlier: Record, row: Record) -> bool:
    """Whether ``row`` is the earlier one, or that one at a later moment."""
    kind, progress = type(row), _progress(row) - _progress(earlier)
    if progress < 0:
        return False
    moving = _MOVING.get(kind, frozenset()) if progress else frozenset[str]()
    fillable = frozenset(row.__struct_fields__) if progress else _FILLED_IN_LATER.get(kind, frozenset())
    return all(
        name in moving or (name in fillable and _is_filled_in(getattr(earlier, name), getattr(row, name)))
        for name in differences(earlier, row)
    )


def _progress(row: Record) -> int:
    """0 begun, 1 given up for its writer, 2 complete."""
    match row:
        case Call(state="open") | Cell(ended_at=None, failure_class=None):
            return 0
        case Call(state="interrupted", ended_at=None) | Cell(ended_at=None):
            return 1
        case _:
            return 2


def _is_filled_in(before: object, now: object) -> bool:
    return before is None or before == [] or (before, now) == ("none", "estimated")
