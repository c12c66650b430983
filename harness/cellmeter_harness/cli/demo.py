"""``cellmeter demo``: the whole job on this machine, with no key, no network and no container engine."""

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Final

import click

from cellmeter_harness.cli.aio import run_async
from cellmeter_harness.cli.audit import show_audit
from cellmeter_harness.cli.output import stderr_console, stdout_console
from cellmeter_harness.cli.progress import SweepProgress
from cellmeter_harness.cli.score import show_axes, show_leaderboard
from cellmeter_harness.conduct import conduct
from cellmeter_harness.sweep import load_sweep
from cellmeter_proxy.errors import CellmeterError
from cellmeter_scoring import audit, leaderboard, rescore

SWEEP: Final = """\
# Three control agents on four tasks, twice each, answered by the built-in scripted provider.
# null does nothing, oracle applies the solution, reference is a small real agent loop over chat completions.
name = "demo"
agents = ["null", "oracle", "reference"]
models = ["scripted/small"]
tasks = ["mutations/python-comparator-swap", "polyglot/python-*", "integrity/*"]
repeats = 2
log = "cellmeter.db"
isolation = "auto"
concurrency = 2

[upstream]
scripted = true
"""
SHOWN: Final = "demo/reference/scripted/small/mutations/python-comparator-swap#run1"


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default="cellmeter-demo",
    show_default=True,
    help="Where the sweep file and the log are put.",
)
@click.option("--methodology", default="cellmeter-1", show_default=True, help="What the scores are made by.")
def demo(directory: Path, methodology: str) -> None:
    """Run a small sweep through the recorder, score it, and show the leaderboard, one cell's axes and its audit."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    path = write_sweep(directory)
    spec = load_sweep(path)
    talk = stderr_console()
    talk.print(f"running {path}: a scripted provider, the recording proxy, and {len(spec.agents)} agents")
    with SweepProgress() as progress:
        run_async(conduct(spec, progress))
    scores = rescore(spec.log, methodology)
    show_leaderboard(leaderboard(scores), methodology)
    stdout_console().print()
    show_axes(next(score for score in scores if score.cell_id == SHOWN))
    show_audit(audit(spec.log, cell=SHOWN))
    talk.print(f"\nthe log is {directory / spec.log.name}; next:")
    for arguments, effect in (
        (f"audit {directory / spec.log.name}", "every call"),
        (f"score {directory / spec.log.name} --methodology cab-0.1", "the same cells by the published formulas"),
        (f"verify {directory / spec.log.name}", "every digest derived again"),
        (f"run {path}", "the sweep again: what is in the log is not run twice"),
    ):
        talk.print(f"  {_program()} {arguments:<60} {effect}")


def _program() -> str:
    """How this program was called, so that what it prints can be pasted."""
    called = Path(sys.argv[0])
    return "cellmeter" if shutil.which("cellmeter") == str(called) else os.path.relpath(called)


def write_sweep(directory: Path) -> Path:
    """Put the demo's sweep file into a directory, or find it there.

    Raises:
        CellmeterError: the directory cannot be written.

    """
    path = directory / "demo.toml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(SWEEP, encoding="utf-8")
    except OSError as error:
        raise CellmeterError(
            f"{directory} cannot be written: {error.strerror}", hint="name another one with --directory"
        ) from None
    return path
