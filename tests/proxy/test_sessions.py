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
