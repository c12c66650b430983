"""Whose turn it is to commit, among the processes that write to one log.

SQLite's own wait for a lock sleeps for up to 100 ms at a time, and whoever sleeps longest is served last: with four
busy writers the slowest commits in a hundred take tens of milliseconds or more. Whoever asks more often waits less.

Invariant: it is a courtesy. Nothing rests on it: where a turn does not come within the bound, or its lock cannot be
had, SQLite's lock decides. A process that dies has no turn any more (fcntl(2): its record locks end with it).
"""

import fcntl
import time
from contextlib import suppress
from typing import IO, Final

_NAP_S: Final = 0.0005
_PATIENT_FROM_S: Final = 0.02
_LONG_NAP_S: Final = 0.002


class Turn:
    """One process's access to the turn.

    Args:
        file: that all of them have open, and nobody opens twice: closing it anywhere in a process ends its turn.

    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def take(self, bound_s: float) -> float:
        """Wait for the turn, for at most so many seconds; how many have passed."""
        began = time.monotonic()
        while not self.take_free():
            waited = time.monotonic() - began
            if waited >= bound_s:
                break
            time.sleep(_NAP_S if waited < _PATIENT_FROM_S else _LONG_NAP_S)
        return time.monotonic() - began

    def take_free(self) -> bool:
        """Have the turn, unless somebody else has it; waits for nobody."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # which of the two is for the system to choose (lockf(3))
            return False
        except OSError:
            return True
        return True

    def end(self) -> None:
        """Let the next one have it."""
        with suppress(OSError):
            fcntl.lockf(self._file, fcntl.LOCK_UN)
