"""A command that runs in this process's place: its terminal, its streams, its process group, its signals.

Invariant: nothing is read from the terminal or written to it while the command runs, and the command finds everything
but its environment as it would have without us.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cellmeter_proxy.errors import CellmeterError

# As shells say it (POSIX.1-2024, Shell Command Language, 2.8.2).
CANNOT_RUN: Final = 126
NOT_FOUND: Final = 127
_KILLED: Final = 128
_FROM_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})


class Child:
    """A command to be run once.

    Args:
        command: the program and its arguments.
        search_path: where programs are looked for, as in ``PATH``.

    Raises:
        CellmeterError: there is no such program (exit code 127), or it may not be run (126).

    """

    def __init__(self, command: Sequence[str], search_path: str | None = None) -> None:
        self._command = [find_program(command[0], search_path), *command[1:]]
        self._name = command[0]
        self._process: subprocess.Popen[bytes] | None = None

    async def run(self, environment: Mapping[str, str]) -> int:
        """Run the command to its end and return its exit code; 128 + n where signal n ended it.

        Raises:
            CellmeterError: the system does not take the program for one (exit code 126).

        """
        argv = [self._name, *self._command[1:]]
        try:
            # Not the loop's own way of starting processes: uvloop's gives the child every signal at its default,
            # also those that nohup and shells have had ignored.
            self._process = subprocess.Popen(argv, executable=self._command[0], env=dict(environment))  # noqa: ASYNC220 - nothing else runs yet
        except OSError as error:
            raise CellmeterError(f"{self._name} cannot be run: {error.strerror}", exit_code=CANNOT_RUN) from None
        code = await asyncio.to_thread(self._process.wait)
        return _KILLED - code if code < 0 else code

    def deliver(self, number: signal.Signals) -> bool:
        """Take a signal that was sent to this process; False where the command has not been started.

        What the terminal sends for a key, such as Ctrl-C, goes to the whole process group: the command has it already.
        After the command's end signals are taken and nothing more, so that the one that ended it does not cost its
        audit.
        """
        if self._process is None:
            return False
        if not (number in _FROM_TERMINAL and in_foreground()):
            self._process.send_signal(number)
        return True


def find_program(name: str, search_path: str | None = None) -> str:
    """The path of a program, found as a shell finds it.

    Raises:
        CellmeterError: there is none (exit code 127), or it may not be run (126).

    """
    found = shutil.which(name, path=search_path)
    if found is not None:
        return found
    if os.sep in name and Path(name).exists():
        raise CellmeterError(f"{name} is not a program that may be run", exit_code=CANNOT_RUN)
    raise CellmeterError(
        f"there is no program {name}", hint="check the spelling, and that its directory is on PATH", exit_code=NOT_FOUND
    )


def in_foreground() -> bool:
    """Whether this process belongs to the group that its terminal sends Ctrl-C to."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
