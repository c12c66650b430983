"""What a row says that contradicts itself. Pure: a row in, findings out.

Invariant: a row as any release wrote it has no finding here, whatever an agent or a provider did.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from cellmeter_proxy.counts import usage_of
from cellmeter_proxy.log import digest_of
from cellmeter_proxy.record import Artifact, Attempt, BlobRow, Call, Cell, Egress, Record, ScoreRow, Span, Sweep, Usage
from cellmeter_proxy.wire.fields import load
from cellmeter_proxy.wire.usage import anthropic_usage, openai_usage
from cellmeter_scoring.finding import Finding

_SLACK_MS: Final = 1.0
"""Durations are read from several clocks' ticks; less than this is no contradiction."""
_CLOCKS_APART_US: Final = 3_600_000_000
"""Clocks of two machines are set apart by less than this, or one of them is wrong."""
_OF_AN_ANSWER: Final = ("response_bytes", "frames", "ttft_ms", "max_gap_ms")
"""What is measured of an answer, and null where there is none."""
_SIGNED: Final = frozenset({"exit_code"})
_NAMES: Final[dict[type[Record], tuple[str, str]]] = {
    Sweep: ("a sweep", "sweep_id"),
    Cell: ("a cell", "cell_id"),
    Call: ("a call", "call_id"),
    Attempt: ("a try upstream", "call_id"),
    BlobRow: ("a blob", "digest"),
    Span: ("a span", "span_id"),
    Artifact: ("an artifact", "cell_id"),
    Egress: ("a connection", "host"),
    ScoreRow: ("a score", "cell_id"),
}
"""What a row is called in a finding, and the column that names it."""
Alive = Callable[[str], bool]


def row_findings(row: Record, now_us: int, alive: Alive) -> Iterator[Finding]:
    """What is wrong with a row by itself.

    Args:
        row: any row.
        now_us: the time now, in microseconds since the epoch.
        alive: whether a writer's process still runs.

    """
    yield from _numbers(row, now_us)
    match row:
        case Call():
            yield from _call_names(row)
            yield from _call_times(row)
            yield from _call_state(row, alive)
            yield from _call_usage(row)
        case Cell():
            yield from _cell(row)
        case Sweep():
            if row.spec_digest != digest_of(row.spec.encode("utf-8", "surrogatepass")):
                yield _finding("digest", row, "has a spec_digest that is not that of its spec")
        case ScoreRow():
            if (row.value is None) == (row.unscored is None):
                yield _finding("unmeasured", row, "has both a value and a reason for having none, or neither")


def _finding(kind: str, row: Record, what: str) -> Finding:
    name, column = _NAMES.get(type(row), ("a row", row.__struct_fields__[0]))
    return Finding(kind=kind, message=f"{name} {what}", ids=[str(getattr(row, column))])


def _numbers(row: Record, now_us: int) -> Iterator[Finding]:
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if name in _SIGNED or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        is_time = name.endswith(("_at", "_ms")) or name == "at"
        if not math.isfinite(value) or value < 0:
            yield _finding("impossible time" if is_time else "impossible number", row, f"has {value} as its {name}")
        elif is_time and not name.endswith("_ms") and value > now_us + _CLOCKS_APART_US:
            yield _finding("impossible time", row, f"is of the future: its {name} is {value}")


def _call_names(call: Call) -> Iterator[Finding]:
    if call.cell_id is not None:
        first = call.cell_attempt in {None, 1}
        session = call.cell_id if first else f"{call.cell_id}@{call.cell_attempt}"
        if call.session != session:
            yield _finding("name", call, f"of the cell {call.cell_id} is in the session {call.session!r}")


def _call_times(call: Call) -> Iterator[Finding]:
    if _is_before(call.ended_at, call.started_at) or _is_before(call.client_gone_at, call.started_at):
        yield _finding("impossible time", call, "ends before it starts")
    for name in ("headers_ms", "ttft_ms", "max_gap_ms"):
        part = getattr(call, name)
        if part is not None and call.latency_ms is not None and part > call.latency_ms + _SLACK_MS:
            yield _finding(
                "impossible time", call, f"has {part} as its {name}, and {call.latency_ms} as its latency_ms"
            )


def _is_before(moment: int | None, other: int) -> bool:
    return moment is not None and moment < other


def _call_state(call: Call, alive: Alive) -> Iterator[Finding]:
    """Rows that their writer left behind. One whose writer still runs is being answered, which is no finding."""
    if call.state == "open":
        if not alive(call.writer):
            yield _finding("open row", call, "is open although the process that recorded it has ended")
        if call.outcome is not None or call.ended_at is not None:
            yield _finding("incomplete row", call, "is open although it has an outcome or an end")
    if call.state == "closed" and (call.outcome is None or call.ended_at is None):
        yield _finding("incomplete row", call, "is closed without an outcome or an end")
    if call.state == "interrupted" and call.outcome != "interrupted":
        yield _finding("incomplete row", call, f"is interrupted, and its outcome is {call.outcome}")
    if call.outcome == "ok" and None in {call.status, call.request_blob, call.response_blob}:
        yield _finding("incomplete row", call, "was answered, and its status, its request or its answer is not there")
    measured = [name for name in _OF_AN_ANSWER if getattr(call, name) is not None]
    if call.state == "closed" and call.response_blob is None and measured:
        yield _finding("unmeasured", call, f"has {measured[0]} of an answer that is not there")
    if call.body_hash is not None and call.request_blob is None:
        yield _finding("incomplete row", call, "has the hash of a request that is not there")


def _call_usage(call: Call) -> Iterator[Finding]:
    """Counts against the object that they come from, and numbers against what says where they come from."""
    said = usage_of(call)
    if call.usage is None:
        if said != Usage() or call.usage_source in {"provider", "partial"}:
            yield _finding("usage", call, "has token counts of a provider, and no usage object that they come from")
    else:
        yield from _counts(call, said, _read_usage(call, call.usage))
    estimated = {call.estimated_prompt_tokens, call.estimated_completion_tokens} != {None}
    if estimated and (call.estimate_method is None or call.usage_source == "none"):
        yield _finding("unmeasured", call, "has an estimate without its method, or not as the source of its usage")
    if not estimated and call.usage_source == "estimated":
        yield _finding("unmeasured", call, "says that its usage is estimated, and has no estimate")
    if (call.cost is None) != (call.price_source is None):
        yield _finding("unmeasured", call, "has a cost without its source, or the source of a cost that is not there")


def _counts(call: Call, said: Usage, counted: Usage | None) -> Iterator[Finding]:
    if counted is None:
        yield _finding("usage", call, "has token counts, and a usage object that counts nothing")
        return
    # A stream of messages that broke off: what its first event counts of the output is not the output.
    provisional = {"completion_tokens", "reasoning_tokens"} if _broke_off(call) else set[str]()
    for name in Usage.__struct_fields__:
        here, there = getattr(said, name), getattr(counted, name)
        if here != there and not (here is None and name in provisional):
            yield _finding("usage", call, f"has {here} as its {name}, and its usage object says {there}")


def _broke_off(call: Call) -> bool:
    return call.dialect == "messages" and call.usage_source == "partial"


def _read_usage(call: Call, verbatim: str) -> Usage | None:
    """The counts of a verbatim usage object; an array is of the two events that count in a stream of messages."""
    value: Any = load(verbatim.encode("utf-8", "replace"))
    if isinstance(value, list):
        objects = [one for one in value if isinstance(one, dict)]
        value = {name: count for one in objects for name, count in one.items() if count is not None}
    if call.dialect == "messages":
        return anthropic_usage(value)
    reported = openai_usage(value)
    return None if reported is None else reported.usage


def _cell(cell: Cell) -> Iterator[Finding]:
    name = f"{cell.sweep_id}/{cell.agent}/{cell.model}/{cell.category}/{cell.task}#run{cell.run}"
    if cell.cell_id != name:
        yield _finding("name", cell, f"is not named after what it is: {name}")
    ends = [(cell.started_at, cell.ended_at), *((phase.started_at, phase.ended_at) for phase in cell.phases)]
    if any(_is_before(end, start) for start, end in ends) or any(
        _is_before(phase.started_at, cell.started_at) for phase in cell.phases
    ):
        yield _finding("impossible time", cell, "or a phase of it ends before it starts")
    if cell.ended_at is not None and cell.failure_class is None:
        yield _finding("incomplete row", cell, "has ended, and nothing says how")
    if cell.ended_at is None and cell.grade is not None:
        yield _finding("incomplete row", cell, "has a grade, and has not ended")
