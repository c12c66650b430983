"""``cellmeter verify``: whether a log is what it says it is."""

from pathlib import Path

import click

from cellmeter_harness.cli.output import Column, Format, emit, format_option, log_argument, stderr_console
from cellmeter_scoring import verify as verify_log

COLUMNS = (
    Column("finding", lambda row: row.kind),
    Column("what", lambda row: row.message),
    Column("where", lambda row: ", ".join(row.ids)),
)


@click.command()
@log_argument
@format_option
def verify(log: Path, format_: Format) -> int:
    """Derive every digest of LOG again and look for gaps, orphans and truncated bodies. Exit code 1 on any finding."""
    findings = verify_log(log)
    if findings or format_ != "table":
        emit(findings, format_, COLUMNS)
    if not findings:
        stderr_console().print(f"{log} is sound")
    return 1 if findings else 0
