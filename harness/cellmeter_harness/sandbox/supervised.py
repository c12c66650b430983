"""An execution on this machine, through ``supervisor.py``: start, capture, time limit, end.

Invariant: leaving the execution ends every process of the command, and waits until that is so, also when the
caller is being cancelled.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from cellmeter_harness.sandbox.capture import Capture
from cellmeter_harness.uninterrupted import uninterrupted

GRACE_S: Final = 5.0
"""Between SIGTERM and SIGKILL."""
_SLACK_S: Final = 10.0
"""Beyond the grace: after that the supervisor itself is given up and killed."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How a supervised command is started on this machine."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path
    timeout_s: float
    grace_s: float = GRACE_S


class SupervisedExecution:
    """A launched command. The supervisor is its parent, and the lifeline this object's only contact with it."""

    def __init__(self, launch: Launch) -> None:
        self.stdout = Capture()
        self.stderr = Capture()
        self.exit_code: int | None = None
        self.timed_out = False
        self.duration_ms: float | None = None
        self._launch = launch
        self._started = 0.0
        self._lifeline: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        try:
            await uninterrupted(self._start())
        except BaseException:
            await uninterrupted(self._end())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await uninterrupted(self._end())

    async def wait(self) -> None:
        """Wait for the command to end, or end it when its time is up.

        Raises:
            OSError: the command could not be started; the sentence says why.

        """
        if self._process is None or self._lifeline is None:
            raise RuntimeError("the execution was not entered")
        try:
            async with asyncio.timeout(self._launch.timeout_s):
                await self._process.wait()
        except TimeoutError:
            self.timed_out = True
            await uninterrupted(self._end())
            return
        self._stop_clock()
        await self._drained()
        self._read_report(self._lifeline)

    async def _start(self) -> None:
        launch = self._launch
        self._lifeline, far_end = socket.socketpair()
        self._lifeline.setblocking(False)
        self._started = time.perf_counter()
        with far_end:
            self._process = await asyncio.create_subprocess_exec(
                *launch.argv,
                cwd=launch.cwd,
                env=launch.env,
                stdin=far_end.fileno(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        for stream, capture in ((self._process.stdout, self.stdout), (self._process.stderr, self.stderr)):
            if stream is not None:
                self._readers.append(asyncio.create_task(capture.drain(stream)))

    def _read_report(self, lifeline: socket.socket) -> None:
        """What the supervisor said; nothing from it means that the command was never reached."""
        line = ""
        with contextlib.suppress(OSError):
            line = lifeline.recv(4096).decode("utf-8", "replace").strip()
        word, _, rest = line.partition(" ")
        if word != "exited":
            said = self.stderr.text().strip()[-1000:]
            raise OSError(f"the command could not be started: {rest or said or 'its supervisor was killed'}")
        self.exit_code = int(rest)

    async def _end(self) -> None:
        """Close the lifeline, on which the supervisor ends the command, and wait until all is over."""
        if self._lifeline is not None:
            self._lifeline.close()
        if self._process is not None:
            await self._over(self._process)
            self._stop_clock()
        await self._drained()

    async def _over(self, process: asyncio.subprocess.Process) -> None:
        for last in (False, True):
            try:
                async with asyncio.timeout(self._launch.grace_s + _SLACK_S):
                    await process.wait()
                    return
            except TimeoutError:
                if not last:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)

    async def _drained(self) -> None:
        """All output taken. Pipes end with the last process that holds them: one that got away is not waited for."""
        if self._readers:
            _, late = await asyncio.wait(self._readers, timeout=_SLACK_S)
            for reader in late:
                reader.cancel()

    def _stop_clock(self) -> None:
        if self.duration_ms is None:
            self.duration_ms = (time.perf_counter() - self._started) * 1000


def supervised(argv: list[str], python: str, supervisor: str, grace_s: float = GRACE_S) -> list[str]:
    """The command line that runs a command under the supervisor."""
    return [python, "-I", "-S", supervisor, str(grace_s), "--", *argv]


def interpreter() -> Path:
    """The interpreter that this one was made from: the one that needs nothing but its own installation."""
    major, minor = sys.version_info[:2]
    base = Path(sys.base_prefix, "bin", f"python{major}.{minor}")
    return base if base.exists() else Path(sys.executable).resolve()
