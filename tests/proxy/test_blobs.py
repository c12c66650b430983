"""Bodies that are stored once and small, and read exactly, from a real log."""

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cellmeter_proxy.blobs import store
from cellmeter_proxy.blobs.ints import number
from cellmeter_proxy.blobs.recipe import DELTA
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log, make_blob, make_content
from cellmeter_proxy.record import BlobRow
from cellmeter_proxy.scripted.session import AgentDialect, session

FIRST = b'{"messages":[' + b'{"role":"user","content":"please read the file"},' * 20 + b'],"tools":[]}'
SECOND = FIRST.replace(b'],"tools', b'{"role":"assistant","content":"I have read it"}],"tools')


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log.create(tmp_path / "a.db", "process") as log:
        yield log


def keep(log: Log, data: bytes, *, line: str = "s", base: str | None = None, grows: bool = True) -> str:
    content = make_content(data, grows=grows)
    log._store.put(content, line, lambda: base)
    return content.digest


def stored_bytes(log: Log) -> int:
    return int(log.conn.execute("SELECT coalesce(sum(length(data)), 0) FROM blobs WHERE at >= 0").fetchone()[0])


def place_of(log: Log, digest: str) -> tuple[int, int]:
    strand, place = log.conn.execute("SELECT strand, place FROM blobs WHERE digest = ?", (digest,)).fetchone()
    return int(strand), int(place)


def test_a_body_is_a_piece_of_its_sessions_strand(log: Log) -> None:
    first, answer, second = keep(log, FIRST), keep(log, b'{"id":1}', grows=False), keep(log, SECOND)
    other = keep(log, b"another session's", line="t")
    places = [place_of(log, digest) for digest in (first, answer, second, other)]
    assert [place for _, place in places] == [0, 1, 2, 0]
    assert len({strand for strand, _ in places}) == 2
    sizes = {row.digest: row.size for row in log.rows(BlobRow)}
    assert [sizes.pop(digest) for digest in (first, answer, second, other)] == [len(FIRST), 8, len(SECOND), 17]
    assert sizes == {}
    assert {row.codec for row in log.rows(BlobRow)} == {"strand"}
    stream = zstandard.ZstdDecompressor().decompressobj()
    recipes = [stream.decompress(row.data or b"") for row in log.rows(BlobRow, "strand = ?", (places[0][0],))]
    assert recipes[:2] == [b"\x00" + FIRST, b'\x00{"id":1}']
    # Two places back, no other strand, two copies: up to the new message, and what follows it.
    head, tail = SECOND.index(b'{"role":"assistant'), len(b'],"tools":[]}')
    new = SECOND[head:-tail]
    assert recipes[2] == b"".join(
        (bytes([DELTA]), number(2), number(0), number(1), number(0), number(0), number(head), new, FIRST[-tail:])
    )
    assert [log.blob(digest) for digest in (second, answer, first)] == [SECOND, b'{"id":1}', FIRST]


def test_the_same_body_is_stored_once(log: Log) -> None:
    keep(log, FIRST)
    before = stored_bytes(log)
    keep(log, FIRST)
    keep(log, FIRST, line="t")
    assert (stored_bytes(log), len(list(log.rows(BlobRow)))) == (before, 1)


@pytest.mark.parametrize("dialect", ["chat.completions", "messages", "responses"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_a_session_takes_what_is_new_in_it(log: Log, dialect: AgentDialect, *, streamed: bool) -> None:
    """The unique content as one zstd stream is the measure; a second half may cost no more than the first."""
    turns = list(session(dialect, 100, streamed=streamed))
    halves = []
    digests = {}
    for number_, turn in enumerate(turns):
        digests[keep(log, turn.request)] = turn.request
        digests[keep(log, turn.answer, grows=False)] = turn.answer
        if number_ % 50 == 49:
            halves.append(stored_bytes(log))
    unique = len(zstandard.ZstdCompressor(level=3).compress(b"".join(turn.news + turn.answer for turn in turns)))
    assert halves[1] < 1.3 * unique
    assert halves[1] - halves[0] < 1.1 * halves[0]
    with Log.read(log.path) as reading:
        assert all(reading.blob(digest) == body for digest, body in digests.items())
    for digest in random.Random(0).sample(sorted(digests), 5):
        with Log.read(log.path) as reading:
            assert reading.blob(digest) == digests[digest]


def test_subagents_that_speak_in_turn_each_go_on_from_their_own_history(log: Log) -> None:
    ours, theirs = (list(session("chat.completions", 6, seed=seed)) for seed in (1, 2))
    newest: dict[int, str] = {}
    sizes = []
    for pair in zip(ours, theirs, strict=True):
        for agent, turn in enumerate(pair):
            before = stored_bytes(log)
            newest[agent] = keep(log, turn.request, base=newest.get(agent))
            sizes.append(stored_bytes(log) - before)
    assert max(sizes[2:]) * 3 < min(sizes[:2])


def test_a_restarted_recorder_goes_on_from_what_is_in_the_log(log: Log) -> None:
    first, second, *_ = session("chat.completions", 2)
    before = keep(log, first.request)
    whole = stored_bytes(log)
    with Log.create(log.path, "process") as restarted:
        digest = keep(restarted, second.request, base=before)
        assert (stored_bytes(restarted) - whole) * 2 < whole
        assert restarted.blob(digest) == second.request
    assert place_of(log, digest)[0] != place_of(log, before)[0]
    assert log.blob(digest) == second.request


def test_two_recorders_of_one_session_write_strands_of_their_own(log: Log) -> None:
    bodies = [turn.request for turn in session("messages", 8)]
    with Log.create(log.path, "process") as other:
        digests = [keep((log, other)[at % 2], body) for at, body in enumerate(bodies)]
        assert [log.blob(digest) for digest in digests] == [other.blob(digest) for digest in digests] == bodies
    assert len({place_of(log, digest)[0] for digest in digests}) == 2


def test_a_body_whose_transaction_was_rolled_back_is_no_part_of_what_follows(log: Log) -> None:
    first = keep(log, FIRST)
    log.conn.execute("BEGIN")
    lost = keep(log, SECOND)
    assert log.blob(lost) == SECOND
    log.conn.execute("ROLLBACK")
    third = keep(log, SECOND + b" ", base=lost)
    again = keep(log, SECOND)
    assert [log.blob(digest) for digest in (first, third, again)] == [FIRST, SECOND + b" ", SECOND]
    assert place_of(log, third)[0] != place_of(log, first)[0]
    with Log.read(log.path) as reading:
        assert [reading.blob(digest) for digest in (again, first, third)] == [SECOND, FIRST, SECOND + b" "]


def test_a_body_that_was_lost_here_and_stored_by_another_recorder_is_found_where_that_one_put_it(log: Log) -> None:
    keep(log, FIRST, line="other")
    log.conn.execute("BEGIN")
    lost = keep(log, SECOND)
    log.conn.execute("ROLLBACK")
    with Log.create(log.path, "process") as other:
        assert keep(other, SECOND) == lost
    third = keep(log, SECOND + b" ", base=lost)
    with Log.read(log.path) as reading:
        assert reading.blob(third) == SECOND + b" "


def test_a_full_strand_is_followed_by_one_that_goes_on_from_it(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_PLACES", 4)
    bodies = {keep(log, turn.request): turn.request for turn in session("responses", 14)}
    strands = [place_of(log, digest)[0] for digest in bodies]
    assert [strands.count(strand) for strand in dict.fromkeys(strands)] == [4, 4, 4, 2]
    first, *others = (row.data or b"" for digest in bodies for row in log.rows(BlobRow, "digest = ?", (digest,)))
    assert max(map(len, others)) * 2 < len(first)
    with Log.read(log.path) as reading:
        assert {digest: reading.blob(digest) for digest in reversed(bodies)} == bodies


def test_reading_a_body_takes_a_bounded_number_of_rows(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_PLACES", 4)
    monkeypatch.setattr(store, "MAX_FAR", 8)
    for turn in session("responses", 30):
        digest = keep(log, turn.request)
        with Log.read(log.path) as reading:
            rows: list[str] = []
            reading.conn.set_trace_callback(rows.append)
            assert reading.blob(digest) == turn.request
            assert len(rows) <= 1 + 1 + 8 // 4


def test_more_sessions_than_are_kept_open_are_stored_all_the_same(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MAX_OPEN", 2)
    monkeypatch.setattr(store, "_MAX_RECENT_BYTES", 100_000)
    bodies = {}
    newest: dict[int, str] = {}
    for turns in zip(*(session("chat.completions", 3, seed=seed) for seed in range(4)), strict=True):
        for number_, turn in enumerate(turns):
            digest = newest[number_] = keep(log, turn.request, line=str(number_), base=newest.get(number_))
            bodies[digest] = turn.request
    assert {digest: log.blob(digest) for digest in bodies} == bodies
    assert stored_bytes(log) < 2 * sum(
        len(make_blob(next(session("chat.completions", 1, seed=s)).request).data or b"") for s in range(4)
    )


EDITS = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 2000), st.binary(max_size=700)), max_size=4)
STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), EDITS, st.booleans(), st.sampled_from(("keep", "lose", "other", "reopen"))),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_is_stored_is_read(
    tmp_path: Path, steps: list[tuple[str, list[tuple[int, int, bytes]], bool, str]]
) -> None:
    path = tmp_path / "any.db"
    path.unlink(missing_ok=True)
    log = Log.create(path, "process")
    bodies: dict[str, bytes] = {}
    newest = {"a": FIRST, "b": b""}
    for line, edits, grows, end in steps:
        body = newest[line]
        for at, gone, put in edits:
            body = body[:at] + put + body[at + gone :]
        log.begin()
        digest = keep(log, body, line=line, base=next(reversed(bodies), None), grows=grows)
        if end == "lose":
            log.roll_back()
        else:
            log.commit()
        if end == "other":
            with Log.create(path, "process") as other:
                keep(other, body + b"of another", line=line)
        if end == "reopen":
            log.close()
            log = Log.create(path, "process")
        if end != "lose":
            bodies[digest] = newest[line] = body
    with log, Log.read(path) as reading:
        for digest, body in reversed(bodies.items()):
            assert reading.blob(digest) == log.blob(digest) == body


@pytest.mark.parametrize("size", [0, 1, 5_000_000], ids=["empty", "one byte", "5 MB"])
def test_a_body_of_any_size_is_read_with_one_after_it(log: Log, size: int) -> None:
    body = random.Random(size).randbytes(size)
    edited = body[: size // 2] + b"something else" + body[size // 2 :]
    digests = [keep(log, body), keep(log, edited), keep(log, edited[: size // 3])]
    assert stored_bytes(log) <= size + size // 100 + 200
    with Log.read(log.path) as reading:
        assert [reading.blob(digest) for digest in reversed(digests)] == [edited[: size // 3], edited, body]


def test_content_by_itself_stands_beside_the_strands(log: Log) -> None:
    log.put_blob(make_blob(SECOND))
    first = keep(log, FIRST, base=make_blob(SECOND).digest)
    assert keep(log, SECOND) == make_blob(SECOND).digest
    third = keep(log, SECOND + b" ", base=make_blob(SECOND).digest)
    assert [log.blob(digest) for digest in (first, make_blob(SECOND).digest, third)] == [FIRST, SECOND, SECOND + b" "]


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        ("DELETE FROM blobs WHERE place = 1", "piece 1 of strand [0-9]+ is not in the log"),
        ("DELETE FROM blobs WHERE place = 0", "piece 0 of strand [0-9]+ is not in the log"),
        ("UPDATE blobs SET data = x'00' WHERE place = 1", "cannot be built"),
        ("UPDATE blobs SET data = substr(data, 1, 9) WHERE place = 2", "cannot be built"),
        ("UPDATE blobs SET data = NULL WHERE place = 2", "cannot be built"),
        ("UPDATE blobs SET size = size + 9", "a body is shorter than what is copied from it"),
        ("UPDATE blobs SET at = -1 - at", "cannot be built"),
        ("UPDATE blobs SET coded = 'later'", "is stored as 'later', which this cellmeter cannot read"),
    ],
)
def test_what_was_tampered_with_is_refused_with_a_sentence(log: Log, tamper: str, message: str) -> None:
    keep(log, FIRST)
    keep(log, b"answer" * 99, grows=False)
    digest = keep(log, SECOND)
    log.conn.execute(tamper)
    with Log.read(log.path) as reading:
        with pytest.raises(CellmeterError, match=message):
            reading.blob(digest)
        with pytest.raises(CellmeterError, match=message):
            reading.blob(digest)


def test_a_circle_of_bodies_is_refused(log: Log) -> None:
    """No recorder writes one; a damaged log must not keep a reader forever."""
    for strand, other in ((1, 2), (2, 1)):
        recipe = bytes([DELTA]) + number(0) + number(other) + number(0) + number(5) + number(1) + b"\x00\x00\x09"
        data = zstandard.ZstdCompressor().compress(recipe)
        log.append(BlobRow(digest=str(strand), size=9, codec="strand", strand=strand, place=0, data=data))
    with pytest.raises(CellmeterError, match="stored after it"):
        log.blob("1")


def test_rows_of_a_strand_can_be_copied_to_a_log_that_has_some_of_the_bodies(log: Log, tmp_path: Path) -> None:
    digests = {keep(log, turn.request): turn.request for turn in session("responses", 5)}
    with Log.create(tmp_path / "b.db", "process") as other:
        for body in list(digests.values())[1:3]:
            keep(other, body)
        for row in log.rows(BlobRow):
            other.append(replace(row, digest="") if other.has_blob(row.digest) else row)
        assert {digest: other.blob(digest) for digest in digests} == digests


KEEP_ON = """
import sys
from cellmeter_proxy.log import Log, make_content
from cellmeter_proxy.scripted.session import session

log = Log.create(sys.argv[1], "process")
for turn in session("chat.completions", 500):
    log.conn.execute("BEGIN IMMEDIATE")
    log.keep(make_content(turn.request, grows=True), "s")
    log.keep(make_content(turn.answer), "s")
    log.conn.execute("COMMIT")
    print(flush=True)
"""


def test_a_recorder_that_is_killed_leaves_only_bodies_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    for kills in (3, 7):
        with subprocess.Popen([sys.executable, "-c", KEEP_ON, str(path)], stdout=subprocess.PIPE) as recorder:
            assert recorder.stdout is not None
            for _ in range(kills):
                recorder.stdout.readline()
            recorder.send_signal(signal.SIGKILL)
    turns = {make_content(body).digest: body for turn in session("chat.completions", 40) for body in turn[:2]}
    with Log.read(path) as log:
        stored = [digest for digest, _ in log.stored()]
        assert len(stored) >= 14
        assert all(log.blob(digest) == turns[digest] for digest in stored)


@pytest.mark.parametrize("version", [4, 5, 6])
def test_a_log_with_other_strands_or_none_is_read(old_log: Callable[[int], Path], version: int) -> None:
    with Log.read(old_log(version)) as reading:
        stored = reading.stored()
        bodies = [reading.blob(digest) for digest, _ in stored]
        assert [(make_content(body).digest, len(body)) for body in bodies] == stored
        assert len(stored) == (3 if version == 4 else 4)
        assert all(reading.has_blob(digest) and reading.blob_size(digest) == size for digest, size in stored)
        with pytest.raises(KeyError):
            reading.blob("sha256:0")


def test_one_place_of_a_strand_is_written_once(log: Log) -> None:
    row = BlobRow(digest="sha256:0", size=0, codec="strand", strand=1, place=0, data=b"")
    log.append(row)
    with pytest.raises(sqlite3.IntegrityError):
        log.append(replace(row, digest="sha256:1"))
