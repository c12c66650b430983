"""Operations: what an agent asked for once, however many calls it took.

Pure. Invariant: every call belongs to exactly one operation, and an operation's calls are of one session and one
attempt at a cell.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from cellmeter_proxy.record import Attempt, Call, Outcome
from cellmeter_scoring.calls import in_order, is_model_call, reached_a_model, tokens_of
from cellmeter_scoring.retries import given_up_at, has_failed, retries_of
from cellmeter_scoring.totals import Total, total_of


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A call and those that made it again."""

    operation_id: str
    """The id of its first call."""
    session: str
    cell_id: str | None
    cell_attempt: int | None
    call_ids: list[str]
    """In the order in which they were made."""
    attempts: int
    """Tries upstream, over all its calls."""
    started_at: int
    """When its first call was made."""
    ended_at: int | None
    """When its last call ended; None where that has no end."""
    outcome: Outcome | None
    """That of its last call; None while that is being answered."""
    waits_ms: list[float | None]
    """From the end of each call, as the agent saw it, to the next one; None where that end is not known."""
    prompt_tokens: Total
    """Over the calls that a model worked on; missing are those that nobody counted."""
    completion_tokens: Total
    cost: Total
    """US dollars, likewise."""


def operations(calls: Iterable[Call], attempts: Mapping[str, Sequence[Attempt]]) -> list[Operation]:
    """The operations that these calls are, in the order in which they began.

    Args:
        calls: in any order, of any number of sessions.
        attempts: the tries upstream, by call.

    """
    made = in_order(calls)
    ids = operation_ids(made, retries_of(made))
    chains: dict[str, list[Call]] = {}
    for call in made:
        chains.setdefault(ids[call.call_id], []).append(call)
    return [_operation(chain, attempts) for chain in chains.values()]


def operation_ids(calls: Iterable[Call], links: Mapping[str, str]) -> dict[str, str]:
    """For each call the id of its operation.

    Args:
        calls: in any order.
        links: of these calls, as ``retries_of`` gives them.

    """
    ids: dict[str, str] = {}
    for call in in_order(calls):
        before = links.get(call.call_id)
        ids[call.call_id] = call.call_id if before is None else ids[before]
    return ids


def _operation(chain: Sequence[Call], attempts: Mapping[str, Sequence[Attempt]]) -> Operation:
    first, last = chain[0], chain[-1]
    paid = [call for call in chain if is_model_call(call) and reached_a_model(call)]
    return Operation(
        operation_id=first.call_id,
        session=first.session,
        cell_id=first.cell_id,
        cell_attempt=first.cell_attempt,
        call_ids=[call.call_id for call in chain],
        attempts=sum(len(attempts.get(call.call_id, ())) for call in chain),
        started_at=first.started_at,
        ended_at=last.ended_at,
        outcome=last.outcome,
        waits_ms=[_wait_ms(before, after) for before, after in pairwise(chain)],
        prompt_tokens=total_of(tokens_of(call).prompt for call in paid),
        completion_tokens=total_of(tokens_of(call).completion for call in paid),
        cost=total_of(call.cost for call in paid),
    )


def _wait_ms(before: Call, after: Call) -> float | None:
    # When the agent saw an answer that it did not receive, or left a call before the proxy noticed, nobody knows.
    over = given_up_at(before) if has_failed(before) else None
    return None if over is None or over > after.started_at else (after.started_at - over) / 1000
