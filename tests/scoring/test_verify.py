"""What is wrong with a log is found, each by a literal change; what is sound has no finding."""

import contextlib
import gzip
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cellmeter_proxy.canonical import request_hash
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log, digest_of, make_blob, make_content, writer_name
from cellmeter_proxy.record import Artifact, Attempt, BlobRow, Call, Cell, Egress, Record, ScoreRow, Span, Sweep
from cellmeter_proxy.schema import TABLES, columns
from cellmeter_scoring.testing import CELL_ID, START, make_attempt, make_call, make_cell
from cellmeter_scoring.verify import verify

REQUEST = b'{"model": "vendor/small", "messages": []}'
USAGE = '{"prompt_tokens": 1000, "completion_tokens": 100}'
ANSWER = b'{"choices": [], "usage": ' + USAGE.encode() + b"}"
CELL = make_cell(failure_class="none")


NO_COUNTS = {"prompt_tokens": None, "completion_tokens": None, "usage_source": "none"}
SWEEP = Sweep(
    sweep_id="s1", spec="{}", spec_digest=digest_of(b"{}"), started_at=START, software_version="0.1.0", host="{}"
)
SPAN = Span(span_id="s", cell_id=CELL_ID, cell_attempt=1, kind="grade", name="grade", started_at=START, duration_ms=1.0)
SCORE = ScoreRow(
    cell_id=CELL_ID,
    cell_attempt=1,
    methodology="cab-0.1",
    axis="tokens",
    value=1100.0,
    scorer_version="0.1.0",
    scored_at=START,
)


def whole_call(call_id: str, seq: int, **changes: object) -> Call:
    exact = {
        "request_blob": make_blob(REQUEST).digest,
        "body_hash": make_blob(REQUEST).digest,
        "request_hash": request_hash(REQUEST),
        "request_bytes": len(REQUEST),
        "response_blob": make_blob(ANSWER).digest,
        "response_bytes": len(ANSWER),
        "redactions": 0,
        "usage": USAGE,
    }
    return make_call(call_id, seq, seq=seq, **{**exact, **changes})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A sound log of one cell with one call."""
    with Log.create(tmp_path / "verify.db", "process") as log:
        log.append(SWEEP, CELL, whole_call("a", 1), make_attempt("a", 1, 1, 200))
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
    assert found(log) == [("digest", [digest])]


@pytest.mark.parametrize("column", ["body_hash", "request_hash"])
def test_a_hash_that_is_not_that_of_the_stored_request_is_found(log: Log, column: str) -> None:
    log.conn.execute(f"UPDATE calls SET {column} = 'sha256:00'")
    assert found(log) == [("digest", ["a"])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stream = 1", "stream is not that of the stored request"),
        ("request_model = 'vendor/large'", "request_model is not that of the stored request"),
        (
            """usage = '{"prompt_tokens": 7, "completion_tokens": 1}', prompt_tokens = 7, completion_tokens = 1""",
            "usage is not that of the stored answer",
        ),
    ],
)
def test_what_is_not_said_in_the_stored_bodies_is_found(log: Log, change: str, message: str) -> None:
    log.conn.execute(f"UPDATE calls SET {change}")
    assert [finding.message for finding in verify(log)] == [message]


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (b'data: {"usage": {"prompt_tokens":1000,\ndata: "completion_tokens":100}}\n\n', USAGE),
        (b'{"usage": {"prompt_tokens":\t1000,\r\n"completion_tokens": 100}}', USAGE),
        (b'{"usage": %b}, {"usage": %b}' % (b'{"input_tokens": 1000}', b'{"output_tokens": 100}'),
         '[{"input_tokens": 1000},{"output_tokens": 100}]'),
    ],
)  # fmt: skip
def test_a_usage_object_is_found_in_an_answer_however_it_is_laid_out(log: Log, answer: bytes, usage: str) -> None:
    log.put_blob(make_blob(answer))
    stored = {"response_blob": digest_of(answer), "response_bytes": len(answer), "usage": usage}
    log.append(whole_call("b", 2, **stored))
    packed = gzip.compress(answer)
    log.put_blob(make_blob(packed))
    stored |= {"response_blob": digest_of(packed), "response_bytes": len(packed), "response_encoding": "gzip"}
    log.append(whole_call("c", 3, **stored))
    assert verify(log) == []


@pytest.mark.parametrize("column", ["request_bytes", "response_bytes"])
def test_a_truncated_body_is_found(log: Log, column: str) -> None:
    log.conn.execute(f"UPDATE calls SET {column} = 1000")
    assert found(log) == [("truncated body", ["a"])]


def test_a_masked_body_is_not_held_against_the_bytes_that_were_sent(log: Log) -> None:
    log.append(whole_call("b", 2, redactions=1, body_hash="sha256:00", request_hash="c1:sha256:00", request_bytes=7))
    assert verify(log) == []


def test_the_request_behind_a_masked_answer_is_held_against_its_hashes(log: Log) -> None:
    log.append(whole_call("b", 2, redactions=1, response_bytes=7, request_hash="c1:sha256:00"))
    assert found(log) == [("digest", ["b"])]


def test_a_compressed_body_is_held_against_the_hash_of_what_it_unpacks_to(log: Log) -> None:
    packed = gzip.compress(REQUEST)
    compressed = {
        "request_encoding": "gzip",
        "request_blob": digest_of(packed),
        "body_hash": digest_of(packed),
        "request_bytes": len(packed),
    }
    log.put_blob(make_blob(packed))
    log.append(whole_call("b", 2, **compressed))
    assert verify(log) == []
    log.append(whole_call("c", 3, **compressed, request_hash="c1:sha256:00"))
    assert found(log) == [("digest", ["c"])]


@pytest.mark.parametrize("body", [b"no JSON", b""])
def test_a_request_that_is_no_json_has_no_canonical_hash(log: Log, body: bytes) -> None:
    log.put_blob(make_blob(body))
    odd = {"request_blob": digest_of(body), "body_hash": digest_of(body), "request_bytes": len(body)}
    log.append(whole_call("b", 2, **odd, request_hash=None))
    assert verify(log) == []
    log.append(whole_call("c", 3, **odd))
    assert found(log) == [("digest", ["c"])]


@pytest.mark.parametrize(
    ("timeline", "kinds"),
    [
        (b"[[1.5, 60], [1.5, 15]]", []),
        (b"[[1.5, 60]]", ["truncated body"]),
        (b"[[2.5, 60], [1.5, 15]]", ["impossible time"]),
        (b"not a timeline", ["digest"]),
    ],
)
def test_a_timeline_is_held_against_the_bytes_that_came(log: Log, timeline: bytes, kinds: list[str]) -> None:
    log.put_blob(make_blob(timeline))
    log.append(whole_call("b", 2, timeline_blob=digest_of(timeline)))
    assert found(log) == [(kind, ["b"]) for kind in kinds]


def test_an_artifact_that_is_longer_than_its_content_is_found(log: Log) -> None:
    log.append(Artifact(cell_id=CELL_ID, cell_attempt=1, name="stdout", blob=digest_of(ANSWER), size=len(ANSWER)))
    assert verify(log) == []
    log.append(Artifact(cell_id=CELL_ID, cell_attempt=1, name="stderr", blob=digest_of(ANSWER), size=99))
    assert found(log) == [("truncated body", [CELL_ID])]


def test_a_gap_in_a_session_is_found(log: Log) -> None:
    log.append(whole_call("c", 3))
    assert found(log) == [("sequence gap", [CELL_ID])]


def test_a_place_that_two_calls_of_a_session_have_is_found(log: Log) -> None:
    log.conn.execute("DROP INDEX idx_calls_session_seq")
    log.append(whole_call("b", 2), whole_call("c", 2))
    assert found(log) == [("sequence gap", [CELL_ID])]


def test_a_gap_in_the_tries_of_a_call_is_found(log: Log) -> None:
    log.append(make_attempt("a", 3, 1.5, 200))
    assert found(log) == [("sequence gap", ["a"])]


@pytest.mark.parametrize(
    ("row", "ids"),
    [
        (make_attempt("nobody", 1, 1, 200), ["nobody"]),
        (whole_call("b", 2, cell_id="nowhere"), ["nowhere"]),
        (whole_call("b", 2, cell_attempt=2), [CELL_ID]),
        (whole_call("b", 2, timeline_blob="sha256:11"), ["sha256:11"]),
        (whole_call("b", 2, request_blob="sha256:11"), ["sha256:11"]),
        (whole_call("b", 2, response_blob="sha256:11"), ["sha256:11"]),
        (whole_call("b", 2, attached_to="nobody", usage=None, **NO_COUNTS), ["nobody"]),
        (replace(CELL, cell_id="other", sweep_id="s9"), ["s9"]),
        (replace(CELL, cell_id="other", evidence=["a", "nobody"]), ["other"]),
        (Artifact(cell_id=CELL_ID, cell_attempt=1, name="stdout", blob="sha256:11", size=1), ["sha256:11"]),
        (Artifact(cell_id=CELL_ID, cell_attempt=2, name="stdout", blob=digest_of(ANSWER), size=len(ANSWER)), [CELL_ID]),
        (replace(SPAN, cell_id="nowhere"), ["nowhere"]),
        (replace(SPAN, parent_id="nobody"), ["nobody"]),
        (replace(SCORE, cell_id="nowhere"), ["nowhere"]),
        (Egress(cell_id="nowhere", cell_attempt=1, host="h", port=1, allowed=False, at=START), ["nowhere"]),
    ],
)
def test_a_row_without_what_it_belongs_to_is_found(log: Log, row: Record, ids: list[str]) -> None:
    log.append(row)
    assert ("orphan", ids) in found(log)


def test_a_blob_without_the_one_that_it_is_built_from_is_found(log: Log) -> None:
    log.put_blob(replace(make_blob(b"built"), base="sha256:11"))
    assert ("orphan", ["sha256:11"]) in found(log)


@pytest.mark.parametrize("second", [-5, 2.5])
def test_a_try_before_its_call_or_after_its_end_is_found(log: Log, second: float) -> None:
    log.append(make_attempt("a", 2, second, 200))
    assert found(log) == [("impossible time", ["a"])]


def test_a_row_that_a_dead_process_left_open_is_found_and_one_that_is_being_answered_is_not(log: Log) -> None:
    unfinished = {"state": "open", "outcome": None, "ended_at": None}
    log.append(whole_call("b", 2, writer=writer_name(), **unfinished))
    assert verify(log) == []
    dead = writer_name().rsplit("/", 1)[0] + "/1"
    log.append(whole_call("c", 3, writer=dead, **unfinished))
    assert found(log) == [("open row", ["c"])]


def test_a_row_that_cannot_be_read_is_found_and_the_other_checks_go_on(log: Log) -> None:
    log.append(whole_call("c", 3, usage=None))
    log.conn.execute("UPDATE calls SET state = 'nonsense' WHERE call_id = 'a'")
    assert [finding.message for finding in verify(log)] == [
        "row 1 of the table calls cannot be read: Invalid enum value 'nonsense' - at `$.state`",
        "a call has token counts of a provider, and no usage object that they come from",
        f"session {CELL_ID!r} has 2 calls, numbered from 1 to 3",
    ]


def test_a_table_that_is_gone_is_found_and_the_others_are_looked_at(log: Log) -> None:
    log.append(whole_call("c", 3))
    log.conn.execute("DROP TABLE spans")
    kinds = [kind for kind, _ in found(log)]
    assert kinds.count("sequence gap") == 1
    assert {"schema", "unreadable"} <= set(kinds)


def test_a_log_that_claims_a_version_whose_columns_it_lacks_is_found(log: Log) -> None:
    log.conn.execute("ALTER TABLE calls DROP COLUMN attached_to")
    assert found(log) == [("schema", [])]


def test_a_log_that_does_not_say_its_version_is_found(log: Log) -> None:
    log.conn.execute("DELETE FROM meta WHERE key = 'schema_version'")
    assert found(log) == [("schema", [])]


def test_a_newer_log_is_refused(log: Log) -> None:
    log.set_meta("schema_version", "999")
    with pytest.raises(CellmeterError, match="newer cellmeter"):
        verify(log.path)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_a_log_of_an_older_version_is_sound(old_log: Callable[[int], Path], version: int) -> None:
    path = old_log(version)
    before = path.read_bytes()
    assert verify(path) == []
    assert path.read_bytes() == before


def test_a_log_of_an_older_version_that_was_changed_is_found(old_log: Callable[[int], Path]) -> None:
    path = old_log(1)
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE calls SET prompt_tokens = 20 WHERE prompt_tokens = 21")
    assert [finding.message for finding in verify(path)] == [
        "a call has 20 as its prompt_tokens, and its usage object says 21"
    ]


def test_a_log_that_is_being_recorded_is_looked_at_as_it_is_at_one_moment(log: Log) -> None:
    """What is committed while it is read, here between two checks, is neither an orphan nor a gap."""
    with Log.read(log.path) as reading:

        def record(statement: str) -> None:
            if "GROUP BY session" in statement and not list(log.rows(Call, "call_id = 'c'")):
                log.append(whole_call("c", 3))

        reading.conn.set_trace_callback(record)
        assert verify(reading) == []
        assert len(list(log.rows(Call))) == 2
        assert [finding.kind for finding in verify(reading)] == ["sequence gap"]
        reading.conn.set_trace_callback(None)
    log.conn.execute("BEGIN IMMEDIATE")
    log.append(whole_call("b", 2))
    assert [finding.kind for finding in verify(log.path)] == ["sequence gap"]
    log.conn.execute("COMMIT")
    assert verify(log.path) == []


def test_a_log_where_nothing_can_be_written_is_looked_at(need: Callable[..., str], log: Log) -> None:
    log.append(whole_call("c", 3))
    log.close()
    program = f"from cellmeter_scoring import verify; print([one.kind for one in verify({str(log.path)!r})])"
    command = [need("bwrap"), "--ro-bind", "/", "/", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("['sequence gap']\n", "")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound log with a row in every table."""
    path = tmp_path_factory.mktemp("sound") / "sound.db"
    timeline = b"[[1.5, 75]]"
    with Log.create(path, "process") as log:
        log.append(SWEEP, CELL, whole_call("a", 1, timeline_blob=digest_of(timeline)), make_attempt("a", 1, 1, 200))
        log.append(SPAN, SCORE, Egress(cell_id=CELL_ID, cell_attempt=1, host="h", port=1, allowed=False, at=START))
        log.append(Artifact(cell_id=CELL_ID, cell_attempt=1, name="stdout", blob=digest_of(ANSWER), size=len(ANSWER)))
        for content in (REQUEST, ANSWER, timeline):
            log.put_blob(make_blob(content))
        assert verify(log) == []
        written = (Sweep, Cell, Call, Attempt, BlobRow, Span, Artifact, Egress, ScoreRow)
        assert all(next(log.rows(type_), None) for type_ in written)
    return path


HOSTILE = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["{}", "[]", '[{"a": 1}]', "h/1", "h/x/y", "/".join(["9" * 30] * 3), "gzip", "zstd", "messages"]),
)
DERIVED = {("blobs", "strand"), ("blobs", "place"), ("blobs", "digest"), ("blobs", "codec")}
PLACES = [(table, column) for type_, table in TABLES.items() for column in columns(type_)]
PLACES = [*(place for place in PLACES if place not in DERIVED), ("blobs", "sha256"), ("blobs", "coded")]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), HOSTILE), min_size=1, max_size=3))
def test_whatever_stands_in_a_row_gives_findings_and_no_exception(
    sound: Path, changes: list[tuple[tuple[str, str], object]]
) -> None:
    changed = sound.with_name("changed.db")
    changed.write_bytes(sound.read_bytes())
    with closing(sqlite3.connect(changed, isolation_level=None)) as conn:
        for (table, column), value in changes:
            with contextlib.suppress(sqlite3.IntegrityError):
                conn.execute(f"UPDATE {table} SET {column} = ?", (value,))
    assert isinstance(verify(changed), list)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=64)), min_size=1, max_size=4)
)
def test_whatever_happens_to_the_file_gives_findings_or_a_sentence(
    sound: Path, damages: list[tuple[float, bytes]]
) -> None:
    content = bytearray(sound.read_bytes())
    for place, damage in damages:
        start = int(place * len(content))
        content[start : start + len(damage)] = damage
    damaged = sound.with_name("damaged.db")
    damaged.write_bytes(content)
    with contextlib.suppress(CellmeterError):
        assert isinstance(verify(damaged), list)


def test_a_damaged_page_is_found_without_an_exception(log: Log) -> None:
    for number in range(200):
        log.put_blob(make_blob(str(number).encode() * 400))
    path = log.path
    log.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log.close()
    damaged = bytearray(path.read_bytes())
    page = damaged.index(make_blob(b"100" * 400).data or b"none") // 4096 * 4096
    damaged[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(damaged)
    assert {"file", "unreadable"} & {finding.kind for finding in verify(path)}


def test_a_damaged_index_is_found_although_no_row_is_lost(log: Log) -> None:
    path = log.path
    log.conn.execute("CREATE INDEX by_state ON calls (state)")
    (page,) = log.conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_state'").fetchone()
    log.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log.close()
    damaged = bytearray(path.read_bytes())
    damaged[(page - 1) * 4096 + 8 : page * 4096] = b"\xff" * 4088
    path.write_bytes(damaged)
    assert {finding.kind for finding in verify(path)} == {"file"}


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        ("DELETE FROM blobs WHERE place = 0", "piece 0 of strand"),
        ("UPDATE blobs SET data = x'0011' WHERE place = 0", "cannot be built"),
        (
            """UPDATE blobs SET sha256 = CASE place WHEN 0 THEN (SELECT sha256 FROM blobs WHERE place = 1) END
            WHERE at >= 0""",
            "a blob is not the content that its digest names",
        ),
        ("UPDATE blobs SET coded = 'later' WHERE place = 1", "which this cellmeter cannot read"),
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
