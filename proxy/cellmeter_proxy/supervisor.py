"""``cellmeter proxy --workers N``: several processes on one port and one log.

This process binds the port for all (``listening``), starts the workers, replaces those that die or hang, marks what
they left open, and keeps what they share (``coordinator``).

Invariant: no worker outlives this process, and none is left behind when it stops.
"""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO, Final

from cellmeter_proxy.accountant import Accountant
from cellmeter_proxy.budget import Ledger
from cellmeter_proxy.coordinator import Coordinator, Member
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.intact import Files
from cellmeter_proxy.link import Link
from cellmeter_proxy.listening import bind, close
from cellmeter_proxy.log import Log
from cellmeter_proxy.server import ProxyConfig, parse_upstream, url_of
from cellmeter_proxy.turn import Turn
from cellmeter_proxy.worker import encode_config
from cellmeter_proxy.writer import LogUnwritableError, LogWriter

HUNG_S: Final = 60.0
"""Longer than a disk that is busy keeps a worker from its other calls."""
_AT_ONCE_S: Final = 0.5
_MOST_AT_ONCE: Final = 5
_PAUSE_S: Final = 0.1
_AGAIN_S: Final = 1.0
_LOOK_S: Final = 1.0
_LAST_ROWS_S: Final = 20.0
"""Longer than a worker takes, beyond its bound, to write the rows of what it breaks off."""
_logger: Final = logging.getLogger("cellmeter")


@dataclass(frozen=True)
class Supervised:
    """A proxy of several processes, all of which accept calls."""

    url: str
    """``http://HOST:PORT``, without ``/v1``."""
    interrupted: int
    """How many calls of processes that are gone were found open in the log, and marked so, at the start."""
    failed: "asyncio.Future[None]"
    """Fails with a ``CellmeterError`` when no worker lives long enough to be of use; it never succeeds."""


@asynccontextmanager
async def supervise(config: ProxyConfig, count: int, *, hung_s: float = HUNG_S) -> AsyncIterator[Supervised]:
    """Run a proxy of so many processes for as long as the context lasts.

    Args:
        config: of each of them.
        count: how many there are.
        hung_s: a worker that has done nothing for so long is killed, and replaced.

    Raises:
        CellmeterError: as ``server.serve`` does; or the workers do not start.

    """
    parse_upstream(config.upstream)
    async with AsyncExitStack() as stack:
        turn = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        writer = await LogWriter.open(config.log, config.durability, Turn(turn))
        stack.push_async_callback(writer.aclose)
        accountant = await Accountant.start(writer, config.prices)
        stack.push_async_callback(accountant.aclose, config.shutdown_s)
        sockets = await bind(config.host, config.port, count)
        coordinator = Coordinator(config.log, Ledger(config.budget), accountant)
        supervisor = Supervisor(config, sockets, coordinator, writer, turn=turn, hung_s=hung_s)
        stack.push_async_callback(supervisor.stop)
        await supervisor.start()
        yield Supervised(url_of(sockets[0][0].getsockname()), writer.interrupted, supervisor.failed)


class Supervisor:
    """Starts workers, and others in their place.

    Args:
        config: of the proxy.
        sockets: that each worker listens on.
        coordinator: of what they share.
        writer: of the log.
        turn: the file whose lock says who commits.
        hung_s: a worker that has done nothing for so long is killed.

    """

    def __init__(
        self,
        config: ProxyConfig,
        sockets: Sequence[Sequence[socket.socket]],
        coordinator: Coordinator,
        writer: LogWriter,
        *,
        turn: IO[bytes],
        hung_s: float = HUNG_S,
    ) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._config = config
        self._sockets = sockets
        self._coordinator = coordinator
        self._writer = writer
        self._turn = turn
        self._hung_s = hung_s
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._guard: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Start the workers, and return when all of them accept calls.

        Raises:
            CellmeterError: one of them does not.

        """
        ready = [asyncio.Event() for _ in self._sockets]
        keepers = zip(self._sockets, ready, strict=True)
        self._keepers = [asyncio.create_task(self._keep(sockets, event)) for sockets, event in keepers]
        all_ready = asyncio.create_task(_all_set(ready))
        self.failed.add_done_callback(lambda _: all_ready.cancel())
        await asyncio.wait({all_ready})
        if self.failed.done():
            self.failed.result()
        self._guard = asyncio.create_task(self._guard_files())

    async def stop(self) -> None:
        """End the workers: they finish what is under way within the bound, and are killed where they do not end."""
        self._stopping.set()
        if self._guard is not None:
            await self._guard
        close(self._sockets)
        self._coordinator.stop()
        if not self._keepers:
            return
        await asyncio.wait(self._keepers, timeout=self._config.shutdown_s + _LAST_ROWS_S)
        for process in self._processes:
            process.kill()
        await asyncio.gather(*self._keepers)
        if self.failed.done() and not self.failed.cancelled():
            self.failed.exception()

    async def _guard_files(self) -> None:
        """Have all workers let go of a log whose ``-wal`` or ``-shm`` was deleted.

        They cannot write it: only a process that has it open alone can have the files made anew (``intact``), and that
        is this one, before it starts others in their place.
        """
        files: Files | None = None
        while not self._stopping.is_set():
            moved: list[str] = []
            with suppress(OSError):  # a directory that cannot be looked into is for those who write to say
                files = files or Files(self._config.log)
                moved = files.moved()
            if moved and str(self._config.log) not in moved:
                _logger.warning("%s was deleted; the workers are ended", " and ".join(moved))
                for process in self._processes:
                    process.kill()
                files = None
            await _within(self._stopping, _LOOK_S)

    async def _keep(self, sockets: Sequence[socket.socket], ready: asyncio.Event) -> None:
        """Have one worker on its sockets at all times."""
        swift = 0
        while not self._stopping.is_set():
            ending, served_s = await self._have_worker(sockets, ready)
            if self._stopping.is_set():
                return
            swift = swift + 1 if served_s < _AT_ONCE_S else 0
            if not ready.is_set() or swift == _MOST_AT_ONCE:
                self._give_up(ending)
                return
            _logger.warning("a worker %s; another takes its place", ending)
            await _within(self._stopping, _PAUSE_S * swift)

    async def _have_worker(self, sockets: Sequence[socket.socket], ready: asyncio.Event) -> tuple[str, float]:
        """Start a worker and attend to it until it ends; how it did, and how long it had accepted calls."""
        try:
            member, process = await self._spawn(sockets)
        except OSError as error:
            return f"could not be started: {error.strerror}", 0.0
        started = asyncio.create_task(_when(member.ready, ready))
        watching = asyncio.create_task(self._watch(member, process))
        try:
            await self._coordinator.attend(member)
        except Exception:
            # It is ended below, and replaced: the others go on.
            _logger.exception("a worker said something that it should not have")
            process.kill()
        served_s = time.monotonic() - started.result() if started.done() else 0.0
        started.cancel()
        watching.cancel()
        await member.link.aclose()
        status = await asyncio.to_thread(_reap, process, self._config.shutdown_s + _LAST_ROWS_S)
        self._processes.discard(process)
        return f"{_ending(status)}{await self._settle(member)}", served_s

    async def _watch(self, member: Member, process: "subprocess.Popen[bytes]") -> None:
        """Kill a worker that runs, and does nothing any more: it would be dealt connections and answer none."""
        await member.ready.wait()
        while await self._coordinator.hear_from(member, self._hung_s):
            await _within(self._stopping, self._hung_s / 2)
            if self._stopping.is_set():  # which has a bound of its own
                return
        _logger.warning("a worker has not replied for %g s and is killed", self._hung_s)
        process.kill()

    async def _spawn(self, sockets: Sequence[socket.socket]) -> tuple[Member, "subprocess.Popen[bytes]"]:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = _start(self._config, [theirs, self._turn, *sockets])
            except OSError:
                ours.close()
                raise
        self._processes.add(process)
        return Member(await Link.open(ours)), process

    async def _settle(self, member: Member) -> str:
        """Mark and charge what a worker has left, once its process has ended; what there is to say of it.

        A log that cannot be written now is waited for: a worker that was started meanwhile could not open it.
        """
        await self._coordinator.settle_with(member)
        complained = False
        while not self._stopping.is_set():
            try:
                found = await self._writer.read(Log.recover)
            except LogUnwritableError as error:
                if not complained:
                    _logger.warning("%s; a worker that ended is replaced once it can be", error)
                complained = True
                await _within(self._stopping, _AGAIN_S)
            else:
                return f"; calls that it had open, now marked as interrupted: {found}" if found else ""
        return ""

    def _give_up(self, ending: str) -> None:
        if not self.failed.done():
            self.failed.set_exception(
                CellmeterError(f"the proxy's workers end as soon as they are started: the last one {ending}")
            )


def _reap(process: "subprocess.Popen[bytes]", bound_s: float) -> int:
    """The status of a process that has ended, or has closed its link and should end."""
    try:
        return process.wait(bound_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _start(config: ProxyConfig, files: Sequence[socket.socket | IO[bytes]]) -> "subprocess.Popen[bytes]":
    numbers = [file.fileno() for file in files]
    # Without the current directory among the modules, which may be an agent's; and out of reach of Ctrl-C.
    command = [sys.executable, "-P", "-m", "cellmeter_proxy.worker", *map(str, numbers)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=numbers, start_new_session=True
    )
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(encode_config(config))
    return process


async def _within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _all_set(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


async def _when(event: asyncio.Event, also: asyncio.Event) -> float:
    """When something happened (monotonic clock); whoever waits for the other event is told too."""
    await event.wait()
    also.set()
    return time.monotonic()


def _ending(status: int) -> str:
    return f"ended with exit code {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"
