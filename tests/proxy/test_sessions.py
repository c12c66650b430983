"""What is remembered of sessions is what the log says."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cellmeter_proxy import sessions
from cellmeter_proxy.log import Log, make_content
from cellmeter_proxy.record import Call, new_id
from cellmeter_proxy.sessions import Sessions

NAMES = st.sampled_from("ab")
LINKS = st.sampled_from([None, "one", "two", "three", "four", "five"])
CALLS = st.tuples(st.just("call"), NAMES, LINKS, st.booleans(), st.sampled_from(["open", "append"]))
STEPS = st.lists(CALLS | st.sampled_from(["commit", "roll back", "other", "unseen"]).map(lambda step: (step,)))


def write(log: Log, name: str, link: str | None, *, has_body: bool, how: str = "open") -> None:
    blob = new_id() if has_body else None
    call = Call(call_id=new_id(), session=name, writer="w", started_at=1, prefix_hash=link, request_blob=blob)
    if how == "open":
        log.open_call(call)
    else:
        log.append(replace(call, seq=log.next_seq(name)))


def answers(asked: Sessions) -> list[object]:
    links = ["one", "two", "three", "four", "five"]
    return [
        (asked.seq(name), asked.known_prefixes(name, links), [asked.base_of(name, link) for link in (None, *links)])
        for name in "ab"
    ]


@pytest.mark.parametrize("most", [2, 5, 1000])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_what_is_remembered_is_what_the_log_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, steps: list[tuple[object, ...]]
) -> None:
    monkeypatch.setattr(sessions, "MAX_LINKS", most)
    path = tmp_path / "any.db"
    path.unlink(missing_ok=True)
    with Log.create(path, "process") as log, Log.create(path, "process") as other:
        log.begin()
        for step in steps:
            match step:
                case ("call", str(name), link, bool(has_body), str(how)):
                    write(log, name, None if link is None else str(link), has_body=has_body, how=how)
                case ("commit",):
                    log.commit()
                    log.begin()
                case ("roll back",):
                    log.roll_back()
                    log.begin()
                case ("other",):
                    log.commit()
                    write(other, "a", "three", has_body=True)
                    log.begin()
                case ("unseen",):  # by the same connection, and undone behind our back
                    log.commit()
                    log.conn.execute("BEGIN")
                    write(log, "a", "five", has_body=True)
                    log.conn.execute("ROLLBACK")
                    log.begin()
            assert answers(log._sessions) == answers(Sessions(log.conn))
            assert log._sessions._size <= most
        log.commit()


def test_a_session_that_goes_on_asks_the_log_nothing_but_whether_a_body_is_there(tmp_path: Path) -> None:
    asked: list[str] = []
    known: set[str] = set()
    with Log.create(tmp_path / "a.db", "process") as log:
        for number in range(4):
            if number == 3:
                log.conn.set_trace_callback(asked.append)
            log.begin()
            known = log.known_prefixes("s", [f"link {number}", f"link {number - 1}"])
            content = make_content(b"body" * 100 + str(number).encode(), grows=True)
            log.keep(content, "s", f"link {number - 1}")
            call = Call(call_id=str(number), session="s", writer="w", started_at=1, prefix_hash=f"link {number}")
            log.open_call(replace(call, request_blob=content.digest))
            log.commit()
    assert known == {"link 2"}
    assert [" ".join(statement.split()[:2]) for statement in asked] == [
        "BEGIN IMMEDIATE",
        "PRAGMA data_version",
        "SELECT 1",
        "INSERT INTO",
        "INSERT INTO",
        "COMMIT",
    ]


def asked_for(log: Log, name: str) -> list[str]:
    """What the log is asked in order to write the next call of a session in a transaction of its own."""
    asked: list[str] = []
    log.conn.set_trace_callback(asked.append)
    log.begin()
    link = f"{name} {log.next_seq(name)}"
    log.known_prefixes(name, [link, "none"])
    write(log, name, link, has_body=True)
    log.commit()
    log.conn.set_trace_callback(None)
    return [" ".join(statement.split()[:2]) for statement in asked if statement.startswith("SELECT")]


def test_sessions_that_were_rolled_back_or_that_others_wrote_to_are_remembered_again(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Log.create(path, "process") as log, Log.create(path, "process") as other:
        assert asked_for(log, "a") == ["SELECT coalesce(max(rowid),", "SELECT seq,"]
        assert asked_for(log, "a") == []
        write(other, "a", "theirs", has_body=True)
        write(other, "b", "theirs", has_body=True)
        assert asked_for(log, "a") == ["SELECT coalesce(max(rowid),", "SELECT session,"]
        log.begin()
        assert log.known_prefixes("a", ["theirs", "a 1", "b 1"]) == {"theirs", "a 1"}
        write(log, "a", "undone", has_body=True)
        log.roll_back()
        assert asked_for(log, "a")[:2] == ["SELECT coalesce(max(rowid),", "SELECT seq,"]
        assert "SELECT seq," not in asked_for(log, "a")


def test_a_link_is_found_however_many_calls_the_session_has_made_since(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db", "process") as log, Log.create(tmp_path / "a.db", "process") as reader:
        reader.begin()
        assert reader.known_prefixes("a", ["link 3"]) == set()
        reader.commit()
        log.begin()
        for number in range(1, 1100):
            write(log, "a", f"link {number}", has_body=True)
            write(log, "b", "link", has_body=True)
        log.commit()
        reader.begin()
        links = ["link 1", "link 255", "link 256", "link 700", "link 1099", "link 1100", "link", ""]
        assert reader.known_prefixes("a", links) == {*links[:5]}
        assert reader.known_prefixes("b", links) == {"link"}
        assert answers(reader._sessions) == answers(Sessions(reader.conn))
        newest = reader.conn.execute("SELECT request_blob FROM calls WHERE session = 'b' ORDER BY seq DESC").fetchone()
        assert reader._sessions.base_of("b", "link") == newest[0]
        reader.commit()


@pytest.mark.timeout(20)
def test_a_row_of_a_damaged_log_with_an_absurd_place_keeps_nobody_waiting(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db", "process") as log:
        write(log, "a", "one", has_body=True)
        write(log, "a", "two", has_body=True)
        log.append(Call(call_id=new_id(), session="a", writer="w", started_at=1, seq=1 << 60, prefix_hash="three"))
        asked = Sessions(log.conn)
        assert asked.known_prefixes("a", ["one", "three", "four"]) == {"one", "three"}
        assert asked.base_of("a", "two") is not None
        plan = str(log.conn.execute(f"EXPLAIN QUERY PLAN {sessions._FIND}", ("a", 1, '["one"]')).fetchall())
    assert "SCAN calls" not in plan
    assert "TEMP B-TREE" not in plan
