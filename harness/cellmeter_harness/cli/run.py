"""``cellmeter run``: run or resume a sweep, then show what it says."""

import logging
from pathlib import Path

import click

from cellmeter_harness.cli.aio import run_async
from cellmeter_harness.cli.output import stderr_console
from cellmeter_harness.cli.progress import SweepProgress
from cellmeter_harness.cli.score import show_leaderboard
from cellmeter_harness.conduct import conduct
from cellmeter_harness.sweep import load_sweep
from cellmeter_proxy.log import Durability
from cellmeter_scoring import leaderboard, rescore


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path), metavar="SWEEP.toml")
@click.option(
    "--durability",
    type=click.Choice(["full", "process"]),
    default="full",
    show_default=True,
    help="What a recorded call survives: the loss of power, or the death of the process.",
)
@click.option(
    "--methodology", default="cellmeter-1", show_default=True, help="What the leaderboard at the end is made by."
)
def run(sweep: Path, durability: Durability, methodology: str) -> None:
    """Run a sweep, or what is left of it, and print its leaderboard."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    spec = load_sweep(sweep)
    try:
        with SweepProgress() as progress:
            run_async(conduct(spec, progress, durability=durability))
    except KeyboardInterrupt:
        stderr_console().print("what was run is in the log; the same command goes on from there")
        raise
    scores = [score for score in rescore(spec.log, methodology) if score.cell_id.startswith(f"{spec.name}/")]
    show_leaderboard(leaderboard(scores), methodology)
    stderr_console().print(f"\nlog: {spec.log}\nnext: cellmeter audit {spec.log}")
