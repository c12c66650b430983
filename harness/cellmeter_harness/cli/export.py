"""``cellmeter export``: a log for other programs."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import click

from cellmeter_harness.cli.output import log_argument
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log
from cellmeter_scoring.export import to_csv, to_jsonl, to_otel

Target = Literal["jsonl", "csv", "otel"]


@click.command()
@log_argument
@click.option(
    "--to",
    "target",
    type=click.Choice(["jsonl", "csv", "otel"]),
    required=True,
    help="One call per line as JSON with its attempts, or as CSV; or calls and cells as OpenTelemetry spans.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write; stdout by default."
)
@click.option("--cell", metavar="CELL", help="Only this cell.")
@click.option("--session", metavar="SESSION", help="Only the calls of this session.")
@click.option("--bodies", is_flag=True, help="With the requests and answers as text, redacted as stored (jsonl only).")
def export(
    log: Path, target: Target, output: Path | None, cell: str | None, session: str | None, *, bodies: bool
) -> None:
    """Write the calls of LOG for other programs."""
    if bodies and target != "jsonl":
        raise click.UsageError("--bodies goes with --to jsonl only")
    with Log.read(log) as reading:
        match target:
            case "jsonl":
                _write(to_jsonl(reading, cell, session, bodies=bodies), output)
            case "csv":
                _write(to_csv(reading, cell, session), output)
            case "otel":
                _write(to_otel(reading, cell, session), output)


def _write(pieces: Iterable[str], output: Path | None) -> None:
    if output is None:
        sys.stdout.writelines(pieces)
        return
    try:
        with output.open("w", encoding="utf-8", newline="") as file:
            file.writelines(pieces)
    except OSError as error:
        raise CellmeterError(f"{output} cannot be written: {error.strerror}") from None
