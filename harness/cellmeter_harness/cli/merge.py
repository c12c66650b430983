"""``cellmeter merge``: the rows of several logs in one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from cellmeter_harness.cli.output import stderr_console
from cellmeter_proxy.conflict import Conflict, MergeConflictError
from cellmeter_proxy.merge import Merged
from cellmeter_proxy.merge import merge as merge_logs

_SHOWN: Final = 20


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path(path_type=Path))
def merge(out: Path, logs: tuple[Path, ...]) -> None:
    """Write every row of each LOG into OUT, once; merging them again changes nothing.

    OUT may be a log already. The others are only read, also while they are being recorded. Where two rows of one name
    contradict each other, nothing is written.
    """
    try:
        merged = merge_logs(out, logs)
    except MergeConflictError as error:
        _show(error.conflicts)
        raise
    for one in merged:
        _say(one)
    stderr_console().print(f"merged into {out}")


def _say(one: Merged) -> None:
    completed = f", {one.completed:,} completed" if one.completed else ""
    rows = "row" if one.added == 1 else "rows"
    stderr_console().print(f"{one.log}: {one.added:,} {rows} added{completed}, {one.known:,} known already")


def _show(conflicts: Sequence[Conflict]) -> None:
    for conflict in conflicts[:_SHOWN]:
        stderr_console().print(f"conflict: {conflict.table}: {conflict.key}: {conflict.what}")
    if len(conflicts) > _SHOWN:
        stderr_console().print(f"… and {len(conflicts) - _SHOWN:,} more")
