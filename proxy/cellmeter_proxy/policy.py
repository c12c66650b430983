"""What is refused though the key is right: a call beyond a budget, and tools of the provider that were not granted.

Invariant: an objection is raised before anything of the call is sent.
"""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Final

from cellmeter_proxy.budget import Budget, is_metered
from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.till import Charging

_VERSION: Final = re.compile(r"(_preview)?(_\d{4}_?\d{2}_?\d{2})?$")


class Policy:
    """What a proxy objects to.

    Args:
        till: of the budgets in force.
        granted: the provider-side tools that may be used (see ``is_granted``); None refuses none.

    """

    def __init__(self, till: Charging, granted: Collection[str] | None = None) -> None:
        self.till = till
        self._granted = granted

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
        return await self.till.take_on(call.call_id, call.session, cell_budget)


def is_granted(tool: str, granted: Collection[str]) -> bool:
    """Whether a provider-side tool may be used.

    A grant is a tool as the log names it (``mcp:https://example.com/sse``), its kind (``mcp``, ``image_url``), also
    without the date or the ``_preview`` that providers append (``web_search``), a pattern (``mcp:https://example.com/*``),
    or ``all``.
    """
    kind = tool.partition(":")[0]
    names = {tool, kind, _VERSION.sub("", kind)}
    return any(grant == "all" or grant in names or fnmatchcase(tool, grant) for grant in granted)
