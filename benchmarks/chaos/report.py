"""The judgement of a directory of evidence, and how it is shown."""

from pathlib import Path

import msgspec
from benchmarks.chaos.evidence import BILLED, DEEDS, LOG, SENT, Billed, Deeds, Sent, load
from benchmarks.chaos.judge import Report, judge
from rich.console import Console
from rich.table import Table

from cellmeter_proxy.log import Log


def judged(directory: Path) -> Report:
    """What the evidence says."""
    deeds = msgspec.json.decode((directory / DEEDS).read_bytes(), type=Deeds)
    with Log.read(directory / LOG) as log:
        return judge(log, load(directory / SENT, Sent), load(directory / BILLED, Billed), deeds)


def show(report: Report) -> None:
    """Print it."""
    table = Table(title=f"chaos: seed {report.seed}, {report.seconds:g} s", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in report.troubles.items():
        table.add_row(name, f"{count:,}")
    table.add_section()
    table.add_row("requests sent", f"{report.sent:,}")
    table.add_row("answers completed", f"{report.completed:,}")
    table.add_row("refused: not recordable", f"{report.refused:,}")
    table.add_row("broken off", f"{report.broken:,}")
    table.add_row("clients that went away", f"{report.left:,}")
    for state, count in report.rows.items():
        table.add_row(f"rows {state}", f"{count:,}")
    table.add_row("billed, unanswered and without a row", f"{report.unrecorded:,}")
    table.add_section()
    table.add_row("lost", f"{report.lost:,}")
    table.add_row("doubled", f"{report.doubled:,}")
    table.add_row("open", f"{report.open:,}")
    table.add_row("billed, answered and without a row", f"{report.lost_bills:,}")
    Console().print(table)
    for finding in report.findings:
        print(finding)
