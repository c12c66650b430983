"""When to stop running an agent with a model: three failures in a row that no repeat can change. Pure.

Such are: every call refused as malformed or unsupported, or for the provider's key, an agent that ends before its first
call, and a cell that cannot be prepared. What an agent did once it had an answer is never one, and neither is trouble
that may pass.
"""

from collections import defaultdict
from typing import Final, NamedTuple

from cellmeter_proxy.record import Cell, FailureClass

_ENOUGH: Final = 3
_HOPELESS: Final[frozenset[FailureClass]] = frozenset({"incompatible", "no_model_call"})


class Pair(NamedTuple):
    """An agent with a model."""

    agent: str
    model: str


class Streaks:
    """The failures in a row of each pair, by what failed."""

    def __init__(self) -> None:
        self._rows: defaultdict[Pair, list[FailureClass]] = defaultdict(list)

    def add(self, cell: Cell, *, denied: bool = False) -> str | None:
        """Note a finished attempt; the sentence if its pair is to be stopped now.

        Args:
            cell: its row.
            denied: every call of it was refused for the provider's key.

        """
        pair, kind = Pair(cell.agent, cell.model), cell.failure_class if denied else _kind(cell)
        row = self._rows[pair]
        if kind is None or (row and row[-1] != kind):
            row.clear()
        if kind is None:
            return None
        row.append(kind)
        if len(row) != _ENOUGH:
            return None
        return f"{pair.agent} with {pair.model} is stopped after {_ENOUGH} {kind} in a row: {cell.failure_reason}"


def _kind(cell: Cell) -> FailureClass | None:
    """The class of a failure that a repeat cannot change, else None."""
    # A verdict on an agent that had made calls names the last of them.
    at_start = cell.failure_class == "agent_error" and not cell.evidence
    unprepared = any(phase.name == "prepare" and phase.error for phase in cell.phases)
    if cell.failure_class in _HOPELESS or at_start or (cell.failure_class == "harness_error" and unprepared):
        return cell.failure_class
    return None
