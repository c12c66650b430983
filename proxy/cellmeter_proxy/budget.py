"""What a cell, a session or a sweep may spend, and what it has spent. No I/O.

Invariant: whether a call is admitted is decided before anything of it is sent. A call in flight counts as made, so
that no number of concurrent calls exceeds a budget of calls; budgets of tokens and of money are exceeded by no more
than what was in flight when they were reached.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from cellmeter_proxy.counts import is_unmetered
from cellmeter_proxy.record import Call, Dialect, Numbers

_OF_SWEEP: Final = re.compile(r"the budget of [^()]* of this sweep is spent \(")
_FREE: Final[frozenset[Dialect]] = frozenset({"models", "count_tokens"})
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Amount = Annotated[float, msgspec.Meta(ge=0)]


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be spent; None is without a bound. Once any of them is spent, no further call is admitted."""

    calls: _Count | None = None
    """Calls that ask a model, whatever became of them."""
    tokens: _Count | None = None
    """Input and output together, cached input and reasoning included; estimates where the provider told none."""
    cost_usd: _Amount | None = None
    """US dollars. A call whose price is not known counts nothing."""
    seconds: _Amount | None = None
    """Wall time since the first call of a session, or since the proxy of a sweep was started."""


@dataclass(eq=False)
class Account:
    """What one cell, session or sweep has spent so far."""

    owner: str
    """``cell``, ``session`` or ``sweep``."""
    budget: Budget
    opened_at: float
    calls: int = 0
    """Those in flight included."""
    tokens: int = 0
    cost_usd: float = 0.0

    def refusal(self, now: float) -> str | None:
        """Why no further call is admitted, or None.

        Begins with ``the budget``, which ``trouble_of`` goes by, and names the owner, as ``is_of_sweep`` looks for it.
        """
        budget, passed = self.budget, now - self.opened_at
        figures = (
            (budget.calls, self.calls, _calls(budget.calls), f"{self.calls:,} made"),
            (budget.tokens, self.tokens, f"{budget.tokens or 0:,} tokens", f"{self.tokens:,} used"),
            (budget.cost_usd, self.cost_usd, f"${budget.cost_usd or 0:.6g}", f"${self.cost_usd:.6g} used"),
            (budget.seconds, passed, f"{budget.seconds or 0:g} s", f"{passed:.0f} s passed"),
        )
        for limit, spent, allowed, figure in figures:
            if limit is not None and spent >= limit:
                return f"the budget of {allowed} of this {self.owner} is spent ({figure})"
        return None

    @property
    def needs_numbers(self) -> bool:
        """Whether more must be known of a call than that it was made."""
        return self.budget.tokens is not None or self.budget.cost_usd is not None


@dataclass(eq=False)
class Entry:
    """One admitted call in the accounts that it is charged to."""

    accounts: Sequence[Account]
    prompt_missing: bool = True
    completion_missing: bool = True
    counted: asyncio.Event = field(default_factory=asyncio.Event)
    """Its tokens and cost are in the accounts, or never will be."""


class Ledger:
    """The accounts of a proxy.

    Args:
        shared: of each session, or of all cells together.
        per_session: which of the two.
        clock: seconds.

    """

    def __init__(
        self, shared: Budget | None = None, *, per_session: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._per_session = shared if per_session else None
        self._sweep = Account("sweep", shared, clock()) if shared is not None and not per_session else None
        self._accounts: dict[tuple[str, str], Account] = {}
        self._in_flight: dict[str, Entry] = {}
        self._uncounted: dict[str, Entry] = {}

    def accounts(self, session: str, cell_budget: Budget | None = None) -> list[Account]:
        """The accounts that a call is charged to: only those that have a bound."""
        found = [] if cell_budget is None else [self._account("cell", session, cell_budget)]
        if self._per_session is not None:
            found.append(self._account("session", session, self._per_session))
        if self._sweep is not None:
            found.append(self._sweep)
        return found

    def _account(self, owner: str, session: str, budget: Budget) -> Account:
        key = (owner, session)
        if key not in self._accounts:
            self._accounts[key] = Account(owner, budget, self._clock())
        return self._accounts[key]

    def admit(self, call_id: str, accounts: Sequence[Account]) -> str | None:
        """Take a call on, or say why not."""
        now = self._clock()
        refusal = next(filter(None, (account.refusal(now) for account in accounts)), None)
        if refusal is None and accounts:
            for account in accounts:
                account.calls += 1
            self._in_flight[call_id] = Entry(accounts)
        return refusal

    def settle(self, call: Call) -> None:
        """Charge an admitted call by its closed row. What the row does not tell follows by ``learn``."""
        entry = self._in_flight.pop(call.call_id, None)
        if entry is None:
            return
        entry.prompt_missing, entry.completion_missing = call.prompt_tokens is None, call.completion_tokens is None
        for account in entry.accounts:
            account.tokens += (call.prompt_tokens or 0) + (call.completion_tokens or 0)
        numbers_follow = call.usage_source == "provider" or is_unmetered(call)
        if numbers_follow and call.attached_to is None and any(account.needs_numbers for account in entry.accounts):
            self._uncounted[call.call_id] = entry
        else:
            entry.counted.set()

    def learn(self, numbers: Numbers) -> bool:
        """Charge the cost of a settled call, and the estimates of what its provider did not tell.

        Returns:
            Whether a budget of money hangs on the call.

        """
        entry = self._uncounted.pop(numbers.call_id, None)
        if entry is None:
            return False
        tokens = (numbers.estimated_prompt_tokens or 0) if entry.prompt_missing else 0
        tokens += (numbers.estimated_completion_tokens or 0) if entry.completion_missing else 0
        for account in entry.accounts:
            account.tokens += tokens
            account.cost_usd += numbers.cost or 0.0
        entry.counted.set()
        return any(account.budget.cost_usd is not None for account in entry.accounts)

    def release(self, call_id: str) -> None:
        """Forget a call that came to no row. It stays made."""
        self._in_flight.pop(call_id, None)

    def uncounted(self, accounts: Iterable[Account]) -> list[Entry]:
        """The settled calls of these accounts whose tokens or cost are still being worked out."""
        charged = {id(account) for account in accounts if account.needs_numbers}
        return [entry for entry in self._uncounted.values() if charged & {id(account) for account in entry.accounts}]

    def give_up(self, entries: Sequence[Entry]) -> None:
        """Wait no longer for what these calls cost."""
        self._uncounted = {call_id: entry for call_id, entry in self._uncounted.items() if entry not in entries}

    def carry(self, *, calls: int, tokens: int, cost_usd: float) -> None:
        """Charge the sweep with what its earlier runs spent."""
        if self._sweep is not None:
            self._sweep.calls += calls
            self._sweep.tokens += tokens
            self._sweep.cost_usd += cost_usd

    def sweep_spent(self) -> str | None:
        """Why no further call of any cell is admitted, or None."""
        return None if self._sweep is None else self._sweep.refusal(self._clock())


def is_of_sweep(refusal: str) -> bool:
    """Whether it is the budget of all cells together that is spent, by an ``Account``'s sentence."""
    return _OF_SWEEP.search(refusal) is not None


def is_metered(call: Call) -> bool:
    """Whether a call counts: listing models and counting tokens cost nothing."""
    return call.method == "POST" and call.dialect not in _FREE


def _calls(number: int | None) -> str:
    return "1 call" if number == 1 else f"{number or 0:,} calls"
