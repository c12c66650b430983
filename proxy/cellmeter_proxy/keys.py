"""Virtual keys: what an agent in a sweep is given in place of the provider's key.

Invariant: a key names one attempt of one cell, exists only in this process's memory, and stops
working when it is revoked.
"""

import secrets
from typing import Final, NamedTuple

from cellmeter_proxy.budget import Budget

PREFIX: Final = "cm-"


class CellRef(NamedTuple):
    """One attempt of one cell."""

    cell_id: str
    attempt: int
    budget: Budget | None = None

    @property
    def session(self) -> str:
        """The session that the cell's calls are numbered in."""
        return self.cell_id if self.attempt == 1 else f"{self.cell_id}@{self.attempt}"


class KeyRing:
    """The virtual keys that are in force."""

    def __init__(self) -> None:
        self._cells: dict[str, CellRef] = {}

    def issue(self, cell_id: str, attempt: int = 1, *, budget: Budget | None = None) -> str:
        """A fresh key for one attempt of a cell, which may spend as much as its budget says."""
        key = PREFIX + secrets.token_urlsafe(24)
        self._cells[key] = CellRef(cell_id, attempt, budget)
        return key

    def revoke(self, key: str) -> None:
        """End a key. Calls that still come with it are refused. Unknown keys are ignored."""
        self._cells.pop(key, None)

    def find(self, key: str) -> CellRef | None:
        """The cell that a key stands for, or None."""
        return self._cells.get(key)
