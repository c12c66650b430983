"""What is refused though the key is right: a call beyond a budget, and tools of the provider that were not granted.

Invariant: an objection is raised before anything of the call is sent.
"""

import asyncio
import logging
import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Final

from cellmeter_proxy.budget import Account, Budget, Ledger, is_metered
from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.record import Numbers

_COUNTING_S: Final = 5.0
"""How long a call waits for the tokens and the cost of the ones before it, where a budget hangs on them."""
_VERSION: Final = re.compile(r"(_preview)?(_\d{4}_?\d{2}_?\d{2})?$")
_logger: Final = logging.getLogger("cellmeter")


class Policy:
    """What a proxy objects to.

    Args:
        ledger: of the budgets in force.
        granted: the provider-side tools that may be used (see ``is_granted``); None refuses none.

    """

    def __init__(self, ledger: Ledger, granted: Collection[str] | None = None) -> None:
        self.ledger = ledger
        self._granted = granted
        self._unpriced = False

    async def objection(self, exchange: Exchange, cell_budget: Budget | None) -> str | None:
        """Why a call is refused, or None, which takes it on in the ledger."""
        if self._granted is not None:
            # What is refused is what is recorded, so the row comes first: a cell's calls wait for its commit.
            tools = (await exchange.opened()).provider_tools or []
            refused = [tool for tool in tools if not is_granted(tool, self._granted)]
            if refused:
                return f"provider-side tools are refused unless they are granted: {', '.join(refused)}"
        call = exchange.call
        if not is_metered(call):
            return None
        accounts = self.ledger.accounts(call.session, cell_budget)
        if not accounts:
            return None
        await self._count(accounts)
        return self.ledger.admit(call.call_id, accounts)

    async def _count(self, accounts: Sequence[Account]) -> None:
        entries = self.ledger.uncounted(accounts)
        if not entries:
            return
        try:
            async with asyncio.timeout(_COUNTING_S):
                for entry in entries:
                    await entry.counted.wait()
        except TimeoutError:
            self.ledger.give_up(entries)

    def learn(self, numbers: Numbers) -> None:
        """Charge what was worked out of a call after its answer."""
        in_money = self.ledger.learn(numbers)
        if in_money and numbers.cost is None and not self._unpriced:
            self._unpriced = True
            _logger.warning("a budget of money counts nothing for calls without a known price, and this is one")


def is_granted(tool: str, granted: Collection[str]) -> bool:
    """Whether a provider-side tool may be used.

    A grant is a tool as the log names it (``mcp:https://example.com/sse``), its kind (``mcp``, ``image_url``), also
    without the date or the ``_preview`` that providers append (``web_search``), a pattern (``mcp:https://example.com/*``),
    or ``all``.
    """
    kind = tool.partition(":")[0]
    names = {tool, kind, _VERSION.sub("", kind)}
    return any(grant == "all" or grant in names or fnmatchcase(tool, grant) for grant in granted)
