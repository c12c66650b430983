"""Joining logs: every row once, in whatever order and however often; what contradicts itself is refused by name."""

import contextlib
import itertools
import signal
import sqlite3
import subprocess
import sys
import types
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cellmeter_proxy.conflict import MergeConflictError
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log, make_blob
from cellmeter_proxy.merge import Merged, key_of, merge
from cellmeter_proxy.record import (
    Artifact,
    Attempt,
    BlobRow,
    Call,
    Cell,
    Egress,
    Record,
    ScoreRow,
    Span,
    Sweep,
    TaskFacts,
)
from cellmeter_proxy.schema import SCHEMA_VERSION, TABLES

OldLog = Callable[[int], Path]
CELL_ID: Final = "s/a/m/c/t#run1"
SWEEP: Final = Sweep(sweep_id="s", spec="{}", spec_digest="sha256:0", started_at=1, software_version="1", host="{}")
CELL: Final = Cell(
    cell_id=CELL_ID,
    sweep_id="s",
    agent="a",
    model="m",
    category="c",
    task="t",
    run=1,
    task_digest="sha256:0",
    isolation="process",
    started_at=1,
    ended_at=2,
    failure_class="none",
    task_facts=TaskFacts(language="rust", description="d", timeout_s=600.0),
)
OPEN: Final = Call(call_id="1", session="x", seq=1, writer="gone/1/1", started_at=5)
CLOSED: Final = replace(OPEN, state="closed", outcome="ok", status=200, ended_at=9, latency_ms=0.004)
PRICED: Final = replace(CLOSED, cost=0.5, price_source="p")
ATTEMPT: Final = Attempt(call_id="1", n=1, started_at=5, status=200)
SPAN: Final = Span(
    span_id="1", cell_id=CELL_ID, cell_attempt=1, kind="grade", name="g", started_at=1, duration_ms=1.0, attrs={"a": 1}
)
ARTIFACT: Final = Artifact(cell_id=CELL_ID, cell_attempt=1, name="stdout", blob="sha256:1", size=1)
SCORE: Final = ScoreRow(
    cell_id=CELL_ID,
    cell_attempt=1,
    methodology="cab-0.1",
    axis="tokens",
    value=5.0,
    scorer_version="1",
    scored_at=9,
)
EGRESS: Final = Egress(cell_id=CELL_ID, cell_attempt=1, host="example.com", port=443, allowed=False, at=3)
ALL: Final = (SWEEP, CELL, PRICED, ATTEMPT, make_blob(b"content"), SPAN, ARTIFACT, EGRESS, SCORE)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a log of the rows it is given."""
    numbers = itertools.count(1)

    def write(*rows: Record, salt: str | None = None) -> Path:
        path = tmp_path / f"log{next(numbers)}.db"
        with Log.create(path, "process") as log, log.conn:
            log.conn.execute("BEGIN")
            log.append(*rows)
            if salt is not None:
                log.set_meta("fingerprint_salt", salt)
        return path

    return write


Written = Callable[..., Path]


def rows_of(path: Path) -> dict[str, list[str]]:
    """Every row of every table as SQLite has it, in an order of their own."""
    with closing(sqlite3.connect(path)) as conn:
        there = {row[0] for row in conn.execute("SELECT name FROM sqlite_master")}
        tables = [table for table in TABLES.values() if table in there]
        return {table: sorted(map(repr, conn.execute(f"SELECT * FROM {table}"))) for table in tables}


def the_rows(path: Path, type_: type[Record]) -> list[Record]:
    with Log.read(path) as log:
        return list(log.rows(type_))


def test_rows_are_told_apart_by_the_keys_of_their_tables(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        keys = {TABLES[type_]: key_of(log, type_) for type_ in TABLES}
        assert [table for table, key in keys.items() if not key] == ["egress"]
        assert (keys["cells"], keys["calls"]) == (("cell_id", "attempt"), ("call_id",))
        log.conn.execute("DROP TABLE egress")
        log.conn.execute("CREATE TABLE egress (host, port)")
        log.conn.execute("CREATE UNIQUE INDEX u ON egress (port, host)")
        assert key_of(log, Egress) == ("port", "host")


def filled(type_: type[Any], number: int = 1) -> Any:
    """A record of a type with something in every field."""
    return type_(**{name: _something(hint, name, number) for name, hint in get_type_hints(type_).items()})


def _something(hint: Any, name: str, number: int) -> Any:
    if get_origin(hint) in {Union, types.UnionType}:
        hint = next(arg for arg in get_args(hint) if arg is not types.NoneType)
    if get_origin(hint) is Literal:
        return get_args(hint)[-1]
    if get_origin(hint) is list:
        return [_something(get_args(hint)[0], name, number)]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return filled(hint, number)
    values: dict[Any, Any] = {bool: True, int: number, float: number + 0.5, str: f"{name}{number}", bytes: b"\x00"}
    return values.get(hint, {name: number})


@pytest.mark.parametrize("type_", TABLES)
def test_every_column_of_every_table_arrives(written: Written, tmp_path: Path, type_: type[Record]) -> None:
    """Also the ones that a later version adds: nothing here names a column."""
    blob = make_blob(b"content")
    row = replace(filled(Call), seq=1) if type_ is Call else blob if type_ is BlobRow else filled(type_)
    source = written(row)
    merge(tmp_path / "out.db", [source])
    assert the_rows(tmp_path / "out.db", type_) == [row]
    assert rows_of(tmp_path / "out.db") == rows_of(source)


def test_logs_are_joined_in_any_order_and_any_number_of_times(written: Written, tmp_path: Path) -> None:
    second_cell = replace(CELL, attempt=2)
    logs = [
        written(*ALL),
        written(SWEEP, second_cell, replace(PRICED, call_id="2", seq=2), replace(ATTEMPT, call_id="2")),
        written(make_blob(b"content"), make_blob(b"more"), SPAN, replace(SCORE, scored_at=10), EGRESS, SCORE),
    ]
    expected: dict[str, list[str]] = {}
    for order in itertools.permutations(logs):
        out = tmp_path / "out.db"
        merge(out, order)
        expected = expected or rows_of(out)
        assert rows_of(out) == expected
        assert [one.added + one.completed for one in merge(out, logs)] == [0, 0, 0]
        assert rows_of(out) == expected
        out.unlink()
    assert {table: len(rows) for table, rows in expected.items() if rows} == {
        "sweeps": 1, "cells": 2, "calls": 2, "attempts": 2, "blobs": 2, "spans": 1, "artifacts": 1, "egress": 1,
        "scores": 2,
    }  # fmt: skip


def test_what_each_log_brought_is_counted(written: Written, tmp_path: Path) -> None:
    early, late = written(SWEEP, OPEN), written(SWEEP, CLOSED, ATTEMPT)
    assert merge(tmp_path / "out.db", [early, late, early]) == [
        Merged(log=early, added=2),
        Merged(log=late, added=1, completed=1, known=1),
        Merged(log=early, known=2),
    ]


MOMENTS: Final = [OPEN, replace(OPEN, state="interrupted", outcome="interrupted", error="gone"), CLOSED, PRICED]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.integers(1, 5), st.integers(0, 3), max_size=5), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_of_every_call_the_latest_moment_that_any_log_holds_stays(
    tmp_path_factory: pytest.TempPathFactory, held: list[dict[int, int]], chance: Any
) -> None:
    directory = tmp_path_factory.mktemp("moments")
    logs = []
    for number, calls in enumerate(held):
        logs.append(directory / f"{number}.db")
        with Log.create(logs[-1], "process") as log:
            log.append(*(replace(MOMENTS[moment], call_id=str(n), seq=n) for n, moment in calls.items()))
    latest = {n: max(calls.get(n, -1) for calls in held) for n in range(1, 6)}
    chance.shuffle(logs)
    merge(directory / "out.db", [*logs, chance.choice(logs)])
    found = sorted(the_rows(directory / "out.db", Call), key=lambda call: getattr(call, "call_id"))  # noqa: B009
    assert found == [replace(MOMENTS[moment], call_id=str(n), seq=n) for n, moment in latest.items() if moment >= 0]


def test_a_log_that_is_being_recorded_is_joined_as_it_is_and_again_when_it_has_gone_on(tmp_path: Path) -> None:
    out = tmp_path / "out.db"
    with Log.create(tmp_path / "live.db") as live:
        live.open_call(OPEN)
        merge(out, [live.path])
        assert the_rows(out, Call) == [OPEN]
        live.conn.execute("BEGIN IMMEDIATE")
        live.close_call(CLOSED, [ATTEMPT])
        merge(out, [live.path])
        assert (the_rows(out, Call), the_rows(out, Attempt)) == ([OPEN], [])
        live.conn.execute("COMMIT")
        merge(out, [live.path])
    assert (the_rows(out, Call), the_rows(out, Attempt)) == ([CLOSED], [ATTEMPT])


def test_what_is_recorded_while_a_log_is_read_is_joined_wholly_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a call and its try are committed after the calls were read, and before the tries are."""
    from cellmeter_proxy import logfile

    connect, out = logfile._connect, tmp_path / "out.db"
    with Log.create(tmp_path / "live.db") as live:
        live.append(CLOSED, ATTEMPT)

        def record(statement: str) -> None:
            if "FROM attempts" in statement and not list(live.rows(Call, "call_id = '2'")):
                live.append(replace(CLOSED, call_id="2", seq=2), replace(ATTEMPT, call_id="2"))

        def watched(path: Path, mode: str) -> sqlite3.Connection:
            conn = connect(path, mode)
            conn.set_trace_callback(record if mode == "ro" else None)
            return conn

        monkeypatch.setattr(logfile, "_connect", watched)
        merge(out, [live.path])
        monkeypatch.undo()
        assert len(list(live.rows(Attempt))) == 2
        assert (the_rows(out, Call), the_rows(out, Attempt)) == ([CLOSED], [ATTEMPT])
        merge(out, [live.path])
    assert len(the_rows(out, Call)) == len(the_rows(out, Attempt)) == 2


def test_a_row_that_is_completed_keeps_its_place_among_the_rows(written: Written, tmp_path: Path) -> None:
    other = replace(CLOSED, call_id="2", seq=2)
    out = written(OPEN, other)
    merge(out, [written(CLOSED)])
    assert the_rows(out, Call) == [CLOSED, other]


def test_the_files_that_are_joined_are_only_read(written: Written, old_log: OldLog, tmp_path: Path) -> None:
    logs = [written(*ALL), old_log(1)]
    before = [path.read_bytes() for path in logs]
    merge(tmp_path / "out.db", logs)
    assert [path.read_bytes() for path in logs] == before
    names = {path.name for path in tmp_path.iterdir() if not path.name.endswith(("-wal", "-shm"))}
    assert names == {"log1.db", "version1.db", "out.db"}


@pytest.mark.parametrize(
    ("ours", "theirs", "sentence"),
    [
        (
            SWEEP,
            replace(SWEEP, spec_digest="sha256:1"),
            "sweeps: s: spec_digest is 'sha256:0' in OUT, ",
        ),
        (CELL, replace(CELL, started_at=0), f"cells: {CELL_ID}, 1: started_at is 1 in OUT, 0 in LOG"),
        (CLOSED, replace(CLOSED, prompt_tokens=7), "calls: 1: prompt_tokens is None in OUT, 7 in LOG"),
        (
            CLOSED,
            replace(CLOSED, call_id="2"),
            "calls: number 1 of session 'x': is the call 1 in OUT, ",
        ),
        (ATTEMPT, replace(ATTEMPT, status=429), "attempts: 1, 1: status is 200 in OUT, 429 in LOG"),
        (SPAN, replace(SPAN, attrs={}), "spans: 1: attrs is {'a': 1} in OUT, {} in LOG"),
        (ARTIFACT, replace(ARTIFACT, blob="sha256:2"), f"artifacts: {CELL_ID}, 1, stdout: blob is"),
        (
            SCORE,
            replace(SCORE, value=6.0),
            f"scores: {CELL_ID}, 1, cab-0.1, tokens, 1, 9: value is 5.0 in OUT, ",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_contradicts_itself_is_refused_by_name_and_nothing_is_written(
    written: Written, tmp_path: Path, ours: Record, theirs: Record, sentence: str
) -> None:
    other = replace(PRICED, call_id="3", seq=3)
    first, second = written(ours), written(other, make_blob(b"new"), theirs)
    for out, logs in ((first, [second]), (tmp_path / "new.db", [first, second])):
        before = out.read_bytes() if out.exists() else None
        with pytest.raises(MergeConflictError) as refused:
            merge(out, logs)
        assert sentence in refused.value.message
        assert f"{second} cannot be merged into {out}" in refused.value.message
        assert refused.value.hint == refused.value.conflicts[0].cure
        assert (out.read_bytes() if out.exists() else None) == before


def test_every_conflict_of_a_table_is_told_and_none_of_what_follows_from_it(written: Written, tmp_path: Path) -> None:
    runs = [
        written(
            *(replace(CELL, cell_id=f"c{n}", started_at=start) for n in range(3)), replace(CLOSED, started_at=start)
        )
        for start in (1, 2)
    ]
    with pytest.raises(MergeConflictError, match="and 2 more of cells") as refused:
        merge(tmp_path / "out.db", runs)
    assert [(conflict.table, conflict.key) for conflict in refused.value.conflicts] == [
        ("cells", "c0, 1"),
        ("cells", "c1, 1"),
        ("cells", "c2, 1"),
    ]


def test_a_sweep_that_two_machines_share_is_one_as_long_as_each_cell_was_run_by_one_of_them(
    written: Written, tmp_path: Path
) -> None:
    there = replace(SWEEP, started_at=9, host='{"cpus":2}')
    other = replace(CELL, cell_id="s/a/m/c/t#run2", run=2)
    parts = [written(SWEEP, CELL), written(there, other)]
    for order in (parts, parts[::-1]):
        merge(tmp_path / "out.db", order)
        assert the_rows(tmp_path / "out.db", Sweep) == [SWEEP]
        assert set(map(repr, the_rows(tmp_path / "out.db", Cell))) == {repr(CELL), repr(other)}
        (tmp_path / "out.db").unlink()
    with pytest.raises(MergeConflictError, match="cells: s/a/m/c/t#run1, 1: started_at is 1 in OUT, 9 in LOG"):
        merge(tmp_path / "out.db", [*parts, written(there, replace(CELL, started_at=9))])


def test_connections_that_are_alike_are_as_many_as_in_the_log_with_most(written: Written, tmp_path: Path) -> None:
    other = replace(EGRESS, port=80)
    logs = [written(EGRESS, EGRESS, other), written(EGRESS, other, other, other)]
    for order in (logs, logs[::-1]):
        merge(tmp_path / "out.db", order)
        found = the_rows(tmp_path / "out.db", Egress)
        assert (found.count(EGRESS), found.count(other), len(found)) == (2, 3, 5)
        (tmp_path / "out.db").unlink()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("UPDATE blobs SET data = x'00ff'", "cannot be merged, because it is damaged: the content of sha256:"),
        ("UPDATE blobs SET sha256 = 'sha256:00'", "the content of sha256:00 is something else"),
        ("UPDATE calls SET state = 'nonsense'", "damaged: Invalid enum value 'nonsense'"),
        ("DROP TABLE spans", "damaged: no such table: spans"),
    ],
)
def test_a_damaged_log_is_refused_and_nothing_is_written(
    written: Written, tmp_path: Path, change: str, sentence: str
) -> None:
    source = written(*ALL)
    with closing(sqlite3.connect(source)) as conn, conn:
        conn.execute(change)
    with pytest.raises(CellmeterError, match="damaged") as refused:
        merge(tmp_path / "out.db", [written(SWEEP), source])
    assert sentence in refused.value.message
    assert f"cellmeter verify {source}" in str(refused.value.hint)
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize("content", ["calls", "blobs"])
def test_a_damaged_page_is_the_fault_of_the_log_that_has_it(written: Written, tmp_path: Path, content: str) -> None:
    rows = [replace(PRICED, call_id=f"call{n}", seq=n, error="e" * 500) for n in range(1, 200)]
    source = written(*rows, *(make_blob(str(n).encode() * 400) for n in range(200)))
    with closing(sqlite3.connect(source)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = bytearray(source.read_bytes())
    sought = b"call100x" if content == "calls" else make_blob(b"100" * 400).data or b""
    page = damaged.find(sought) // 4096 * 4096
    damaged[page : page + 4096] = b"\xff" * 4096
    source.write_bytes(damaged)
    with pytest.raises(CellmeterError, match=f"{source} cannot be merged, because it is damaged"):
        merge(tmp_path / "out.db", [source])
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_logs_of_older_versions_are_joined_and_joined_to(
    written: Written, old_log: OldLog, tmp_path: Path, version: int
) -> None:
    old, out, other, added = old_log(version), tmp_path / "out.db", written(*ALL), set(map(repr, ALL))
    merge(out, [old, other])
    with Log.read(old) as log, Log.read(out) as joined:
        for type_ in TABLES:
            here = [repr(row).replace("anonymous@5947d7c3", "anonymous") for row in joined.rows(type_)]
            assert [row for row in here if row not in added] == [repr(row) for row in log.rows(type_)]
        assert joined.meta("schema_version") == str(SCHEMA_VERSION)
    merge(old, [other])
    with Log.read(old) as log:
        assert log.meta("schema_version") == str(SCHEMA_VERSION)
        assert [call.session for call in log.rows(Call)][1:] == ["anonymous", "x"]
    before = rows_of(out)
    merge(out, [old])
    assert rows_of(out) == before


def test_a_newer_log_is_refused_on_either_side(written: Written, tmp_path: Path) -> None:
    newer, ours = written(SWEEP), written(CLOSED)
    with Log.create(newer) as log:
        log.set_meta("schema_version", "999")
    for out, logs in ((newer, [ours]), (ours, [newer]), (tmp_path / "new.db", [ours, newer])):
        before = out.read_bytes() if out.exists() else None
        with pytest.raises(CellmeterError, match="newer cellmeter"):
            merge(out, logs)
        assert (out.read_bytes() if out.exists() else None) == before


def test_a_log_cannot_be_joined_to_itself(written: Written, tmp_path: Path) -> None:
    log = written(CLOSED)
    (tmp_path / "link.db").symlink_to(log)
    with pytest.raises(CellmeterError, match="is the log that is to be written") as refused:
        merge(log, [tmp_path / "link.db"])
    assert refused.value.exit_code == 2


def test_a_log_that_is_not_there_is_a_sentence_and_leaves_nothing(written: Written, tmp_path: Path) -> None:
    with pytest.raises(CellmeterError, match="there is no log at"):
        merge(tmp_path / "out.db", [written(SWEEP), tmp_path / "none.db"])
    assert {path.suffix for path in tmp_path.iterdir()} <= {".db", ".db-wal", ".db-shm"}
    assert not (tmp_path / "out.db").exists()
    with pytest.raises(CellmeterError, match="cannot be written"):
        merge(tmp_path / "no" / "out.db", [written(SWEEP)])


def test_calls_that_nobody_named_are_kept_apart_by_their_logs(written: Written, tmp_path: Path) -> None:
    """Every log has a first call without a key, and every port a stranger that speaks no HTTP."""
    nobody = [
        [replace(CLOSED, call_id=f"{log}{session}", session=session) for session in ("anonymous", "unreadable")]
        for log in "ab"
    ]
    logs = [written(*calls, salt=salt) for calls, salt in zip(nobody, ("one", "two"), strict=True)]
    copy = written(*nobody[0], replace(CLOSED, call_id="later", session="anonymous", seq=2), salt="one")
    expected = {
        ("aanonymous", "anonymous@7692c3ad"),
        ("aunreadable", "unreadable@7692c3ad"),
        ("banonymous", "anonymous@3fc4ccfe"),
        ("bunreadable", "unreadable@3fc4ccfe"),
        ("later", "anonymous@7692c3ad"),
    }
    out = tmp_path / "out.db"
    for order in itertools.permutations([*logs, copy]):
        out.unlink(missing_ok=True)
        merge(out, order)
        with Log.read(out) as log:
            assert {(call.call_id, call.session) for call in log.rows(Call)} == expected
    assert merge(logs[0], [copy]) == [Merged(log=copy, added=1, known=2)]
    merge(logs[0], [out])
    with Log.read(logs[0]) as log:
        assert {(call.call_id, call.session) for call in log.rows(Call)} == {
            (call_id, session.removesuffix("@7692c3ad")) for call_id, session in expected
        }


MERGE: Final = "import sys; from cellmeter_proxy.merge import merge; merge(sys.argv[1], sys.argv[2:])"


@pytest.mark.parametrize(
    ("there", "statements"), [(True, 0), (True, 4), (True, 9), (False, 0), (False, 4), (False, 9), (False, 10)]
)
def test_a_merge_that_is_killed_anywhere_leaves_what_was_there(
    written: Written, tmp_path: Path, killed_after: Callable[..., int], statements: int, *, there: bool
) -> None:
    """After nine statements the next one is the commit; a new log is then still to be published."""
    out = written(SWEEP, OPEN) if there else tmp_path / "new.db"
    logs, before = [written(*ALL), written(replace(CLOSED, call_id="2", seq=2))], rows_of(out) if there else None
    assert killed_after(statements, MERGE, out, *logs, since="INTO cells") == -signal.SIGKILL
    assert (rows_of(out) if out.exists() else None) == before
    merge(out, logs)
    merge(tmp_path / "whole.db", logs)
    assert rows_of(out) == rows_of(tmp_path / "whole.db")


FULL: Final = """
import resource, signal, sys
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.merge import merge

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    merge(sys.argv[1], sys.argv[2:])
except CellmeterError as error:
    print(error.message)
"""


def test_a_disk_that_is_full_is_a_sentence_and_leaves_what_was_there(written: Written, tmp_path: Path) -> None:
    content = b"".join(number.to_bytes(4, "big") * 3 for number in range(100_000))
    out, new, big = written(SWEEP), tmp_path / "new.db", written(make_blob(content), CLOSED)
    with Log.create(big) as log:
        for number in range(20):
            log.put_blob(make_blob(content[number::7]))
    before = rows_of(out)
    for target in (out, new):
        command = [sys.executable, "-c", FULL, str(target), str(big)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        assert done.stdout.startswith(f"{target} cannot be written: ")
    assert rows_of(out) == before
    assert not new.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_log_that_somebody_begins_under_the_name_meanwhile_is_not_replaced(written: Written, tmp_path: Path) -> None:
    from cellmeter_proxy.merge import _published_when_whole

    out = tmp_path / "out.db"
    with contextlib.ExitStack() as publishing:
        Log.create(publishing.enter_context(_published_when_whole(out))).close()
        with Log.create(out) as log:
            log.append(CLOSED)
        with pytest.raises(FileExistsError):
            publishing.close()
    assert the_rows(out, Call) == [CLOSED]


def test_what_a_log_that_is_gone_has_left_does_not_become_a_part_of_the_new_one(
    written: Written, tmp_path: Path
) -> None:
    out = tmp_path / "out.db"
    with Log.create(out, "process") as log:
        log.append(replace(CLOSED, call_id="old"))
        left = out.with_name("out.db-wal").read_bytes()
    out.unlink()
    out.with_name("out.db-wal").write_bytes(left)
    with pytest.raises(CellmeterError, match=r"out\.db-wal is left of another log"):
        merge(out, [written(CLOSED)])
    assert not out.exists()
