"""The totals that an agent printed, held against the recorded ones.

Agents round what they print: aider writes ``1.3k`` for anything from 1,250 to 1,349, and whole thousands from ten
thousand on (https://github.com/Aider-AI/aider, ``format_tokens``). So a printed number means a range.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from cellmeter_proxy.record import Call, Cell
from cellmeter_scoring.calls import is_answered, model_calls, reached_a_model, tokens_of

Agreement = Literal["agrees", "last call only", "differs", "unknown"]


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """One of an agent's printed totals against the record."""

    cell_id: str
    attempt: int
    count: Literal["prompt_tokens", "completion_tokens"]
    reported: int
    low: int
    high: int
    """What the printed number can mean if it was rounded once, both ends included."""
    recorded: int | None
    """Over all calls that reached a model; None where one of them has no count."""
    agreement: Agreement
    """``last call only``: the printed number is that of the last answer, not the total."""
    source: str
    """Where the agent printed it."""


def reconcile(cell: Cell, calls: Sequence[Call]) -> list[Reconciliation]:
    """One line for each total that the agent printed; none where it printed nothing."""
    if cell.reported is None:
        return []
    counted = [call for call in model_calls(calls) if reached_a_model(call)]
    tokens = [(is_answered(call), tokens_of(call)) for call in counted]
    return [
        *_line(cell, "prompt_tokens", cell.reported.prompt_tokens, [(ok, each.prompt) for ok, each in tokens]),
        *_line(
            cell, "completion_tokens", cell.reported.completion_tokens, [(ok, each.completion) for ok, each in tokens]
        ),
    ]


def meant_by(printed: int) -> tuple[int, int]:
    """The smallest and the largest count that an agent prints as this number.

    A round million and its tenths are taken for ``1.2M``: of the totals that are printed in thousands, one in a
    hundred looks like that.
    """
    if printed >= 1_000_000 and printed % 100_000 == 0:
        return printed - 50_000, printed + 49_999
    if printed >= 10_000 and printed % 1000 == 0:
        return printed - 500, printed + 499
    if printed >= 1000 and printed % 100 == 0:
        return printed - 50, printed + 49
    return printed, printed


def printed_as(count: int) -> int:
    """A count as an agent prints it, read back."""
    if count < 1000:
        return count
    if count < 10_000:
        return round(float(f"{count / 1000:.1f}") * 1000)
    return round(count / 1000) * 1000


def _line(
    cell: Cell,
    count: Literal["prompt_tokens", "completion_tokens"],
    reported: int | None,
    counts: Sequence[tuple[bool, int | None]],
) -> list[Reconciliation]:
    if reported is None or cell.reported is None:
        return []
    low, high = meant_by(reported)
    known = [number for _, number in counts if number is not None]
    total = sum(known) if len(known) == len(counts) else None
    last = next((number for answered, number in reversed(counts) if answered), None)
    # An agent may add up what it printed for each call, each rounded by itself; and a tie goes where floats go.
    printed = () if total is None else (sum(map(printed_as, known)), printed_as(total))
    return [
        Reconciliation(
            cell_id=cell.cell_id,
            attempt=cell.attempt,
            count=count,
            reported=reported,
            low=low,
            high=high,
            recorded=total,
            agreement="agrees" if reported in printed else _agreement(low, high, total, last),
            source=cell.reported.source,
        )
    ]


def _agreement(low: int, high: int, total: int | None, last: int | None) -> Agreement:
    if total is not None and low <= total <= high:
        return "agrees"
    if last is not None and low <= last <= high:
        return "last call only"
    return "unknown" if total is None else "differs"
