from pathlib import Path

from cellmeter_proxy.log import Log, make_blob
from cellmeter_proxy.record import Artifact, Span
from cellmeter_scoring.evidence import STDOUT_TAIL_CHARS, CellEvidence, load_evidence
from cellmeter_scoring.testing import CELL_ID, START, make_attempt, make_call, make_cell


def span(span_id: str, attempt: int) -> Span:
    return Span(
        span_id=span_id,
        cell_id=CELL_ID,
        cell_attempt=attempt,
        kind="container",
        name="aider:launch",
        started_at=START,
        duration_ms=1.0,
    )


def test_the_newest_attempt_counts_with_its_own_calls_tries_and_spans(tmp_path: Path) -> None:
    with Log.create(tmp_path / "log.db", "process") as log:
        log.append(
            make_cell(),
            make_cell(attempt=2),
            make_call("old", 1, seq=1),
            make_call("late", 9, seq=2, cell_attempt=2),
            make_call("early", 5, seq=3, cell_attempt=2),
            make_call("outside", 5, seq=1, session="shell", cell_id=None, cell_attempt=None),
            make_attempt("late", 1, 9, 200),
            make_attempt("old", 1, 1, 200),
            span("old", 1),
            span("new", 2),
        )
        (evidence,) = load_evidence(log)
    assert evidence == CellEvidence(
        cell=make_cell(attempt=2),
        earlier=[make_cell()],
        calls=[make_call("early", 5, seq=3, cell_attempt=2), make_call("late", 9, seq=2, cell_attempt=2)],
        attempts=[make_attempt("late", 1, 9, 200)],
        spans=[span("new", 2)],
    )


def test_only_the_end_of_a_long_stdout_is_looked_at_and_broken_bytes_do_no_harm(tmp_path: Path) -> None:
    printed = make_blob(b"first\xff" + b"x" * STDOUT_TAIL_CHARS)
    with Log.create(tmp_path / "log.db", "process") as log:
        log.append(make_cell(), Artifact(cell_id=CELL_ID, cell_attempt=1, name="stdout", blob=printed.digest, size=1))
        log.put_blob(printed)
        (evidence,) = load_evidence(log)
    assert evidence.stdout_tail == "x" * STDOUT_TAIL_CHARS
