import csv
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log, make_blob
from cellmeter_proxy.record import Call
from cellmeter_scoring.export import to_csv, to_jsonl
from cellmeter_scoring.testing import CELL_ID, make_attempt, make_call, make_cell, make_failed_call

REQUEST = '{"messages":[{"role":"user","content":"Füße, \\"quoted\\"\\nnext"}]}'.encode()
SECRET = "sk-proj-0123456789abcdefghijklmnop"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log.create(tmp_path / "log.db", "process") as log:
        log.append(
            make_cell(),
            make_call("a", 1, seq=1, cost=0.25),
            make_failed_call("b", 3, 429, seq=2, error='limit, "slow" down\nplease'),
            make_call("c", 5, seq=1, session="other", cell_id=None, cell_attempt=None, request_model=None),
            make_attempt("b", 1, 3, 429, retry_after_ms=1000.0),
            make_attempt("b", 2, 4, 429),
        )
        yield log


def test_a_line_is_a_call_with_every_column_and_its_attempts(log: Log) -> None:
    rows = [json.loads(line) for line in to_jsonl(log)]
    assert [row["call_id"] for row in rows] == ["a", "b", "c"]
    assert set(rows[0]) == {*Call.__struct_fields__, "operation_id", "retry_of", "attempts"}
    assert rows[0]["cost"] == 0.25
    assert rows[1]["cost"] is None
    assert [(attempt["n"], attempt["retry_after_ms"]) for attempt in rows[1]["attempts"]] == [(1, 1000.0), (2, None)]
    assert rows[0]["attempts"] == []


def test_csv_has_one_row_of_names_and_one_per_call(log: Log) -> None:
    rows = list(csv.DictReader("".join(to_csv(log)).splitlines(keepends=True)))
    assert list(rows[0]) == [*Call.__struct_fields__, "operation_id", "retry_of", "attempts"]
    assert [(row["call_id"], row["attempts"], row["cost"]) for row in rows] == [
        ("a", "0", "0.25"),
        ("b", "2", ""),
        ("c", "0", "0.01"),
    ]
    assert rows[1]["error"] == 'limit, "slow" down\nplease'


@pytest.mark.parametrize("export", [to_jsonl, to_csv])
def test_cells_and_sessions_are_chosen_as_the_audit_chooses_them(
    log: Log, export: Callable[..., Iterator[str]]
) -> None:
    head = 0 if export is to_jsonl else 1
    assert len(list(export(log, cell=CELL_ID))) == head + 2
    assert len(list(export(log, session="other"))) == head + 1
    with pytest.raises(CellmeterError, match="no call in session 'none'"):
        list(export(log, session="none"))


def test_bodies_are_decoded_where_they_are_text(tmp_path: Path) -> None:
    packed, plain, binary = make_blob(gzip.compress(REQUEST)), make_blob(b"masked ****"), make_blob(b"\xff\xfe")
    with Log.create(tmp_path / "log.db", "process") as log:
        log.append(
            packed,
            plain,
            binary,
            make_call("a", 1, seq=1, request_blob=packed.digest, request_encoding="gzip", response_blob=plain.digest),
            # Kept without its coding, because something in it was masked.
            make_call("b", 2, seq=2, request_blob=plain.digest, request_encoding="gzip", response_blob=binary.digest),
            make_call("c", 3, seq=3, request_blob="sha256:gone"),
        )
        rows = [json.loads(line) for line in to_jsonl(log, bodies=True)]
    assert [(row["request_text"], row["response_text"]) for row in rows] == [
        (REQUEST.decode(), "masked ****"),
        ("masked ****", None),
        (None, None),
    ]


@pytest.mark.parametrize("export", [to_jsonl, to_csv])
def test_no_key_goes_out(tmp_path: Path, export: Callable[..., Iterator[str]]) -> None:
    with Log.create(tmp_path / "log.db", "process") as log:
        log.append(make_call("a", seq=1, error=f"the key {SECRET} is wrong"))
        text = "".join(export(log))
    assert SECRET not in text
    assert "the key sk-proj-****" in text
