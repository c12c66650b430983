"""One recorder of the chaos: a ``cellmeter proxy`` process that is ended and started again on its log and port."""

import asyncio
import contextlib
import errno
import os
import random
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Final

SHUTDOWN_S: Final = 3.0
"""How long a recorder that is told to stop may wait for its calls in flight."""
_MARGIN_S: Final = 10.0
_STARTING_S: Final = 60.0
_STOPPED: Final = 130
_EPHEMERAL: Final = 32768


class Recorder:
    """A process that can be killed and comes back.

    Args:
        name: tells it from the others.
        upstream: the provider's address.
        log: the file that all recorders share.
        options: of ``cellmeter proxy``.

    """

    def __init__(self, name: str, upstream: str, log: Path, *options: str) -> None:
        self.port = unused_port()
        self.turn = asyncio.Lock()
        """Held by whoever is doing something to the process."""
        self.complaints: list[str] = []
        self.talk: list[str] = []
        """Everything that its processes said on stderr, line by line."""
        self.name = name
        address = ["--upstream", upstream, "--log", str(log), "--listen", f"127.0.0.1:{self.port}"]
        self._command = [sys.executable, "-m", "cellmeter_harness", "proxy", *address]
        self._command += ["--shutdown", f"{SHUTDOWN_S:g}", *options]
        self._process: asyncio.subprocess.Process | None = None
        self._listeners: list[asyncio.Task[None]] = []

    async def spawn(self) -> None:
        """Start the process; it is not ready when this returns."""
        # A pipe, and no file: a process whose disk is full could not write into that either.
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=pipe, stderr=pipe)
        if self._process.stderr is not None:
            self._listeners.append(asyncio.create_task(self._listen(self._process.stderr)))

    async def start(self) -> None:
        """Start the process and wait until it accepts calls."""
        for _ in range(3):
            await self.spawn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STARTING_S):
                    if await self._says():
                        return
            await self.kill()
        self.complaints.append(f"{self.name} did not start")

    async def kill(self) -> None:
        """End the process as a crash does."""
        self._signal(signal.SIGKILL)
        await self._running.wait()

    async def terminate(self) -> None:
        """Ask the process to stop, and see that it does within its bound and with its code."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(SHUTDOWN_S + _MARGIN_S):
                code = await self._running.wait()
        except TimeoutError:
            self.complaints.append(f"{self.name} did not stop within {SHUTDOWN_S + _MARGIN_S:g} s of SIGTERM")
            await self.kill()
            return
        if code != _STOPPED:
            self.complaints.append(f"{self.name} ended with code {code} on SIGTERM")

    def faults(self) -> list[str]:
        """What should not have happened: its complaints, and every exception that its processes printed."""
        return [*self.complaints, *(f"{self.name}: {line}" for line in self.talk if line.startswith("Traceback"))]

    def limit_files(self, size: int | None) -> None:
        """Let the process write no file beyond a size, as a full disk would (RLIMIT_FSIZE, prlimit(2)); None: any."""
        pid = self._running.pid
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        # Popen's own way reaps a process that has just ended, and asyncio, which waits for it, then knows no exit code.
        if self._running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._running.pid, number)

    async def _says(self) -> bytes:
        """The line that a recorder prints when it accepts calls; empty where it ended instead."""
        stdout = self._running.stdout
        return b"" if stdout is None else await stdout.readline()

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        async for line in stderr:
            self.talk.append(line.decode("utf-8", "replace").rstrip())


def unused_port() -> int:
    """A port that nobody listens on, and that no outgoing connection is given while its recorder is away."""
    for _ in range(1000):
        port = random.SystemRandom().randrange(10_000, _EPHEMERAL)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise RuntimeError("no port is free")
