"""What the workers of one proxy have in common. A proxy of one process has it to itself."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cellmeter_proxy.accountant import Accountant, Accounting
from cellmeter_proxy.attach import Tapes
from cellmeter_proxy.budget import Ledger
from cellmeter_proxy.lanes import Lanes, Queueing
from cellmeter_proxy.messages import Family
from cellmeter_proxy.metrics import Metrics
from cellmeter_proxy.sending import Refusals
from cellmeter_proxy.till import Charging, Till
from cellmeter_proxy.writer import LogWriter


@dataclass(frozen=True)
class Commons:
    """What is not a relay's own."""

    till: Charging
    accountant: Accounting
    lane_of: Callable[[str | None], Queueing]
    """The queue of a provider's key."""
    tapes: Tapes
    """The answers that are under way."""
    refusals: Refusals
    """What the provider does not take."""
    metrics: Metrics
    """Of this process."""
    counts: Callable[[], Awaitable[list[Family]]]
    """Of all of them."""
    sockets: Sequence[socket.socket] = ()
    """What this process listens on; none leaves that to its configuration."""


@asynccontextmanager
async def alone(
    writer: LogWriter, ledger: Ledger, metrics: Metrics, *, prices: Path | None, bound_s: float
) -> AsyncIterator[Commons]:
    """The commons of a proxy of one process.

    Args:
        writer: of the log.
        ledger: of the budgets.
        metrics: of the proxy.
        prices: a file of the user's own.
        bound_s: how long costs and estimates are still worked out at the end.

    Raises:
        CellmeterError: the file of prices cannot be used.

    """
    till = Till(ledger)
    accountant = await Accountant.start(writer, prices)
    accountant.on_numbers = till.learn

    async def counts() -> list[Family]:
        return metrics.families()

    try:
        yield Commons(till, accountant, Lanes().of, Tapes(), Refusals(), metrics, counts)
    finally:
        await accountant.aclose(bound_s)
