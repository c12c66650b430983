"""``cellmeter verify``: whether a log is what it says it is."""

from collections.abc import Sequence
from pathlib import Path

import click

from cellmeter_harness.cli.output import Column, Format, emit, format_option, log_argument, stderr_console
from cellmeter_scoring import verify as verify_log

COLUMNS = (
    Column("finding", lambda row: row.kind),
    Column("what", lambda row: row.message),
    Column("where", lambda row: _where(row.ids)),
)


def _where(ids: Sequence[str]) -> str:
    """The first of what a finding is about, so that a finding is a line; the machine formats have them all."""
    more = f" and {len(ids) - 1:,} more" if len(ids) > 1 else ""
    return f"{ids[0]}{more}" if ids else ""


@click.command()
@log_argument
@format_option
def verify(log: Path, format_: Format) -> int:
    """Look for whatever contradicts itself in LOG, and derive every digest again. Exit code 1 on any finding."""
    findings = verify_log(log)
    if findings or format_ != "table":
        emit(findings, format_, COLUMNS)
    if not findings:
        stderr_console().print(f"{log} is sound")
    return 1 if findings else 0
