"""The estimator: a process of its own that estimates recorded calls, as a thread of the recorder talks to it.

Why a process: building the tokenizer holds the interpreter's lock for 0.1 to 0.3 s, and reading a prompt of megabytes
for some hundredths; in the recorder's own process every stream would stand still that long, and its record with it.

It starts with the first call that needs it, reads the log on a connection of its own, and ends when its stdin does.
One line of JSON in, a ``Call``; one line out, a ``Reply``. Its program is ``estimates.main``.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from cellmeter_proxy.record import Call, Record

_GRACE_S: Final = 2.0


class Reply(Record, frozen=True, kw_only=True):
    """The estimate of one call, or why there is none."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    method: str | None = None
    learned: str | None = None
    """What is known by now, as JSON of ``estimates.Learned``, where this call was a reason to learn more."""
    error: str | None = None


class EstimatorProcess:
    """The recorder's side. For one thread, but for ``kill``."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def estimate(self, call: Call) -> Reply:
        """The estimate of a call whose row and bodies are in the log.

        Raises:
            OSError: the process cannot be started, or has ended.

        """
        try:
            line = _exchange(self._process or self._start(), msgspec.json.encode(call) + b"\n")
        except OSError:
            self.close()
            raise
        return msgspec.json.decode(line, type=Reply)

    def close(self) -> None:
        """Let the process end, and see that it does."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def kill(self) -> None:
        """End the process at once; whoever waits for its reply is told that it ended."""
        if self._process is not None:
            self._process.kill()

    def _start(self) -> "subprocess.Popen[bytes]":
        # Without the current directory among the modules, which may be an agent's; and out of reach of Ctrl-C.
        command = [sys.executable, "-P", "-m", "cellmeter_proxy.estimates", str(self._log.absolute())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self._process


def _exchange(process: "subprocess.Popen[bytes]", line: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise BrokenPipeError("the estimator has no pipes")
    process.stdin.write(line)
    process.stdin.flush()
    reply = process.stdout.readline()
    if not reply:
        raise BrokenPipeError("the estimator ended")
    return reply
