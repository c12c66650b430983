"""How much of a run went to a provider that did not serve: to its rate limit, or to its failures.

Four kinds of time count: what the proxy queued a call for, what it waited after a refused try, what such a try took,
and the agent's own pause between a call that ended so and the same request again. Each counts for what it was that
held the agent up: a wait after a 503 is no throttling. Moments are counted once however many calls waited in them, so
the sum is never more than the run.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from cellmeter_proxy.record import Attempt, Call, Cell
from cellmeter_scoring.calls import Trouble, attempts_by_call, model_calls, trouble_of, trouble_of_try
from cellmeter_scoring.retries import retries_of

Interval: TypeAlias = tuple[int, int]
"""Start and end in microseconds since the epoch."""

_RATE_LIMIT: Final = frozenset({Trouble.THROTTLED})


def throttled_us(cell: Cell, calls: Iterable[Call], attempts: Iterable[Attempt]) -> int:
    """Microseconds of the agent's run in which some call was held up by a rate limit; 0 while the run has no end."""
    return held_up_us(cell, calls, attempts, _RATE_LIMIT)


def held_up_us(cell: Cell, calls: Iterable[Call], attempts: Iterable[Attempt], troubles: Collection[Trouble]) -> int:
    """Microseconds of the agent's run in which some call was held up by one of these troubles.

    Args:
        cell: whose run it is; 0 while that has no end.
        calls: of this attempt at the cell.
        attempts: the tries upstream for these calls.
        troubles: what to count.

    """
    run = run_of(cell)
    if run is None:
        return 0
    start, end = run
    made, by_call = list(calls), attempts_by_call(attempts)
    asleep_until = end if cell.timed_out else None
    held = [*_waits(made, by_call, troubles), *_pauses(made, by_call, troubles, asleep_until)]
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


def _waits(
    calls: Iterable[Call], by_call: Mapping[str, Sequence[Attempt]], troubles: Collection[Trouble]
) -> Iterator[Interval]:
    """The proxy's own waiting, and the tries that were refused."""
    for call in calls:
        if call.queue_ms and Trouble.THROTTLED in troubles:
            yield call.started_at, call.started_at + _us(call.queue_ms)
        tries = by_call.get(call.call_id, ())
        for refused, after in pairwise(tries):
            if after.waited_ms and trouble_of_try(refused) in troubles:
                yield after.started_at - _us(after.waited_ms), after.started_at
        for one in tries:
            if one.latency_ms and trouble_of_try(one) in troubles:
                yield one.started_at, one.started_at + _us(one.latency_ms)


def _pauses(
    calls: Sequence[Call],
    by_call: Mapping[str, Sequence[Attempt]],
    troubles: Collection[Trouble],
    asleep_until: int | None,
) -> Iterator[Interval]:
    """From the last try of each call that ended so until the agent made it again.

    Until the timeout of an agent that called no more, else until the end of the call.
    """
    again = {before: after for after, before in retries_of(calls).items()}
    started = {call.call_id: call.started_at for call in calls}
    asked = model_calls(calls)
    for call in asked:
        tries = by_call.get(call.call_id, ())
        if trouble_of(call, tries) not in troubles:
            continue
        begin = tries[-1].started_at if tries else call.started_at
        if call.call_id in again:
            yield begin, started[again[call.call_id]]
        elif asleep_until is not None and call is asked[-1]:
            yield begin, asleep_until
        elif call.ended_at is not None:
            yield begin, call.ended_at


def _us(milliseconds: float) -> int:
    return round(milliseconds * 1000)
