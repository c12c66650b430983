"""``cellmeter audit``: every call of a log, sums that hide nothing, and what deserves attention.

A table shows a column only where one of its calls has something to say in it, so that it fits a terminal. A count
with a tilde is an estimate; the machine formats name the column it is from.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import click

from cellmeter_harness.cli.output import (
    Column,
    Format,
    emit,
    format_option,
    log_argument,
    number,
    show_table,
    stderr_console,
    stdout_console,
)
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_scoring import Audit, AuditedCall, Finding, Operation
from cellmeter_scoring import audit as audit_log
from cellmeter_scoring.calls import model_calls, reached_a_model, tokens_of
from cellmeter_scoring.reconcile import Reconciliation

_NAMED: Final = 12
"""A finding names so many of its calls."""


class _Shown(NamedTuple):
    """A column, and whether a table of these calls needs it."""

    column: Column
    needed: Callable[[Sequence[AuditedCall]], bool] = lambda _: True


@click.command()
@log_argument
@click.option("--cell", metavar="CELL", help="Only the calls of this cell, of all its attempts.")
@click.option("--session", metavar="SESSION", help="Only the calls of this session.")
@click.option(
    "--estimate",
    is_flag=True,
    help="Count every call's tokens from the stored bodies too, and find usage that disagrees with its estimate.",
)
@format_option
def audit(log: Path, cell: str | None, session: str | None, format_: Format, *, estimate: bool) -> None:
    """Show every recorded call of LOG with its tokens, times and outcome, and reconcile the totals.

    In the table, "new" is how many of a request's messages its session had not sent before, of how many in all; a count
    with ~ is an estimate where the provider told none, and a column with ≈ holds estimates beside its own counts.
    "queue" and "waited" are how long the proxy held a call back, before its first try and between its tries; "retry of"
    is the call that the agent made again.
    """
    found = _estimated(log, cell, session) if estimate else audit_log(log, cell, session)
    if format_ == "table":
        show_audit(found)
    else:
        emit(found.calls, format_, ())
        _tell_of_retries(found.operations)


def _estimated(path: Path, cell: str | None, session: str | None) -> Audit:
    from cellmeter_scoring.estimates import with_estimates  # noqa: PLC0415 - loads the tokenizer: for who asks for it

    with Log.read(path) as log:
        return with_estimates(log, audit_log(log, cell, session))


def show_audit(found: Audit) -> None:
    """Write an audit to stdout: a table for each session, the totals, and a line for each thing to look at."""
    console = stdout_console()
    sessions = list(dict.fromkeys(call.session for call in found.calls))
    for session in sessions:
        calls = [call for call in found.calls if call.session == session]
        console.print(_title(session, calls), soft_wrap=True)
        columns = [shown.column for shown in (*_COLUMNS, _retries(calls), _PROVIDER_TOOLS) if shown.needed(calls)]
        show_table(columns, calls, narrow=True)
    console.print(_totals(found), soft_wrap=True)
    for line in found.reconciliations:
        console.print(_reconciled(line, named=len(sessions) > 1), soft_wrap=True)
    for finding in found.findings:
        console.print(f"! {finding.kind}: {finding.message}{_numbers(finding, found, sessions)}", soft_wrap=True)
    _tell_of_retries(found.operations)


def _tell_of_retries(operations: Sequence[Operation]) -> None:
    """Say on stderr how many operations the calls are, where some were made again."""
    calls = sum(len(operation.call_ids) for operation in operations)
    again = calls - len(operations)
    if not again:
        return
    ones = "1 operation" if len(operations) == 1 else f"{len(operations):,} operations"
    waits = [wait for operation in operations for wait in operation.waits_ms]
    known = [wait for wait in waits if wait is not None]
    waited = f", after {'at least ' if len(known) < len(waits) else ''}{sum(known) / 1000:,.1f} s of waiting"
    stderr_console().print(f"{calls:,} calls are {ones}: the agent made {_calls(again)} again{waited if known else ''}")


def _title(session: str, calls: Sequence[AuditedCall]) -> str:
    began = datetime.fromtimestamp(calls[0].started_at / 1e6, UTC)
    models = "" if _has_several_models(calls) else f", {_model(calls[0])}"
    return f"session {session}, {began:%Y-%m-%d}{models}"


def _totals(found: Audit) -> str:
    if not found.calls:
        return "no calls"
    spent = [call for call in model_calls(found.calls) if reached_a_model(call)]
    costs = [call.cost for call in spent if call.cost is not None]
    unpriced = f" and {_calls(len(spent) - len(costs))} without a price" if len(costs) < len(spent) else ""
    parts = [
        _calls(len(found.calls)),
        _sum(_PROMPT, spent),
        _sum(_COMPLETION, spent),
        f"${sum(costs):,.6f}{unpriced}" if costs else "no cost known",
    ]
    return ", ".join(parts)


class _Kind(NamedTuple):
    """A kind of token: what a provider reported, the same completed by estimates, and the part named apart."""

    name: str
    reported: Callable[[Call], int | None]
    completed: Callable[[Call], int | None]
    part_name: str
    part: Callable[[Call], int | None]


_PROMPT: Final = _Kind(
    "prompt",
    lambda call: call.prompt_tokens,
    lambda call: tokens_of(call).prompt,
    "cached",
    lambda call: call.cache_read_tokens,
)
_COMPLETION: Final = _Kind(
    "completion",
    lambda call: call.completion_tokens,
    lambda call: tokens_of(call).completion,
    "reasoning",
    lambda call: call.reasoning_tokens,
)


def _sum(kind: _Kind, calls: Sequence[Call]) -> str:
    """The tokens that providers reported, and beside them what was estimated and what nobody counted."""
    rest = [kind.completed(call) for call in calls if kind.reported(call) is None]
    guessed = [count for count in rest if count]
    part = sum(kind.part(call) or 0 for call in calls)
    text = f"{sum(kind.reported(call) or 0 for call in calls):,} {kind.name} tokens"
    text += f" ({part:,} {kind.part_name})" if part else ""
    text += f" + ~{sum(guessed):,} estimated for {_calls(len(guessed))}" if guessed else ""
    return text + (f" + {_calls(rest.count(None))} uncounted" if None in rest else "")


def _reconciled(line: Reconciliation, *, named: bool) -> str:
    where = f"{line.cell_id}: " if named else ""
    again = f" in attempt {line.attempt}" if line.attempt > 1 else ""
    meant = "" if line.low == line.high else f", rounded from {line.low:,} to {line.high:,}"
    apart = line.agreement == "agrees" and line.recorded is not None and not line.low <= line.recorded <= line.high
    return (
        f"{where}the agent printed {line.reported:,} {line.count.replace('_', ' ')}{again} ({line.source}{meant}),"
        f" recorded {number(line.recorded)}: {line.agreement}{' but for its rounding' if apart else ''}"
    )


def _numbers(finding: Finding, found: Audit, sessions: Sequence[str]) -> str:
    """Which calls a finding is about, by their numbers, where those are unambiguous."""
    about = set(finding.ids)
    numbers = [f"#{call.seq}" for call in found.calls if call.call_id in about]
    if len(sessions) > 1 or len(numbers) in {0, len(found.calls)}:
        return ""
    more = ", …" if len(numbers) > _NAMED else ""
    return f" ({', '.join(numbers[:_NAMED])}{more})"


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count:,} calls"


def _model(call: AuditedCall) -> str:
    return call.response_model or call.request_model or "–"


def _has_several_models(calls: Sequence[AuditedCall]) -> bool:
    return len({_model(call) for call in calls}) > 1


def _time(call: AuditedCall) -> str:
    return datetime.fromtimestamp(call.started_at / 1e6, UTC).strftime("%H:%M:%S")


def _tokens(reported: int | None, estimated: int | None) -> str:
    return f"~{estimated:,}" if reported is None and estimated is not None else number(reported)


def _new(call: AuditedCall) -> str:
    return "–" if call.new_messages is None else f"{call.new_messages}/{number(call.message_count)}"


def _ms(value: float | None) -> str:
    return number(value, 1 if value is not None and value < 1000 else 0)


def _status(call: AuditedCall) -> str:
    if call.outcome is None:
        return call.state
    if call.outcome not in {"ok", "http_error"}:
        return call.outcome
    return f"{call.status} {call.finish_reason or ''}".strip()


def _waited_ms(call: AuditedCall) -> float | None:
    """What the proxy waited between the tries."""
    waits = [attempt.waited_ms for attempt in call.attempts if attempt.waited_ms is not None]
    return sum(waits) if waits else None


def _retries(calls: Sequence[AuditedCall]) -> _Shown:
    """The column that says which call each one makes again, by its number in the session."""
    numbers = {call.call_id: call.seq for call in calls}

    def text(call: AuditedCall) -> str:
        if call.retry_of is None:
            return ""
        return f"#{numbers[call.retry_of]}{', attached' if call.attached_to else ''}"

    return _Shown(Column("retry of", text), _any(lambda call: call.retry_of is not None))


def _any(has: Callable[[AuditedCall], object]) -> Callable[[Sequence[AuditedCall]], bool]:
    return lambda calls: any(has(call) for call in calls)


def _has_both(call: AuditedCall) -> bool:
    return call.usage_source == "provider" and call.estimate_method is not None


_COLUMNS: Final = (
    _Shown(Column("#", lambda call: str(call.seq), right=True)),
    _Shown(Column("UTC", _time)),
    _Shown(Column("model", _model), _has_several_models),
    _Shown(Column("prompt", lambda call: _tokens(call.prompt_tokens, call.estimated_prompt_tokens), right=True)),
    _Shown(Column("≈prompt", lambda call: number(call.estimated_prompt_tokens), right=True), _any(_has_both)),
    _Shown(
        Column("cached", lambda call: number(call.cache_read_tokens), right=True),
        _any(lambda call: call.cache_read_tokens),
    ),
    _Shown(
        Column("new", _new, right=True),
        _any(lambda call: call.new_messages is not None),
    ),
    _Shown(
        Column("compl.", lambda call: _tokens(call.completion_tokens, call.estimated_completion_tokens), right=True)
    ),
    _Shown(Column("≈compl.", lambda call: number(call.estimated_completion_tokens), right=True), _any(_has_both)),
    _Shown(
        Column("think", lambda call: number(call.reasoning_tokens), right=True),
        _any(lambda call: call.reasoning_tokens),
    ),
    _Shown(Column("TTFT ms", lambda call: _ms(call.ttft_ms), right=True), _any(lambda call: call.ttft_ms is not None)),
    _Shown(Column("latency ms", lambda call: _ms(call.latency_ms), right=True)),
    _Shown(Column("status, finish", _status)),
    _Shown(
        Column("tries", lambda call: str(len(call.attempts)), right=True), _any(lambda call: len(call.attempts) > 1)
    ),
    _Shown(Column("queue ms", lambda call: _ms(call.queue_ms), right=True), _any(lambda call: call.queue_ms)),
    _Shown(Column("waited ms", lambda call: _ms(_waited_ms(call)), right=True), _any(_waited_ms)),
    _Shown(Column("cost $", lambda call: number(call.cost, 6), right=True), _any(lambda call: call.cost is not None)),
)
_PROVIDER_TOOLS: Final = _Shown(
    Column("provider tools", lambda call: ", ".join(call.provider_tools or [])), _any(lambda call: call.provider_tools)
)
