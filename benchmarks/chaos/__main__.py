"""Whether anything is lost when everything goes wrong at once.

    python benchmarks/chaos [--seconds 60] [--seed 1] [--clients 24] [--durability full] [--keep DIR] [--format json]
    python benchmarks/chaos --judge DIR        # judge again what --keep has kept

Two recorders, one observing and one absorbing 429s, write one log, while both are killed, stopped, kept from writing
and locked out, the provider cuts streams and refuses calls, and clients go away. Then what the clients hold and what
the provider billed is compared with the log. Exit code 1 where anything was lost, doubled or left open.
"""

import argparse
import asyncio
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec


def main() -> int:
    """Run what was asked for, print the report, and return the exit code."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from benchmarks.chaos.conduct import Plan, conduct
    from benchmarks.chaos.report import judged, show

    options = _options()
    with ExitStack() as stack:
        directory = options.judge or options.keep
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        if options.judge is None:
            more = ("--durability", options.durability, *shlex.split(options.options))
            asyncio.run(conduct(Plan(options.seed, options.seconds, options.clients, more, directory)))
        report = judged(directory)
    if options.format == "json":
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        show(report)
    return 0 if report.is_sound else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--durability", choices=["full", "process"], default="full")
    parser.add_argument("--options", default="", metavar="TEXT", help="more options of `cellmeter proxy`")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--judge", type=Path, metavar="DIR")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
