"""``cellmeter run``: run or resume a sweep, then show what it says."""

import logging
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from cellmeter_harness.cli.aio import run_async
from cellmeter_harness.cli.output import stderr_console
from cellmeter_harness.cli.progress import SweepProgress
from cellmeter_harness.cli.score import show_leaderboard
from cellmeter_harness.conduct import conduct
from cellmeter_harness.sweep import SweepSpec, load_sweep, plan_cells
from cellmeter_proxy.absorb import On429
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.logfile import Durability
from cellmeter_scoring import INFRASTRUCTURE, CellScore, leaderboard, minimum_detectable_difference, rescore


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
@click.option(
    "--retry-failed",
    is_flag=True,
    help="One more attempt for each cell that failed for the infrastructure's reasons as often as the sweep allows.",
)
@click.option(
    "--on-429",
    "on_429",
    type=click.Choice(["observe", "absorb", "pace"]),
    help="What becomes of a provider's 429s and failures, instead of what the file says.",
)
def run(sweep: Path, durability: Durability, methodology: str, *, retry_failed: bool, on_429: On429 | None) -> None:
    """Run a sweep, or what is left of it, and print its leaderboard.

    The exit code is 1 where every cell failed for the infrastructure's reasons: nothing was measured.
    """
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    spec = msgspec.structs.replace(load_sweep(sweep), retry_failed=retry_failed)
    if on_429 is not None:
        spec = msgspec.structs.replace(spec, upstream=msgspec.structs.replace(spec.upstream, on_429=on_429))
    if foresight := _foresight(spec):
        stderr_console().print(foresight)
    try:
        with SweepProgress() as progress:
            run_async(conduct(spec, progress, durability=durability))
    except KeyboardInterrupt:
        stderr_console().print("what was run is in the log; the same command goes on from there")
        raise
    planned = {plan.cell_id for plan in plan_cells(spec)}
    scores = [score for score in rescore(spec.log, methodology) if score.cell_id in planned]
    show_leaderboard(leaderboard(scores), methodology)
    failed = [score for score in scores if score.failure_class in INFRASTRUCTURE]
    _name(failed)
    stderr_console().print(f"\nlog: {spec.log}\nnext: cellmeter audit {spec.log}")
    if len(failed) == len(scores):
        raise CellmeterError(
            f"nothing was measured: every cell of the sweep failed for the infrastructure's reasons ({len(failed)})",
            hint=_cure(sweep),
        )
    if failed:
        stderr_console().print(f"hint: {_cure(sweep)}")


def _foresight(spec: SweepSpec) -> str | None:
    """What the sweep will be able to tell, before it is paid for; None where it compares nothing."""
    rows = len(spec.agents) * len(spec.models)
    if rows < 2:
        return None
    pairs = rows * (rows - 1) // 2
    difference = minimum_detectable_difference(len(spec.tasks), spec.repeats, pairs=pairs)
    size = f"{_count(len(spec.tasks), 'task')} × {_count(spec.repeats, 'repeat')}"
    if difference is None:
        return f"{size}: too few to tell {rows} rows of agent × model apart on tasks like these"
    return (
        f"{size}: two of {rows} rows of agent × model are told apart, 8 times of 10, where their pass rates differ by"
        f" {difference:.2f} or more (an estimate; see minimum_detectable_difference)"
    )


def _name(failed: Sequence[CellScore]) -> None:
    """Say which cells have no result, and why: they would pass for done otherwise."""
    if failed:
        stderr_console().print("\nwithout a result, for the infrastructure's reasons:")
    for score in failed:
        tries = _count(score.attempt, "attempt")
        stderr_console().print(f"  {score.cell_id} ({tries}): {score.failure_class}: {score.failure_reason}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cure(sweep: Path) -> str:
    return f"mend what the reasons name, then: cellmeter run {sweep} --retry-failed"
