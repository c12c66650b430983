"""``cellmeter audit``: every call of a log, sums that hide nothing, and what deserves attention."""

from datetime import UTC, datetime
from pathlib import Path

import click

from cellmeter_harness.cli.output import (
    Column,
    Format,
    emit,
    format_option,
    log_argument,
    number,
    show_table,
    stdout_console,
)
from cellmeter_scoring import Audit, AuditedCall
from cellmeter_scoring import audit as audit_log


def _time(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3]


def _with_part(whole: int | None, part: int | None, name: str) -> str:
    return number(whole) if not part else f"{number(whole)} ({number(part)} {name})"


def _status(call: AuditedCall) -> str:
    if call.outcome in {None, "ok"}:
        return str(call.status or call.state)
    return f"{call.status or '–'} {call.outcome}"


COLUMNS = (
    Column("#", lambda call: str(call.seq), right=True),
    Column("time (UTC)", lambda call: _time(call.started_at)),
    Column("session", lambda call: call.session),
    Column("model", lambda call: call.response_model or call.request_model or "–"),
    Column("prompt", lambda call: _with_part(call.prompt_tokens, call.cache_read_tokens, "cached"), right=True),
    Column("completion", lambda call: _with_part(call.completion_tokens, call.reasoning_tokens, "think"), right=True),
    Column("TTFT ms", lambda call: number(call.ttft_ms, 1), right=True),
    Column("latency ms", lambda call: number(call.latency_ms, 1), right=True),
    Column("finish", lambda call: call.finish_reason or "–"),
    Column("status", _status),
    Column("tries", lambda call: str(len(call.attempts)), right=True),
    Column("cost $", lambda call: number(call.cost, 6), right=True),
)


@click.command()
@log_argument
@click.option("--cell", metavar="CELL", help="Only the calls of this cell, of all its attempts.")
@click.option("--session", metavar="SESSION", help="Only the calls of this session.")
@format_option
def audit(log: Path, cell: str | None, session: str | None, format_: Format) -> None:
    """Show every recorded call of LOG with its tokens, times and outcome, and reconcile the totals."""
    found = audit_log(log, cell, session)
    if format_ == "table":
        show_audit(found)
    else:
        emit(found.calls, format_, COLUMNS)


def show_audit(found: Audit) -> None:
    """Write an audit to stdout as tables."""
    console = stdout_console()
    if not found.calls:
        console.print("no calls")
    else:
        one = {call.session for call in found.calls}
        columns = [column for column in COLUMNS if column.heading != "session" or len(one) > 1]
        show_table(columns, found.calls, title=f"session {one.pop()}" if len(one) == 1 else None)
        console.print(_totals(found))
    for line in found.reconciliations:
        console.print(
            f"{line.cell_id}: the agent printed {line.reported:,} {line.count} ({line.source}),"
            f" recorded {number(line.recorded)}: {line.agreement}"
        )
    for finding in found.findings:
        console.print(f"! {finding.kind}: {finding.message}")


def _totals(found: Audit) -> str:
    totals = found.totals
    parts = [f"{totals.calls} calls"]
    for name, total in (("prompt", totals.prompt_tokens), ("completion", totals.completion_tokens)):
        without = f" (+ {total.missing} calls without)" if total.missing else ""
        parts.append(f"{number(total.sum)} {name} tokens{without}")
    if totals.cost.sum is not None:
        without = f" (+ {totals.cost.missing} calls without a price)" if totals.cost.missing else ""
        parts.append(f"${totals.cost.sum:,.6f}{without}")
    return ", ".join(parts)
