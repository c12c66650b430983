"""``cellmeter score``: rescore a log offline."""

from collections.abc import Sequence
from pathlib import Path

import click

from cellmeter_harness.cli.output import (
    Column,
    Format,
    emit,
    format_option,
    log_argument,
    number,
    show_table,
    stdout_console,
)
from cellmeter_scoring import CellScore, Row, leaderboard, rescore


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _interval(row: Row) -> str:
    return "–" if row.interval is None else f"{row.interval.low:.2f}–{row.interval.high:.2f}"


CELL_COLUMNS = (
    Column("cell", lambda row: row.cell_id),
    Column("failure", lambda row: "" if row.failure_class == "none" else row.failure_class),
    Column("pass", lambda row: number(row.values.pass_rate), right=True),
    Column("tokens", lambda row: number(row.values.tokens), right=True),
    Column("latency s", lambda row: number(_seconds(row.values.latency), 2), right=True),
    Column("blast", lambda row: number(row.values.blast_radius, 3), right=True),
    Column("refusal", lambda row: number(row.values.refusal, 1), right=True),
    Column("integrity", lambda row: number(row.values.integrity), right=True),
    Column("composite", lambda row: number(row.composite, 3), right=True),
)
ROW_COLUMNS = (
    Column("agent × model", lambda row: row.name),
    Column("pass rate", lambda row: number(row.pass_rate, 3), right=True),
    Column("95 % interval", _interval),
    Column("passed", lambda row: f"{row.passed}/{row.counted}", right=True),
    Column("excluded", lambda row: ", ".join(f"{count} {name}" for name, count in row.excluded.items()) or "–"),
    Column("bounds", lambda row: f"{number(row.lowest, 2)}–{number(row.highest, 2)}"),
    Column("pass^k", lambda row: "–" if row.k is None else f"{number(row.pass_hat_k, 2)} (k={row.k})", right=True),
    Column("composite", lambda row: number(row.composite.value, 3), right=True),
    Column("tokens", lambda row: number(row.tokens.value), right=True),
    Column("latency s", lambda row: number(_seconds(row.latency_ms.value), 2), right=True),
)


@click.command()
@log_argument
@click.option("--methodology", default="cellmeter-1", show_default=True, metavar="M", help="cellmeter-1 or cab-0.1.")
@click.option("--append/--no-append", default=True, show_default=True, help="Add the scores to the log.")
@format_option
def score(log: Path, methodology: str, *, append: bool, format_: Format) -> None:
    """Score every cell of LOG from the log alone. Scores are added to the log, never overwritten."""
    scores = rescore(log, methodology, append=append)
    emit(scores, format_, CELL_COLUMNS)
    if format_ == "table":
        show_leaderboard(leaderboard(scores), methodology)


def show_leaderboard(rows: Sequence[Row], methodology: str) -> None:
    """Write a leaderboard to stdout, and the words without which its numbers would mislead."""
    show_table(ROW_COLUMNS, rows, title=f"leaderboard ({methodology})")
    console = stdout_console()
    for row in rows:
        for finding in row.findings:
            console.print(f"! {row.name}: {finding.message}")
    for row in rows:
        if row.not_separable_from:
            console.print(f"{row.name} is not separable from {', '.join(row.not_separable_from)}")
    if any(row.not_separable_from for row in rows):
        console.print(
            "not separable: a paired sign-flip test of the pass rates over common tasks, Holm-adjusted over all pairs"
            " of a sweep, gives p ≥ 0.05; with fewer than six common tasks it cannot give less"
        )
    about = sorted({row.interval.estimand for row in rows if row.interval is not None})
    if about:
        console.print(
            f"intervals are about {' and '.join(about)}; bounds count every excluded cell as failed, as passed;"
            " the pass rate is a mean over tasks, the composite over cells, tokens and latency are medians over cells"
        )


def show_axes(score_: CellScore) -> None:
    """Write one cell's axes to stdout."""
    rows = [
        (axis, getattr(score_.values, axis), getattr(score_.axes, axis)) for axis in score_.values.__struct_fields__
    ]
    columns = (
        Column("axis", lambda row: f"{row[0]} (ms)" if row[0] == "latency" else row[0]),
        Column("value", lambda row: number(row[1], 0 if row[0] in {"tokens", "latency"} else 3), right=True),
        Column("because", lambda row: row[2].unscored or "" if isinstance(row[2].unscored, str) else ""),
    )
    show_table(columns, rows, title=score_.cell_id)
