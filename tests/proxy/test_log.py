"""The captured log: what goes in comes out as it was, and what is not a log is refused by name."""

import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log, make_blob, writer_is_alive, writer_name
from cellmeter_proxy.record import (
    Call,
    Cell,
    Constraint,
    Egress,
    Grade,
    Numbers,
    Phase,
    Record,
    Reported,
    ScoreRow,
    Span,
    TaskFacts,
    UsageSource,
    Workspace,
)
from cellmeter_proxy.schema import SCHEMA_VERSION, TABLES
from cellmeter_proxy.statements import AT_OPENING

CELL = Cell(
    cell_id="s/a/m/c/t#run1",
    sweep_id="s",
    agent="a",
    model="m",
    category="c",
    task="t",
    run=1,
    task_digest="sha256:0",
    isolation="process",
    plugin_stack=["x"],
    started_at=1,
    ended_at=2,
    phases=[Phase(name="run", started_at=1, ended_at=2, error="broke")],
    timed_out=True,
    task_facts=TaskFacts(
        language="rust",
        description="d",
        timeout_s=600.0,
        constraints=[Constraint(kind="file-not-touched", path="tests/*")],
    ),
    workspace=Workspace(added=["é"], extra_git_dir=True),
    grade=Grade(exit_code=0, passed=True),
    reported=Reported(prompt_tokens=1300),
)
CALL = Call(call_id="1", session="s", seq=1, writer="h/1/1", started_at=5, stream=True, ttft_ms=1.5, usage='{"a":1}')
SPAN = Span(
    span_id="1",
    cell_id="c",
    cell_attempt=1,
    kind="container",
    name="n",
    started_at=1,
    duration_ms=2.5,
    attrs={"a": [1]},
)
SCORE = ScoreRow(
    cell_id="c",
    cell_attempt=1,
    methodology="cab-0.1",
    axis="tokens",
    unscored="no usage",
    detail={"total_tokens": None},
    scorer_version="1",
    scored_at=1,
)


@pytest.mark.parametrize("record", [CELL, CALL, SPAN, SCORE, make_blob(b"\x00\xff")], ids=lambda r: type(r).__name__)
def test_a_row_comes_back_as_it_was_written(tmp_path: Path, record: Record) -> None:
    with Log.create(tmp_path / "a.db") as log:
        log.append(record)
    with Log.read(tmp_path / "a.db") as log:
        assert list(log.rows(type(record))) == [record]


def test_a_new_log_has_every_table_and_says_its_version(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        names = {row[0] for row in log.conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert names >= {"meta", *TABLES.values()}
        assert log.meta("schema_version") == str(SCHEMA_VERSION)
        assert log.conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_opening_a_log_again_keeps_what_is_in_it(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        salt = log.meta("fingerprint_salt")
        log.append(CALL)
    with Log.create(tmp_path / "a.db") as log:
        assert log.meta("fingerprint_salt") == salt
        assert list(log.rows(Call)) == [CALL]


def test_the_durability_that_was_asked_for_is_the_one_in_force(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db", "full") as log:
        assert log.conn.execute("PRAGMA synchronous").fetchone() == (2,)
    with Log.create(tmp_path / "a.db", "process") as log:
        assert log.conn.execute("PRAGMA synchronous").fetchone() == (1,)


def test_a_missing_log_is_a_sentence_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(CellmeterError, match="there is no log at") as caught:
        Log.read(tmp_path / "none.db")
    assert caught.value.hint is not None


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello, this is no database at all\n" * 40)
    with pytest.raises(CellmeterError, match="not an SQLite file"):
        Log.read(tmp_path / "a.txt")
    with pytest.raises(CellmeterError, match="not an SQLite file"):
        Log.create(tmp_path / "a.txt")


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (t TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CellmeterError, match="a database of something else"):
        Log.create(path)
    assert path.read_bytes() == before


def test_a_log_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        log.conn.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    with pytest.raises(CellmeterError, match="newer cellmeter"):
        Log.read(tmp_path / "a.db")


def test_a_digest_that_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log, pytest.raises(KeyError):
        log.blob("sha256:0")


@pytest.mark.parametrize(
    ("source", "prompt", "expected"),
    [("none", 8, "estimated"), ("none", None, "none"), ("partial", 8, "partial"), ("provider", 8, "provider")],
)
def test_numbers_fill_their_own_columns_and_no_other(
    tmp_path: Path, source: UsageSource, prompt: int | None, expected: str
) -> None:
    call = replace(CALL, state="closed", outcome="ok", usage_source=source, error="e", completion_tokens=3)
    found: dict[str, Any] = {
        "cost": 0.5,
        "price_source": "p",
        "estimated_prompt_tokens": prompt,
        "estimate_method": "m",
    }
    with Log.create(tmp_path / "a.db") as log:
        log.append(call, replace(CALL, call_id="2", seq=2))
        log.set_numbers(Numbers(call_id="1", **found))
        assert list(log.rows(Call)) == [
            replace(call, usage_source=expected, **found),
            replace(CALL, call_id="2", seq=2),
        ]


def test_a_fact_about_the_file_can_be_noted_again(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        log.set_meta("k", "1")
        log.set_meta("k", "2")
        assert log.meta("k") == "2"


@pytest.fixture
def first_version(old_log: Callable[[int], Path]) -> Path:
    """A log as version 1 of the schema had it, with one call."""
    path = old_log(1)
    given = {name: value for name, value in msgspec.structs.asdict(CALL).items() if value is not None}
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("DELETE FROM calls")
        names, marks = ", ".join(given), ", ".join(f":{name}" for name in given)
        conn.execute(f"INSERT INTO calls ({names}) VALUES ({marks})", given)
    return path


def test_a_log_of_an_older_version_is_read_and_what_it_did_not_measure_is_null(first_version: Path) -> None:
    with Log.read(first_version) as log:
        assert log.meta("schema_version") == "1"
        assert list(log.rows(Call)) == [CALL]


def test_a_log_of_an_older_version_is_brought_up_to_date_when_it_is_written(first_version: Path) -> None:
    newer = replace(CALL, call_id="2", seq=2, message_count=3, provider_tools=["web_search"])
    with Log.create(first_version) as log:
        assert log.meta("schema_version") == str(SCHEMA_VERSION)
        log.append(newer)
        assert list(log.rows(Call)) == [CALL, newer]


def test_the_links_of_a_history_that_earlier_calls_of_the_session_ended_in_are_found(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        for number, (session, link) in enumerate([("s", "one"), ("s", "one"), ("s", "three"), ("t", "two")], 1):
            log.open_call(Call(call_id=str(number), session=session, writer="h/1/1", started_at=1, prefix_hash=link))
        assert log.known_prefixes("s", ["one", "two", "three", "four"]) == {"one", "three"}
        assert log.known_prefixes("s", []) == set()


def test_a_call_that_is_complete_when_it_is_opened_is_written_completely(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        whole = replace(CALL, seq=None, cost=0.5, provider_tools=["web_search"], frames=3)
        begun = Call(call_id="begun", session="other", writer="w", started_at=1, provider_tools=["mcp:x"], redactions=2)
        assert (log.open_call(whole), log.open_call(begun)) == (1, 1)
        assert list(log.rows(Call)) == [replace(whole, seq=1), replace(begun, seq=1)]


def test_what_a_row_said_of_the_request_is_not_changed_when_it_is_closed(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        opened = Call(call_id="c", session="s", writer="w", started_at=1, endpoint="/v1/models", message_count=2)
        opened = replace(opened, seq=log.open_call(opened))
        closed = replace(opened, state="closed", status=200, sent_hash="x", redactions=1, usage_source="partial")
        log.close_call(replace(closed, endpoint="/other", session="t", seq=9, message_count=3), [])
        assert list(log.rows(Call)) == [closed]


def test_every_column_of_a_call_is_written_when_it_is_opened_or_when_it_is_closed(tmp_path: Path) -> None:
    by_type: dict[str, Any] = {"INTEGER": 1, "FLOAT": 0.5, "REAL": 0.5, "TEXT": "x"}
    with Log.create(tmp_path / "a.db") as log:
        types = {str(row[1]): str(row[2]) for row in log.conn.execute("PRAGMA table_info(calls)")}
        literal: dict[str, Any] = {
            "state": "closed",
            "via": "endpoint",
            "dialect": "models",
            "outcome": "ok",
            "usage_source": "partial",
        }
        values: dict[str, Any] = {name: by_type[type_] for name, type_ in types.items()} | literal
        full = Call(**(values | {"provider_tools": ["x"], "stream": True}))
        first: dict[str, Any] = {
            name: value for name, value in msgspec.structs.asdict(full).items() if name in AT_OPENING
        }
        log.open_call(Call(**first))
        log.close_call(full, [])
        assert list(log.rows(Call)) == [full]


def test_an_older_log_has_no_rows_of_a_table_that_came_later_and_todays_log_must_have_it(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        log.conn.execute("DROP TABLE egress")
    with Log.read(tmp_path / "a.db") as log, pytest.raises(sqlite3.OperationalError, match="no such table"):
        list(log.rows(Egress))
    with Log.create(tmp_path / "a.db") as log:
        log.set_meta("schema_version", "1")
    with Log.read(tmp_path / "a.db") as log:
        assert (log.lacks(Egress), list(log.rows(Egress))) == (True, [])
        assert not log.lacks(Call)


@pytest.mark.parametrize("writer", ["", "host", "host/1", "host/x/1", f"{socket.gethostname()}/{'9' * 30}/1", "h/1/x"])
def test_an_open_row_of_nobody_is_marked_as_that_of_a_process_that_is_gone(tmp_path: Path, writer: str) -> None:
    assert not writer_is_alive(writer)
    with Log.create(tmp_path / "a.db") as log:
        log.append(replace(CALL, writer=writer))
        assert log.recover() == 1
        assert [call.state for call in log.rows(Call)] == ["interrupted"]


def test_a_process_that_runs_is_told_from_one_that_had_its_number_before() -> None:
    host, process, start = writer_name().rsplit("/", 2)
    assert writer_is_alive(f"{host}/{process}/{start}")
    assert not writer_is_alive(f"{host}/{process}/{int(start) + 1}")
    assert not writer_is_alive(f"{host}/9999999999/{start}")
    assert writer_is_alive(f"another/{host}/1/1")
