"""The program's entrance: as little as possible before Ctrl-C is understood, then the command line.

Invariant: from the first line of ``main`` to the end of the process, Ctrl-C ends it with exit code 130 and one word,
never with a traceback or by the signal itself. What Python does before that line (its own start, and the few lines of
the script that the installer wrote) is beyond a program's reach; this module imports next to nothing to keep it short.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

_INTERRUPTED = 130


def main() -> None:
    """Run ``cellmeter`` and exit the process with its code."""
    _on_interrupt(_leave)
    # Imported here because it takes a good part of a second, in which a person may press Ctrl-C.
    from cellmeter_harness.cli import invoke  # noqa: PLC0415

    sys.exit(_exit_code(invoke))


def _exit_code(invoke: Callable[[list[str]], int]) -> int:
    try:
        _on_interrupt(signal.default_int_handler)
        code = invoke(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        _on_interrupt(_leave)
    return code


def _on_interrupt(handler: Callable[[int, FrameType | None], object]) -> None:
    """Say what Ctrl-C does, unless this process was started to ignore it, as a shell's background jobs are."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End the process at once: nothing is under way that could be left half done.

    An exception would not do: some of those that are raised while modules are imported, or while the interpreter ends,
    are printed and dropped.
    """
    os.write(2, b"interrupted\n")
    os._exit(_INTERRUPTED)
