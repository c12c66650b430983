"""The records of one cell, read from a captured log: all that scoring ever sees.

Invariant: the newest attempt of a cell counts; the earlier ones are kept beside it and never mixed in.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Artifact, Attempt, Call, Cell, Span

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

STDOUT_TAIL_CHARS: Final = 8192
"""How much of the end of the agent's stdout is looked at."""


class CellEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One cell's newest attempt with everything recorded of it."""

    cell: Cell
    earlier: Sequence[Cell] = ()
    """Earlier attempts of the same cell, oldest first."""
    calls: Sequence[Call] = ()
    """In the order in which they were made."""
    attempts: Sequence[Attempt] = ()
    """Every try upstream for these calls, in order."""
    spans: Sequence[Span] = ()
    stdout_tail: str | None = None
    """The end of what the agent printed; None where it was not kept."""


def load_evidence(log: Log) -> list[CellEvidence]:
    """The evidence of every cell of a log, in the order in which the cells were first run."""
    rows = _grouped(log.rows(Cell, "1 ORDER BY attempt, rowid"), lambda cell: cell.cell_id)
    calls = _grouped(
        log.rows(Call, "cell_id IS NOT NULL ORDER BY started_at, seq"),
        lambda call: (call.cell_id, call.cell_attempt),
    )
    attempts = _grouped(
        log.rows(Attempt, "call_id IN (SELECT call_id FROM calls WHERE cell_id IS NOT NULL) ORDER BY started_at, n"),
        lambda attempt: attempt.call_id,
    )
    spans = _grouped(log.rows(Span), lambda span: (span.cell_id, span.cell_attempt))
    stdouts = {(row.cell_id, row.cell_attempt): row for row in log.rows(Artifact, "name = 'stdout'")}
    evidence = []
    for tries in rows.values():
        cell = tries[-1]
        key = (cell.cell_id, cell.attempt)
        own = calls.get(key, [])
        evidence.append(
            CellEvidence(
                cell=cell,
                earlier=tries[:-1],
                calls=own,
                attempts=[attempt for call in own for attempt in attempts.get(call.call_id, [])],
                spans=spans.get(key, []),
                stdout_tail=_tail(log, stdouts.get(key)),
            )
        )
    return evidence


def _grouped(rows: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _tail(log: Log, artifact: Artifact | None) -> str | None:
    if artifact is None or not log.has_blob(artifact.blob):
        return None
    return log.blob(artifact.blob).decode(errors="replace")[-STDOUT_TAIL_CHARS:]
