"""How much of a run went to the provider's rate limit.

Three kinds of time count: what the proxy waited or queued before it asked, what a refused try took, and the
agent's own pause between a refused call and the same request again. Moments are counted once however many calls
waited in them, so the sum is never more than the run.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from cellmeter_proxy.record import Attempt, Call, Cell
from cellmeter_scoring.calls import attempts_by_call, model_calls

Interval: TypeAlias = tuple[int, int]
"""Start and end in microseconds since the epoch."""

_THROTTLED: Final = 429


def throttled_us(cell: Cell, calls: Iterable[Call], attempts: Iterable[Attempt]) -> int:
    """Microseconds of the agent's run in which some call was held up by a rate limit; 0 while the run has no end."""
    run = run_of(cell)
    if run is None:
        return 0
    start, end = run
    asleep_until = end if cell.timed_out else None
    held = [*_waits(calls, attempts), *_pauses(model_calls(calls), asleep_until)]
    return union_us((max(a, start), min(b, end)) for a, b in held)


def run_of(cell: Cell) -> Interval | None:
    """When the agent ran: the run phase, or the whole cell where phases were not recorded; None without an end.

    Not the grace that an agent is given after its time was up: the cell has ended by then.
    """
    phase = next((phase for phase in cell.phases if phase.name == "run"), None)
    if phase is not None:
        return phase.started_at, phase.ended_at if cell.ended_at is None else min(phase.ended_at, cell.ended_at)
    return None if cell.ended_at is None else (cell.started_at, cell.ended_at)


def union_us(intervals: Iterable[Interval]) -> int:
    """Microseconds covered by at least one interval; an interval that ends before it starts covers nothing."""
    total, covered = 0, None
    for start, end in sorted(intervals):
        begin = start if covered is None else max(start, covered)
        if end > begin:
            total += end - begin
            covered = end
    return total


def _waits(calls: Iterable[Call], attempts: Iterable[Attempt]) -> Iterator[Interval]:
    """The proxy's own waiting, and the tries that were refused."""
    by_call = attempts_by_call(attempts)
    for call in calls:
        if call.queue_ms:
            yield call.started_at, call.started_at + _us(call.queue_ms)
        for attempt in by_call.get(call.call_id, []):
            if attempt.waited_ms:
                yield attempt.started_at - _us(attempt.waited_ms), attempt.started_at
            if attempt.status == _THROTTLED and attempt.latency_ms:
                yield attempt.started_at, attempt.started_at + _us(attempt.latency_ms)


def _pauses(asked: Sequence[Call], asleep_until: int | None) -> Iterator[Interval]:
    """Each refused call until the same request is made again, or until the timeout of an agent that made no other."""
    for position, call in enumerate(asked):
        if call.status != _THROTTLED:
            continue
        later = asked[position + 1 :]
        again = next((other for other in later if other.request_hash == call.request_hash), None)
        if again is not None and call.request_hash is not None:
            yield call.started_at, again.started_at
        elif asleep_until is not None and not later:
            yield call.started_at, asleep_until
        elif call.ended_at is not None:
            yield call.started_at, call.ended_at


def _us(milliseconds: float) -> int:
    return round(milliseconds * 1000)
