"""An execution on this machine, through ``supervisor.py``: start, capture, time limit, end.

Invariant: leaving the execution ends every process of the command, and waits until that is so, also when the
caller is being cancelled. A command that kills its supervisor is seen by its marker; without isolation, one that
clears its environment as well gets away.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from cellmeter_harness.sandbox.capture import Capture
from cellmeter_harness.uninterrupted import in_thread, uninterrupted
from cellmeter_proxy.record import now_us

GRACE_S: Final = 5.0
"""Between SIGTERM and SIGKILL."""
MARKER: Final = "CELLMETER_EXECUTION"
_PAUSE_S: Final = 0.01
_SLACK_S: Final = 10.0
"""Beyond the grace: after that the supervisor itself is given up and killed."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How a supervised command is started on this machine."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path
    timeout_s: float
    grace_s: float = GRACE_S
    marker: str | None = None
    """Put into the command's environment, so that its processes are found should the supervisor have been killed."""


class SupervisedExecution:
    """A launched command. The supervisor is its parent, and the lifeline this object's only contact with it."""

    def __init__(self, launch: Launch) -> None:
        self.stdout = Capture()
        self.stderr = Capture()
        self.exit_code: int | None = None
        self.timed_out = False
        self.duration_ms: float | None = None
        self.ended_at: int | None = None
        self._launch = launch
        self._started = 0.0
        self._started_at = 0
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

        A supervisor that was killed while the command ran leaves no exit code, and is no error: who killed it was
        the command.

        Raises:
            OSError: the command could not be started; the sentence says why.

        """
        if self._process is None or self._lifeline is None:
            raise RuntimeError("the execution was not entered")
        try:
            async with asyncio.timeout(self._launch.timeout_s):
                said = await _all_of(self._lifeline)
        except TimeoutError:
            self.timed_out = True
            self._stop_clock()
            await uninterrupted(self._end())
            return
        ended = time.monotonic()
        if "exited" not in said:
            await uninterrupted(self._strays_ended())
        await self._drained()
        self._take_report(said, ended)

    async def _start(self) -> None:
        launch = self._launch
        self._lifeline, far_end = socket.socketpair()
        self._lifeline.setblocking(False)
        self._started, self._started_at = time.monotonic(), now_us()
        with far_end:
            self._process = await asyncio.create_subprocess_exec(
                *launch.argv,
                cwd=launch.cwd,
                env=launch.env | ({MARKER: launch.marker} if launch.marker else {}),
                stdin=far_end.fileno(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        for stream, capture in ((self._process.stdout, self.stdout), (self._process.stderr, self.stderr)):
            if stream is not None:
                self._readers.append(asyncio.create_task(capture.drain(stream)))

    def _take_report(self, said: str, ended: float) -> None:
        """What the supervisor said until it ended; nothing from it means that the command was never reached."""
        lines = {word: rest for word, _, rest in (line.partition(" ") for line in said.splitlines())}
        if "started" not in lines or "failed" in lines:
            output = self.stderr.text().strip()[-1000:]
            reason = lines.get("failed") or output or "its supervisor was killed"
            raise OSError(f"the command could not be started: {reason}")
        if "exited" in lines:
            code, at = lines["exited"].split()
            self.exit_code, ended = int(code), float(at)
        self._stop_clock(ended)

    async def _end(self) -> None:
        """Close the lifeline, on which the supervisor ends the command, and wait until all is over."""
        if self._lifeline is not None:
            self._lifeline.close()
        if self._process is not None:
            self._stop_clock()
            await self._over(self._process)
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
                    await self._strays_ended()

    async def _strays_ended(self) -> None:
        """Do a killed supervisor's work: end whatever carries the marker."""
        if self._launch.marker:
            await in_thread(end_marked, f"{MARKER}={self._launch.marker}")

    async def _drained(self) -> None:
        """All output taken. Pipes end with the last process that holds them: one that got away is not waited for."""
        if self._readers:
            _, late = await asyncio.wait(self._readers, timeout=_SLACK_S)
            for reader in late:
                reader.cancel()

    def _stop_clock(self, ended: float | None = None) -> None:
        """The command's time is over, now or when it is said to have ended."""
        if self.duration_ms is None:
            seconds = max(0.0, (time.monotonic() if ended is None else ended) - self._started)
            self.duration_ms = seconds * 1000
            self.ended_at = self._started_at + round(seconds * 1e6)


async def _all_of(lifeline: socket.socket) -> str:
    """Everything from the other end until it is closed, at the latest by the end of whoever holds it."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await asyncio.get_running_loop().sock_recv(lifeline, 4096):
            said += chunk
    return said.decode("utf-8", "replace")


def end_marked(assignment: str) -> None:
    """Kill every process of this user that was started with a variable set to a value, until there is none."""
    wanted = assignment.encode()
    deadline = time.monotonic() + _SLACK_S
    while (found := list(_with_variable(wanted))) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def _with_variable(assignment: bytes) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if assignment in entry.read_bytes().split(b"\0"):
                yield int(entry.parent.name)


def supervised(
    argv: list[str], python: str, supervisor: str, grace_s: float = GRACE_S, limits: Sequence[str] = ()
) -> list[str]:
    """The command line that runs a command under the supervisor, with limits such as ``NPROC=4096``."""
    return [python, "-I", "-S", supervisor, str(grace_s), *limits, "--", *argv]


def interpreter() -> Path:
    """The interpreter that this one was made from: the one that needs nothing but its own installation."""
    major, minor = sys.version_info[:2]
    base = Path(sys.base_prefix, "bin", f"python{major}.{minor}")
    return base if base.exists() else Path(sys.executable).resolve()
