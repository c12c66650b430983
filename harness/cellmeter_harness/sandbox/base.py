"""What a sandbox is: the promise that every kind of isolation keeps, and the words it is made in.

The promise: a command sees its workspace, its own directories and, if it is given a gate, the proxy;
its output is captured within a bound; and when its execution is over, no process of it is alive.
"""

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from cellmeter_harness.sandbox.capture import Capture
from cellmeter_proxy.record import Isolation


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """The directories on this machine that one command may write to, and the agent's own files."""

    workspace: Path
    home: Path
    """Where HOME points; the workspace itself where an agent's manifest says so."""
    tmp: Path
    cache: Path
    """For what tools build and fetch, so that it is not taken for work of the agent."""
    agent: Path | None = None


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """Where the proxy can be reached: the only thing on a network that a sandbox lets through."""

    url: str
    """``http://HOST:PORT``, without a path."""
    socket: Path | None = None
    """The same server on a Unix socket, for sandboxes without a network."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A room and a gate as the command sees them from inside."""

    workspace: str
    home: str
    tmp: str
    cache: str
    agent_dir: str
    python: str
    """An interpreter with its standard library, and nothing else that can be counted on."""
    api_root: str
    """The proxy's URL without ``/v1``; empty without a gate."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What is run: its arguments, what is added to the environment, how long it may take."""

    argv: list[str]
    env: dict[str, str] = {}
    timeout_s: float
    programs: list[Path] = []
    """Programs that the command needs beside those of the system."""


class Execution(Protocol):
    """A command under way, and what became of it. Entering starts it; leaving ends whatever is left of it."""

    stdout: Capture
    stderr: Capture
    exit_code: int | None
    """None until the command has ended by itself; still None where it had to be ended or took its watcher with it."""
    timed_out: bool
    duration_ms: float | None
    """Until the command ended or its time was up; ending it, and what it left running, is not its time."""
    ended_at: int | None
    """When that was, in UTC microseconds."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def wait(self) -> None:
        """Wait for the command to end, or end it when its time is up.

        Raises:
            OSError: the command could not be started; the sentence says why.

        """
        ...


class Sandbox(Protocol):
    """A kind of isolation. It keeps no state between executions."""

    isolation: Isolation

    def view(self, room: Room, gate: Gate | None) -> View:
        """What a command will see of a room and a gate."""
        ...

    def execute(self, room: Room, command: Command, gate: Gate | None) -> Execution:
        """An execution of a command in a room, to be entered. Without a gate there is nothing to connect to."""
        ...
