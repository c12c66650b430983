"""The statements of the log: whatever of a row is null, what is read is what was written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt, Call
from cellmeter_proxy.schema import columns
from cellmeter_proxy.statements import _SELDOM, AT_OPENING, CallRows

SAMPLES: Final[dict[type, Any]] = {int: 7, float: 0.5, str: "x"}
LITERAL: Final[dict[str, Any]] = {
    "state": "closed",
    "via": "replay",
    "dialect": "models",
    "outcome": "ok",
    "usage_source": "partial",
    "provider_tools": ["mcp:x"],
    "stream": True,
}
FULL: Final = {name: LITERAL.get(name, SAMPLES[type_]) for name, type_ in columns(Call).items() if type_ in SAMPLES}
NEEDED: Final = {"call_id", "session", "writer", "started_at", "state", "via", "method", "endpoint", "dialect"}
OPTIONAL: Final = sorted(set(FULL) - NEEDED - {"usage_source"})
KNOWN: Final = {name: FULL[name] for name in NEEDED}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    with Log.create(tmp_path_factory.mktemp("statements") / "a.db", "process") as log:
        yield log


def some(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Values for any of the columns, few of them or most."""
    chosen = st.sets(st.sampled_from(names))
    return (chosen | chosen.map(lambda left_out: set(names) - left_out)).map(
        lambda chosen: {name: FULL[name] for name in chosen}
    )


@given(some(OPTIONAL))
def test_a_row_is_read_as_it_was_written_whatever_of_it_is_null(log: Log, values: dict[str, Any]) -> None:
    call = Call(**(KNOWN | values))
    log.conn.execute("BEGIN")
    log.append(call)
    assert list(log.rows(Call)) == [call]
    log.replace(Call(**KNOWN))
    assert list(log.rows(Call)) == [Call(**KNOWN)]
    log.roll_back()


@given(some([name for name in OPTIONAL if name in AT_OPENING]), some(OPTIONAL), some(OPTIONAL))
def test_a_row_that_is_closed_has_every_column_as_it_was_closed_last(
    log: Log, opened: dict[str, Any], first: dict[str, Any], last: dict[str, Any]
) -> None:
    begun = Call(**(KNOWN | opened | {"state": "open", "seq": 1}))
    log.conn.execute("BEGIN")
    log.add_call(begun)
    assert list(log.rows(Call)) == [begun]
    for values in (first, last):
        log.close_call(Call(**(KNOWN | values)), [])
    at_opening = {name: getattr(begun, name) for name in AT_OPENING}
    assert list(log.rows(Call)) == [Call(**(KNOWN | last | at_opening))]
    log.roll_back()


@given(st.sets(st.sampled_from(sorted(set(columns(Attempt)) - {"call_id", "n", "started_at"}))))
def test_an_attempt_is_read_as_it_was_written(log: Log, names: set[str]) -> None:
    values: dict[str, Any] = {name: SAMPLES[columns(Attempt)[name]] for name in names}
    attempt = Attempt(call_id="c", n=1, started_at=1, **values)
    log.conn.execute("BEGIN")
    log.append(attempt)
    assert list(log.rows(Attempt)) == [attempt]
    log.roll_back()


def test_columns_that_are_null_together_are_not_bound_and_each_set_of_them_has_one_text() -> None:
    rows = CallRows()
    plain, values = rows.close(Call(**KNOWN))
    priced, more = rows.close(Call(**KNOWN, cost=0.5))
    assert rows.close(Call(**KNOWN, price_source="x"))[0] is priced
    assert len(more) == len(values) + 2
    assert plain.count("= NULL") == priced.count("= NULL") + 2
    assert plain.count("?") == len(values)


def test_every_column_that_is_seldom_set_can_be_null_and_is_of_one_group() -> None:
    for row, groups in _SELDOM.items():
        defaults = {field.name: field.default for field in msgspec.structs.fields(row)}
        names = [name for group in groups for name in group]
        assert {defaults[name] for name in names} == {None}
        assert len(set(names)) == len(names)


def test_a_row_is_opened_whole_where_more_is_known_of_it() -> None:
    assert CallRows().open(Call(**KNOWN)) is not None
    assert CallRows().open(Call(**KNOWN, status=200)) is None


def test_a_log_is_written_through_the_same_texts_by_all(tmp_path: Path) -> None:
    seen: list[str] = []
    with Log.create(tmp_path / "a.db") as log:
        log.conn.set_trace_callback(seen.append)
        for number in (1, 2):
            log.append(Attempt(call_id=str(number), n=1, started_at=1, status=200))
    assert len({statement.partition("VALUES")[0] for statement in seen}) == 1
