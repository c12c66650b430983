"""What a run says on stderr while it lasts."""

from io import StringIO

import pytest
from rich.console import Console

from cellmeter_harness.cli.progress import SweepProgress
from cellmeter_harness.events import CellsLeft, Event, SweepFinished, SweepThrottled


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            SweepThrottled(status=429, at_once=1, wait_s=20.4),
            "the provider is busy, it refuses calls (HTTP 429): 1 cell at a time, the next in 20 s",
        ),
        (
            SweepThrottled(status=None, at_once=4, wait_s=0.0),
            "the provider is busy, cells wait too long for its limit: 4 cells at once",
        ),
        (CellsLeft(reason="the budget is spent", cells=["a", "b"]), "the budget is spent; 2 cells are left unrun"),
        (
            SweepFinished(sweep_id="s", cells=3, passed=1, infrastructure=1, unrun=["a"]),
            "3 cells, 1 passed, 1 failed for the infrastructure's reasons\nleft for a later run:\n  a",
        ),
    ],
)
def test_an_event_is_a_sentence(event: Event, line: str) -> None:
    written = StringIO()
    with SweepProgress(Console(file=written, width=200)) as progress:
        progress(event)
    assert written.getvalue() == line + "\n"
