from collections.abc import Iterator
from pathlib import Path

import pytest

from cellmeter_proxy.canonical import request_hash
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log, make_blob, make_content, writer_name
from cellmeter_proxy.record import Artifact, Call, Phase, Span, Sweep
from cellmeter_scoring.testing import CELL_ID, START, at, make_attempt, make_call, make_cell
from cellmeter_scoring.verify import verify

REQUEST = b'{"model": "vendor/small", "messages": []}'
ANSWER = b'{"choices": []}'


def whole_call(call_id: str, seq: int, **changes: object) -> Call:
    exact = {
        "request_blob": make_blob(REQUEST).digest,
        "body_hash": make_blob(REQUEST).digest,
        "request_hash": request_hash(REQUEST),
        "request_bytes": len(REQUEST),
        "response_blob": make_blob(ANSWER).digest,
        "response_bytes": len(ANSWER),
        "redactions": 0,
    }
    return make_call(call_id, seq, seq=seq, **{**exact, **changes})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A sound log of one cell with one call."""
    sweep = Sweep(
        sweep_id="s1", spec="", spec_digest="sha256:00", started_at=START, software_version="0.1.0", host="{}"
    )
    with Log.create(tmp_path / "verify.db", "process") as log:
        log.append(sweep, make_cell(), whole_call("a", 1), make_attempt("a", 1, 1, 200))
        log.put_blob(make_blob(REQUEST))
        log.put_blob(make_blob(ANSWER))
        yield log


def found(log: Log) -> list[tuple[str, list[str]]]:
    return [(finding.kind, finding.ids) for finding in verify(log)]


def test_a_sound_log_has_no_finding(log: Log) -> None:
    assert verify(log) == []
    assert verify(log.path) == []


def test_a_blob_that_is_not_what_its_digest_names_is_found(log: Log) -> None:
    other = make_blob(b"something else")
    log.conn.execute("UPDATE blobs SET data = ?, size = ? WHERE digest = ?", (other.data, 14, make_blob(ANSWER).digest))
    assert ("digest", [make_blob(ANSWER).digest]) in found(log)


def test_a_blob_that_cannot_be_unpacked_is_found(log: Log) -> None:
    digest = make_blob(REQUEST).digest
    log.conn.execute("UPDATE blobs SET data = x'00ff' WHERE digest = ?", (digest,))
    assert found(log) == [("digest", [digest])]


def test_a_blob_that_lies_about_its_size_is_found(log: Log) -> None:
    digest = make_blob(ANSWER).digest
    log.conn.execute("UPDATE blobs SET size = 99 WHERE digest = ?", (digest,))
    assert found(log) == [("digest", [digest]), ("truncated body", ["a"])]


@pytest.mark.parametrize("column", ["body_hash", "request_hash"])
def test_a_hash_that_is_not_that_of_the_stored_request_is_found(log: Log, column: str) -> None:
    log.conn.execute(f"UPDATE calls SET {column} = 'sha256:00'")
    assert found(log) == [("digest", ["a"])]


@pytest.mark.parametrize("column", ["request_bytes", "response_bytes"])
def test_a_truncated_body_is_found(log: Log, column: str) -> None:
    log.conn.execute(f"UPDATE calls SET {column} = 1000")
    assert found(log) == [("truncated body", ["a"])]


def test_a_masked_body_is_not_held_against_the_bytes_that_were_sent(log: Log) -> None:
    log.append(whole_call("b", 2, redactions=1, body_hash="sha256:00", request_hash="c1:sha256:00", request_bytes=7))
    assert verify(log) == []


def test_a_compressed_body_is_held_against_its_exact_bytes_only(log: Log) -> None:
    log.append(whole_call("b", 2, request_encoding="gzip", request_hash="c1:sha256:00"))
    assert verify(log) == []


def test_a_gap_in_a_session_is_found(log: Log) -> None:
    log.append(whole_call("c", 3))
    assert found(log) == [("sequence gap", [CELL_ID])]


@pytest.mark.parametrize(
    ("row", "ids"),
    [
        (make_attempt("nobody", 1, 1, 200), ["nobody"]),
        (whole_call("b", 2, cell_id="nowhere"), ["nowhere"]),
        (whole_call("b", 2, timeline_blob="sha256:11"), ["sha256:11"]),
        (make_cell(cell_id="other", sweep_id="s9"), ["s9"]),
        (Artifact(cell_id=CELL_ID, cell_attempt=1, name="stdout", blob="sha256:11", size=1), ["sha256:11"]),
        (
            Span(
                span_id="s",
                cell_id="nowhere",
                cell_attempt=1,
                kind="grade",
                name="grade",
                started_at=START,
                duration_ms=1.0,
            ),
            ["nowhere"],
        ),
    ],
)
def test_a_row_without_what_it_belongs_to_is_found(log: Log, row: "Call | Artifact | Span", ids: list[str]) -> None:
    log.append(row)
    assert found(log) == [("orphan", ids)]


@pytest.mark.parametrize(
    "changes",
    [
        {"ended_at": START},
        {"client_gone_at": START},
        {"latency_ms": -1.0},
        {"latency_ms": 10.0, "ttft_ms": 12.0},
    ],
)
def test_a_call_whose_times_cannot_be_is_found(log: Log, changes: dict[str, object]) -> None:
    log.append(whole_call("b", 2, **changes))
    assert found(log) == [("impossible time", ["b"])]


def test_a_try_before_its_call_and_a_cell_that_ends_before_it_starts_are_found(log: Log) -> None:
    phase = Phase(name="run", started_at=at(2), ended_at=at(1))
    log.append(make_attempt("a", 2, -5, 200), make_cell(cell_id="other", phases=[phase]))
    assert found(log) == [("impossible time", ["a"]), ("impossible time", ["other"])]


def test_a_row_that_a_dead_process_left_open_is_found_and_one_that_is_being_answered_is_not(log: Log) -> None:
    unfinished = {"state": "open", "outcome": None, "ended_at": None}
    log.append(whole_call("b", 2, writer=writer_name(), **unfinished))
    assert verify(log) == []
    dead = writer_name().rsplit("/", 1)[0] + "/1"
    log.append(whole_call("c", 3, writer=dead, **unfinished))
    assert found(log) == [("open row", ["c"])]


def test_a_closed_row_without_an_outcome_is_found(log: Log) -> None:
    log.append(whole_call("b", 2, outcome=None))
    assert found(log) == [("incomplete row", ["b"])]


def test_a_row_that_cannot_be_read_is_found_and_the_other_checks_go_on(log: Log) -> None:
    log.append(whole_call("c", 3))
    log.conn.execute("UPDATE calls SET state = 'nonsense' WHERE call_id = 'a'")
    kinds = [kind for kind, _ in found(log)]
    assert "unreadable" in kinds
    assert "sequence gap" in kinds


def test_a_damaged_page_is_found_without_an_exception(log: Log) -> None:
    for number in range(200):
        log.put_blob(make_blob(str(number).encode() * 400))
    path = log.path
    log.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log.close()
    damaged = bytearray(path.read_bytes())
    page = damaged.find(make_blob(b"100" * 400).digest.encode()) // 4096 * 4096
    damaged[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(damaged)
    assert {"file", "unreadable"} & {finding.kind for finding in verify(path)}


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        ("DELETE FROM pieces WHERE place = 0", "piece 0 of strand"),
        ("UPDATE pieces SET data = x'0011' WHERE place = 0", "cannot be built"),
        ("UPDATE blobs SET place = 0 WHERE place = 1", "a blob is not the content that its digest names"),
        ("UPDATE blobs SET codec = 'later' WHERE place = 1", "which this cellmeter cannot read"),
    ],
)
def test_bodies_of_a_strand_are_built_and_their_digests_derived_again(log: Log, tamper: str, says: str) -> None:
    first, second = make_content(REQUEST + b"0" * 300, grows=True), make_content(REQUEST + b"1" * 300, grows=True)
    for content in (first, second):
        log.keep(content, "s")
    assert verify(log) == []
    log.conn.execute(tamper)
    [*_, finding] = verify(log.path)
    assert (finding.kind, finding.ids) == ("digest", [second.digest])
    assert says in finding.message


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CellmeterError, match="there is no log"):
        verify(tmp_path / "none.db")
