"""The schema: what older versions wrote stays readable, and becomes today's as a whole or not at all."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from sqlite_utils import Database

from cellmeter_proxy.log import Log, digest_of
from cellmeter_proxy.record import Attempt, BlobRow, Call, Cell, Grade, Phase, ScoreRow, Span, Workspace
from cellmeter_proxy.schema import SCHEMA_VERSION, TABLES, _m001_first, columns

OLD: Final = [1, 2, 3, 4, 5, 6]
OldLog = Callable[[int], Path]
Row = dict[str, Any]

WRITE = "import sys; from cellmeter_proxy.log import Log; Log.create(sys.argv[1])"
WRITE_AT_ONCE = (
    "import os, sys; from cellmeter_proxy.log import Log; print(flush=True); sys.stdin.read(); Log.create(sys.argv[1])"
)


def dump(path: Path) -> dict[str, list[Row]]:
    """Every row of every table, read without any of our code."""
    with closing(sqlite3.connect(path)) as conn:
        conn.row_factory = sqlite3.Row
        there = {row[0] for row in conn.execute("SELECT name FROM sqlite_master")}
        return {
            table: [dict(row) for row in conn.execute(f"SELECT * FROM {table} ORDER BY rowid")]
            for table in TABLES.values()
            if table in there
        }


def version_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as conn:
        return str(conn.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()[0])


def shape_of(conn: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Name, type and key of every column by table, and the indexes; the order of columns means nothing."""
    tables = ("meta", *TABLES.values())
    shape = {
        table: sorted(
            (name, type_, key) for _, name, type_, _, _, key, _ in conn.execute(f"PRAGMA table_xinfo({table})")
        )
        for table in tables
    }
    indexes = conn.execute("SELECT tbl_name, name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    return {**shape, "indexes": sorted(row for row in indexes if row[0] in tables)}


def test_the_first_migration_is_what_was_released(old_log: OldLog) -> None:
    """A column that came later needs a migration of its own, or older logs would lack it."""
    with closing(sqlite3.connect(":memory:")) as first, closing(sqlite3.connect(old_log(1))) as released:
        _m001_first(Database(first))
        assert shape_of(first) == shape_of(released)


def test_a_log_has_a_column_for_every_field_of_its_row_types(tmp_path: Path) -> None:
    with Log.create(tmp_path / "new.db") as log:
        shape = shape_of(log.conn)
        assert {row_type: {str(name) for name, _, _ in shape[table]} for row_type, table in TABLES.items()} == {
            row_type: set(columns(row_type)) | ({"at", "sha256", "coded"} if row_type is BlobRow else set())
            for row_type in TABLES
        }


@pytest.mark.parametrize("version", OLD)
def test_a_migrated_log_is_built_like_a_new_one(tmp_path: Path, old_log: OldLog, version: int) -> None:
    with Log.create(tmp_path / "new.db") as new, Log.create(old_log(version)) as migrated:
        assert shape_of(migrated.conn) == shape_of(new.conn)


@pytest.mark.parametrize("version", OLD)
def test_an_older_log_is_read_as_it_is_and_left_as_it_is(old_log: OldLog, version: int) -> None:
    path = old_log(version)
    before = path.read_bytes()
    with Log.read(path) as log:
        assert log.meta("schema_version") == str(version)
        first, second = log.rows(Call)
        assert (first.prompt_tokens, first.outcome, first.seq, first.latency_ms) == (21, "ok", 1, 999.5)
        assert first.message_count == (2 if version >= 2 else None)
        assert (first.attached_to, first.provider_tools) == (None, [] if version >= 4 else None)
        assert (second.state, second.prompt_tokens, second.error) == (
            "interrupted",
            None,
            "the recording process ended before the answer did",
        )
        assert first.request_blob is not None
        assert digest_of(log.blob(first.request_blob)) == first.body_hash
        (cell,) = log.rows(Cell)
        assert cell.phases == [Phase(name="run", started_at=cell.started_at, ended_at=1_763_600_002_000_000)]
        assert cell.grade == Grade(exit_code=0, passed=True, stdout_tail="OK")
        assert cell.workspace == Workspace(modified=["src/reverse.py"])
        assert [attempt.ratelimit for attempt in log.rows(Attempt)] == ['{"x-ratelimit-remaining-requests":"9"}']
        assert [span.attrs for span in log.rows(Span)] == [{"exit_code": 0}]
        assert [score.value for score in log.rows(ScoreRow)] == [26.0]
        stored = [(row.codec, row.place, row.digest != "") for row in log.rows(BlobRow)]
        whole = ("zstd", None, True)
        assert sorted(stored, key=str) == (
            [whole] * 3
            if version < 5
            else [("strand", 0, False), ("strand", 1, True), ("strand", 2, True), whole, whole]
        )
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", OLD)
def test_a_migrated_log_holds_the_same_rows(old_log: OldLog, version: int) -> None:
    path = old_log(version)
    before = dump(path)
    with Log.read(path) as log:
        read = {row_type: list(log.rows(row_type)) for row_type in TABLES}
    for _ in range(2):
        with Log.create(path) as log:
            assert {row_type: list(log.rows(row_type)) for row_type in TABLES} == read
            assert log.meta("fingerprint_salt") == "00112233445566778899aabbccddeeff"
            assert log.meta("created_at") == "1763600000000000"
    after = dump(path)
    if version == 5:  # its bodies stood in another table, too; they are compared above
        del before["blobs"]
    for table, rows in before.items():
        kept = [{name: value for name, value in row.items() if name in rows[0]} for row in after[table]]
        added = [
            value
            for row in after[table]
            for name, value in row.items()
            if name not in {*rows[0], "at", "sha256", "coded"}
        ]
        assert (kept, set(added) - {None}) == (rows, set())
    assert version_of(path) == str(SCHEMA_VERSION)


@pytest.mark.parametrize("damaged", ["NULL", "'7'", "CAST(x'74ff' AS TEXT)", "'sha256:' || CAST(x'c3' AS TEXT)"])
def test_a_log_with_a_damaged_digest_is_migrated_and_keeps_what_it_holds(old_log: OldLog, damaged: str) -> None:
    path = old_log(6)
    with closing(sqlite3.connect(path)) as conn:
        (at, good), *_ = conn.execute("SELECT at, digest FROM blobs WHERE at >= 0 AND digest != '' ORDER BY at DESC")
        conn.execute(f"UPDATE blobs SET digest = {damaged} WHERE at = ?", (at,))
        others = [name for (name,) in conn.execute("SELECT digest FROM blobs WHERE at != ? AND digest != ''", (at,))]
        conn.commit()
    with Log.create(path) as log:
        assert not log.has_blob(good)
        assert others
        assert all(digest_of(log.blob(name)) == name for name in others)
        kept = log.conn.execute(f"SELECT nullif(digest, '') IS {damaged} FROM blobs WHERE at = ?", (at,)).fetchall()
        assert kept == [(1,)]


def test_a_migration_that_is_killed_anywhere_leaves_the_older_log(
    old_log: OldLog, killed_after: Callable[..., int]
) -> None:
    path = old_log(1)
    before, survived = dump(path), 0
    for statements in range(100):
        code = killed_after(statements, WRITE, path)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if version_of(path) == "1":
            survived += 1
            assert dump(path) == before
            with Log.read(path) as log:
                assert [call.message_count for call in log.rows(Call)] == [None, None]
        else:
            break
    assert survived >= 5
    with Log.create(path) as log:
        assert log.meta("schema_version") == str(SCHEMA_VERSION)
    assert version_of(path) == str(SCHEMA_VERSION)


@pytest.mark.parametrize("version", [0, 1, 3])
def test_processes_that_migrate_or_create_one_log_at_once_do_it_once(
    tmp_path: Path, old_log: OldLog, version: int
) -> None:
    path = old_log(version) if version else tmp_path / "new.db"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_AT_ONCE, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(timeout=30) for writer in writers] == [0, 0, 0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    with Log.create(path) as log:
        steps = log.conn.execute("SELECT name, count(*) FROM _sqlite_migrations GROUP BY name").fetchall()
        assert [count for _, count in steps] == [1] * len(steps)
        assert len(list(log.rows(Call))) == (2 if version else 0)
