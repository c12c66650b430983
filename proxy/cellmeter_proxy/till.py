"""Where calls are charged to their budgets: a ledger, and the wait until the calls before are counted.

Invariant: whether a call is taken on is decided with all that is known of the calls that ended before it.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from cellmeter_proxy.budget import Account, Budget, Ledger
from cellmeter_proxy.record import Call, Numbers

_COUNTING_S: Final = 5.0
"""How long a call waits for the tokens and the cost of the ones before it, where a budget hangs on them."""
_logger: Final = logging.getLogger("cellmeter")


class Charging(Protocol):
    """What a relay has of the budgets, wherever they are kept."""

    async def take_on(self, call_id: str, session: str, cell_budget: Budget | None) -> str | None:
        """Take a call on, or say why not."""
        ...

    def settle(self, call: Call) -> None:
        """Charge a call that was taken on by its closed row."""
        ...

    def release(self, call_id: str) -> None:
        """Forget a call that came to no row. It stays made."""
        ...


class Till:
    """The budgets of this process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._unpriced = False

    async def take_on(self, call_id: str, session: str, cell_budget: Budget | None) -> str | None:
        """See ``Charging``."""
        accounts = self._ledger.accounts(session, cell_budget)
        if not accounts:
            return None
        await self._count(accounts)
        return self._ledger.admit(call_id, accounts)

    def settle(self, call: Call) -> None:
        """See ``Charging``."""
        self._ledger.settle(call)

    def release(self, call_id: str) -> None:
        """See ``Charging``."""
        self._ledger.release(call_id)

    def learn(self, numbers: Numbers) -> None:
        """Charge what was worked out of a call after its answer."""
        in_money = self._ledger.learn(numbers)
        if in_money and numbers.cost is None and not self._unpriced:
            self._unpriced = True
            _logger.warning("a budget of money counts nothing for calls without a known price, and this is one")

    async def _count(self, accounts: Sequence[Account]) -> None:
        entries = self._ledger.uncounted(accounts)
        if not entries:
            return
        try:
            async with asyncio.timeout(_COUNTING_S):
                for entry in entries:
                    await entry.counted.wait()
        except TimeoutError:
            self._ledger.give_up(entries)
