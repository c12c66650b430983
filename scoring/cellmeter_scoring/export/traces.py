"""Calls and cells as OpenTelemetry spans, under the names of its GenAI conventions where there are such names.

An attempt at a cell is a trace: the cell is its first span (``invoke_agent``), its steps and its calls are below. A
call outside a sweep is a trace of its own, with ``cellmeter.session`` to group by. A retry of the agent's links to the
call that it makes again, and counts those before it (``http.request.resend_count``). What the conventions have no name
for is ``cellmeter.<column>``. https://github.com/open-telemetry/semantic-conventions-genai,
https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from cellmeter_proxy.genai import operation_name, provider_name
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt, Call, Cell, Span
from cellmeter_proxy.redact import Redactor
from cellmeter_scoring.audit import AuditedCall, audit
from cellmeter_scoring.calls import provider_status
from cellmeter_scoring.export.otlp import (
    CLIENT,
    ERROR,
    INTERNAL,
    Event,
    Link,
    OtlpSpan,
    Resource,
    Scope,
    Status,
    attributes,
    nanoseconds,
    span_id,
    trace_id,
)

CellKey = tuple[str | None, int | None]

_NAMES: Final[Mapping[str, str]] = {
    "request_model": "gen_ai.request.model",
    "stream": "gen_ai.request.stream",
    "response_model": "gen_ai.response.model",
    "response_id": "gen_ai.response.id",
    "client_session": "gen_ai.conversation.id",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "method": "http.request.method",
    "status": "http.response.status_code",
    "endpoint": "url.path",
    "user_agent": "user_agent.original",
}
"""Columns that have a name in OpenTelemetry's conventions."""
_ELSEWHERE: Final = frozenset({"started_at", "ended_at", "finish_reason", "error"})
"""Columns that are a part of the span itself, or stand under another name."""
_OF_THE_LOG: Final = frozenset({"writer", "request_blob", "response_blob", "timeline_blob"})
"""Columns that mean something beside the log only."""
_OF_CELL: Final = (
    "cell_id",
    "attempt",
    "sweep_id",
    "category",
    "task",
    "run",
    "task_digest",
    "isolation",
    "behavior_mode",
    "plugin_stack",
    "exit_code",
    "timed_out",
    "failure_class",
    "evidence",
)


def to_otel(log: Log, cell: str | None = None, session: str | None = None) -> Iterator[str]:
    """One OTLP ``TracesData`` document on one line, in pieces.

    Args:
        log: an open log.
        cell: only this cell, with its calls.
        session: only the calls of this session, with their cells.

    Raises:
        CellmeterError: nothing of that name is in the log.

    """
    redactor = Redactor()
    calls = audit(log, cell, session).calls
    opening, _, closing = msgspec.json.encode(_around_spans()).decode().partition("[]")
    yield opening + "["
    for position, span in enumerate(_spans(log, calls, cell, session)):
        text = redactor.bytes(msgspec.json.encode(span))[0].decode()
        yield f",{text}" if position else text
    yield "]" + closing + "\n"


def _around_spans() -> dict[str, Any]:
    """The document around the spans, with an empty list in their place."""
    own = version("cellmeter")
    resource = Resource(attributes=attributes({"service.name": "cellmeter", "service.version": own}))
    scope = Scope(name="cellmeter", version=own)
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": []}]}]}


def _spans(log: Log, calls: Sequence[AuditedCall], cell: str | None, session: str | None) -> Iterator[OtlpSpan]:
    called = {(call.cell_id, call.cell_attempt) for call in calls}
    cells: dict[CellKey, Cell] = {
        (row.cell_id, row.attempt): row
        for row in log.rows(Cell)
        if cell in {None, row.cell_id} and (session is None or (row.cell_id, row.attempt) in called)
    }
    yield from map(cell_span, cells.values())
    for step in log.rows(Span):
        if (step.cell_id, step.cell_attempt) in cells:
            yield step_span(step)
    made = Counter[str]()
    for call in calls:
        cell_of_call = cells.get((call.cell_id, call.cell_attempt))
        yield call_span(call, cell_of_call, _first_chunk_s(log, call), made[call.operation_id])
        made[call.operation_id] += 1


def cell_span(cell: Cell) -> OtlpSpan:
    """One attempt at a cell."""
    failed = cell.failure_class not in {None, "none"}
    return OtlpSpan(
        trace_id=trace_id("cell", cell.cell_id, cell.attempt),
        span_id=span_id("cell", cell.cell_id, cell.attempt),
        name=f"invoke_agent {cell.agent}",
        kind=INTERNAL,
        start_time_unix_nano=nanoseconds(cell.started_at),
        end_time_unix_nano=nanoseconds(_end(cell.started_at, cell.ended_at)),
        attributes=attributes(
            {
                "gen_ai.operation.name": "invoke_agent",
                **_agent(cell),
                "gen_ai.request.model": cell.model,
                "error.type": cell.failure_class if failed else None,
                **{f"cellmeter.{name}": getattr(cell, name) for name in _OF_CELL},
            }
        ),
        status=Status(code=ERROR, message=cell.failure_reason or "") if failed else Status(),
    )


def step_span(step: Span) -> OtlpSpan:
    """One step of an attempt at a cell."""
    parent = ("span", step.parent_id) if step.parent_id is not None else ("cell", step.cell_id, str(step.cell_attempt))
    return OtlpSpan(
        trace_id=trace_id("cell", step.cell_id, step.cell_attempt),
        span_id=span_id("span", step.span_id),
        parent_span_id=span_id(*parent),
        name=step.name,
        kind=INTERNAL,
        start_time_unix_nano=nanoseconds(step.started_at),
        end_time_unix_nano=nanoseconds(step.started_at + round(step.duration_ms * 1000)),
        attributes=attributes(
            {"cellmeter.span_kind": step.kind, **{f"cellmeter.{name}": value for name, value in step.attrs.items()}}
        ),
        status=Status() if step.error is None else Status(code=ERROR, message=step.error),
    )


def call_span(call: AuditedCall, cell: Cell | None, first_chunk_s: float | None = None, resends: int = 0) -> OtlpSpan:
    """One call: a client's span of the provider, with an event for each try upstream.

    Args:
        call: with its attempts.
        cell: the attempt at a cell that it belongs to, where the log has it.
        first_chunk_s: how long the first chunk of a streamed answer took.
        resends: how many calls of the same operation were made before.

    """
    failed = call.outcome not in {None, "ok"}
    operation = operation_name(call.dialect)
    own: Mapping[str, Any] = {"gen_ai.operation.name": operation, "gen_ai.provider.name": provider_name(call.upstream)}
    return OtlpSpan(
        trace_id=_trace_of(call, call.call_id),
        span_id=span_id("call", call.call_id),
        parent_span_id=span_id("cell", call.cell_id, call.cell_attempt) if cell is not None else "",
        name=f"{operation} {call.request_model}" if call.request_model else operation,
        kind=CLIENT,
        start_time_unix_nano=nanoseconds(call.started_at),
        end_time_unix_nano=nanoseconds(_end(call.started_at, call.ended_at)),
        attributes=attributes(
            {
                **own,
                **(_agent(cell) if cell is not None else {}),
                **_server(call),
                **_columns(call),
                **_tries(call.attempts),
                "cellmeter.operation_id": call.operation_id,
                "cellmeter.retry_of": call.retry_of,
                "http.request.resend_count": resends or None,
                "gen_ai.response.finish_reasons": [call.finish_reason] if call.finish_reason else None,
                "gen_ai.response.time_to_first_chunk": first_chunk_s,
                "error.type": _error_type(call) if failed else None,
            }
        ),
        events=list(map(_event, call.attempts)),
        links=[] if call.retry_of is None else [_link(call, call.retry_of)],
        status=Status(code=ERROR, message=call.error or "") if failed else Status(),
    )


def _trace_of(call: Call, call_id: str) -> str:
    """The trace of a call of the same attempt at a cell, or of the same session."""
    in_cell = call.cell_id is not None
    return trace_id("cell", call.cell_id, call.cell_attempt) if in_cell else trace_id("call", call_id)


def _link(call: Call, before: str) -> Link:
    return Link(trace_id=_trace_of(call, before), span_id=span_id("call", before))


def _columns(call: Call) -> dict[str, Any]:
    return {
        _NAMES.get(name, f"cellmeter.{name}"): getattr(call, name)
        for name in Call.__struct_fields__
        if name not in _ELSEWHERE | _OF_THE_LOG
    }


def _tries(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Of the last try, and of the last wait that the provider asked for."""
    waits = [attempt.retry_after_ms for attempt in attempts if attempt.retry_after_ms is not None]
    return {
        "cellmeter.attempt": attempts[-1].n if attempts else None,
        "cellmeter.retry_after_ms": waits[-1] if waits else None,
    }


def _event(attempt: Attempt) -> Event:
    values = msgspec.structs.asdict(attempt)
    named = {f"cellmeter.{name}": value for name, value in values.items() if name not in {"call_id", "started_at"}}
    return Event(time_unix_nano=nanoseconds(attempt.started_at), name="cellmeter.attempt", attributes=attributes(named))


def _agent(cell: Cell) -> dict[str, Any]:
    return {"gen_ai.agent.name": cell.agent, "gen_ai.agent.version": cell.agent_version}


def _server(call: Call) -> dict[str, Any]:
    address = urlsplit(call.upstream or "")
    port = address.port or {"http": 80, "https": 443}.get(address.scheme)
    return {"server.address": address.hostname, "server.port": port}


def _error_type(call: Call) -> str | None:
    """The provider's status where it refused, else what became of the call."""
    status = provider_status(call)
    return str(status) if status is not None and status >= 400 else call.outcome


def _first_chunk_s(log: Log, call: Call) -> float | None:
    if call.timeline_blob is None or not log.has_blob(call.timeline_blob):
        return None
    arrivals: Iterable[tuple[float, int]] = msgspec.json.decode(
        log.blob(call.timeline_blob), type=list[tuple[float, int]]
    )
    return next((at / 1000 for at, _ in arrivals), None)


def _end(started_at: int, ended_at: int | None) -> int:
    """OTLP asks for an end; what has none that is known ends where it starts, and its state says why."""
    return started_at if ended_at is None else max(started_at, ended_at)
