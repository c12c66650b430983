"""The program's entrance: as little as possible before Ctrl-C is understood, then the command line."""

import os
import sys


def main() -> None:
    """Run ``cellmeter`` and exit the process with its code."""
    try:
        # Imported here because it takes a good part of a second, in which a person may press Ctrl-C.
        from cellmeter_harness.cli import invoke  # noqa: PLC0415

        code = invoke(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = 130
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
