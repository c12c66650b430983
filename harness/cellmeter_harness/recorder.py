"""What a cell needs of the proxy that records it, and the real one in that form."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from cellmeter_proxy.budget import Budget
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt, Call, Cell, Record, Sweep
from cellmeter_proxy.throttle import Throttle

T = TypeVar("T")


class Recorder(Protocol):
    """The proxy as the harness sees it: an address, keys that name cells, and the log."""

    @property
    def url(self) -> str:
        """``http://HOST:PORT``, without a path."""
        ...

    @property
    def socket_path(self) -> Path | None:
        """The same server on a Unix socket, for sandboxes without a network."""
        ...

    def issue_key(self, cell_id: str, attempt: int, budget: Budget | None = None) -> str:
        """A virtual key: calls made with it are recorded under the cell, and refused beyond its budget."""
        ...

    def sweep_spent(self) -> str | None:
        """Why no further call of any cell is admitted, or None."""
        ...

    @property
    def throttle(self) -> Throttle:
        """What the provider has refused for its rate limit."""
        ...

    def revoke_key(self, key: str) -> None:
        """From now on calls made with the key are refused, and recorded as such."""
        ...

    async def append(self, *records: Record) -> None:
        """Add rows to the log."""
        ...

    async def replace(self, record: Record) -> None:
        """Complete a row in the log."""
        ...

    async def store(self, content: bytes) -> str:
        """Keep content in the log, and return its digest."""
        ...

    async def read(self, query: Callable[[Log], T]) -> T:
        """The answer of a query on the log."""
        ...


class _Keys(Protocol):
    def issue(self, cell_id: str, attempt: int, *, budget: Budget | None) -> str: ...

    def revoke(self, key: str) -> None: ...


class _Ledger(Protocol):
    def sweep_spent(self) -> str | None: ...


class _Writer(Protocol):
    async def append(self, *records: Record) -> None: ...

    async def replace(self, record: Record) -> None: ...

    async def store(self, content: bytes) -> str: ...

    async def read(self, query: Callable[[Log], T]) -> T: ...


class RunningProxy(Protocol):
    """What of a running proxy is used; ``cellmeter_proxy.server.Running`` is one."""

    @property
    def url(self) -> str: ...

    @property
    def socket_path(self) -> Path | None: ...

    @property
    def keys(self) -> _Keys: ...

    @property
    def ledger(self) -> _Ledger: ...

    @property
    def throttle(self) -> Throttle: ...

    @property
    def writer(self) -> _Writer: ...


class ProxyRecorder:
    """The recorder that a running proxy of this process is."""

    def __init__(self, running: RunningProxy) -> None:
        self._running = running

    @property
    def url(self) -> str:
        return self._running.url

    @property
    def socket_path(self) -> Path | None:
        return self._running.socket_path

    def issue_key(self, cell_id: str, attempt: int, budget: Budget | None = None) -> str:
        return self._running.keys.issue(cell_id, attempt, budget=budget)

    def sweep_spent(self) -> str | None:
        return self._running.ledger.sweep_spent()

    @property
    def throttle(self) -> Throttle:
        return self._running.throttle

    def revoke_key(self, key: str) -> None:
        self._running.keys.revoke(key)

    async def append(self, *records: Record) -> None:
        await self._running.writer.append(*records)

    async def replace(self, record: Record) -> None:
        await self._running.writer.replace(record)

    async def store(self, content: bytes) -> str:
        return await self._running.writer.store(content)

    async def read(self, query: Callable[[Log], T]) -> T:
        return await self._running.writer.read(query)


def calls_of(cell_id: str, attempt: int) -> Callable[[Log], list[Call]]:
    """The query for the calls of one attempt at a cell, in their order."""
    where = "cell_id = ? AND cell_attempt = ? ORDER BY started_at, seq"
    return lambda log: list(log.rows(Call, where, (cell_id, attempt)))


def attempts_of(cell_id: str, attempt: int) -> Callable[[Log], list[Attempt]]:
    """The query for the tries upstream behind those calls."""
    where = "call_id IN (SELECT call_id FROM calls WHERE cell_id = ? AND cell_attempt = ?) ORDER BY started_at, n"
    return lambda log: list(log.rows(Attempt, where, (cell_id, attempt)))


def cells_of(sweep_id: str) -> Callable[[Log], list[Cell]]:
    """The query for every attempt at every cell of a sweep, oldest attempt first."""
    return lambda log: list(log.rows(Cell, "sweep_id = ? ORDER BY cell_id, attempt", (sweep_id,)))


def sweep_of(sweep_id: str) -> Callable[[Log], Sweep | None]:
    """The query for the row of a sweep, or None where the log has none."""
    return lambda log: next(log.rows(Sweep, "sweep_id = ?", (sweep_id,)), None)


def admitted_calls_of(sweep_id: str) -> Callable[[Log], list[Call]]:
    """The query for the calls of all cells of a sweep that were sent on."""
    where = "cell_id IN (SELECT cell_id FROM cells WHERE sweep_id = ?) AND outcome IS NOT 'rejected'"
    return lambda log: list(log.rows(Call, where, (sweep_id,)))
