"""The per-call token audit of a log: every call, sums that hide nothing, and what deserves attention.

Invariant: a sum says over how many calls it is, and how many had no number. What the agent itself printed is held
against the recorded calls and never enters them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt, Call, Cell
from cellmeter_scoring.attention import findings_of
from cellmeter_scoring.calls import attempts_by_call
from cellmeter_scoring.finding import Finding
from cellmeter_scoring.operations import Operation, operation_ids, operations
from cellmeter_scoring.reconcile import Reconciliation, reconcile
from cellmeter_scoring.retries import retries_of
from cellmeter_scoring.totals import Total, total_of


class AuditedCall(Call, frozen=True, kw_only=True):
    """A call, column for column, with every try upstream that served it, and its place among the agent's retries."""

    operation_id: str
    """The first call of the operation that this one belongs to; its own id where it is the first."""
    retry_of: str | None
    """The call that the agent made again with this one."""
    attempts: list[Attempt]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the audited calls, by column."""

    calls: int
    prompt_tokens: Total
    cache_read_tokens: Total
    cache_write_tokens: Total
    completion_tokens: Total
    reasoning_tokens: Total
    estimated_prompt_tokens: Total
    estimated_completion_tokens: Total
    cost: Total
    latency_ms: Total
    request_bytes: Total
    response_bytes: Total


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What a log, or one cell or session of it, spent."""

    calls: list[AuditedCall]
    totals: Totals
    findings: list[Finding]
    operations: list[Operation]
    """What the agent asked for, each with all the calls that it took."""
    reconciliations: list[Reconciliation]
    """Recorded totals against those that the agent printed, where it printed any."""


_SUMMED: Final = tuple(name for name in Totals.__struct_fields__ if name != "calls")


def audit(log: Log | Path | str, cell: str | None = None, session: str | None = None) -> Audit:
    """Audit the calls of a log, in the order in which they were made.

    Args:
        log: an open log, or where it is.
        cell: only the calls of this cell, all attempts of it.
        session: only the calls of this session.

    Raises:
        CellmeterError: there is no such log, or nothing of that name in it.

    """
    if not isinstance(log, Log):
        with Log.read(log) as reading:
            return audit(reading, cell, session)
    where, params = _chosen(cell, session)
    calls = list(log.rows(Call, f"{where} ORDER BY started_at, session, seq", params))
    cells = [row for row in log.rows(Cell) if cell in {None, row.cell_id}]
    if not calls:
        _refuse_unknown(cells, cell, session)
    attempts = attempts_by_call(log.rows(Attempt, f"call_id IN (SELECT call_id FROM calls WHERE {where})", params))
    return sum_up(_audited(calls, attempts), _reconciled(cells, calls))


def sum_up(calls: Sequence[AuditedCall], reconciliations: Sequence[Reconciliation]) -> Audit:
    """The audit of these calls."""
    attempts = {call.call_id: call.attempts for call in calls}
    return Audit(
        calls=list(calls),
        totals=_totals(calls),
        findings=findings_of(calls, attempts),
        operations=operations(calls, attempts),
        reconciliations=list(reconciliations),
    )


def _chosen(cell: str | None, session: str | None) -> tuple[str, list[str]]:
    named = {"cell_id": cell, "session": session}
    chosen = {column: value for column, value in named.items() if value is not None}
    return " AND ".join(f"{column} = ?" for column in chosen) or "1", list(chosen.values())


def _refuse_unknown(cells: Sequence[Cell], cell: str | None, session: str | None) -> None:
    if session is not None:
        raise CellmeterError(f"the log has no call in session {session!r}", hint="leave --session out to see them all")
    if cell is not None and not cells:
        raise CellmeterError(f"the log has no cell {cell!r}", hint="leave --cell out to see them all")


def _audited(calls: Sequence[Call], attempts: Mapping[str, list[Attempt]]) -> list[AuditedCall]:
    links = retries_of(calls)
    ids = operation_ids(calls, links)
    return [
        AuditedCall(
            **msgspec.structs.asdict(call),
            operation_id=ids[call.call_id],
            retry_of=links.get(call.call_id),
            attempts=attempts.get(call.call_id, []),
        )
        for call in calls
    ]


def _totals(calls: Sequence[Call]) -> Totals:
    return Totals(calls=len(calls), **{name: total_of(getattr(call, name) for call in calls) for name in _SUMMED})


def _reconciled(cells: Iterable[Cell], calls: Iterable[Call]) -> list[Reconciliation]:
    by_cell: defaultdict[tuple[str | None, int | None], list[Call]] = defaultdict(list)
    for call in calls:
        by_cell[call.cell_id, call.cell_attempt].append(call)
    return [line for cell in cells for line in reconcile(cell, by_cell[cell.cell_id, cell.attempt])]
