from pathlib import Path

import msgspec
import pytest

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call, Reported
from cellmeter_scoring.audit import audit
from cellmeter_scoring.testing import CELL_ID, make_attempt, make_call, make_cell, make_failed_call
from cellmeter_scoring.totals import Total


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A log of a cell whose first call took two tries, and of one session outside any cell."""
    path = tmp_path / "audit.db"
    with Log.create(path, "process") as log:
        log.append(
            make_cell(reported=Reported(prompt_tokens=2000, completion_tokens=100)),
            make_call("a", 1, seq=1, cost=0.25, cache_read_tokens=400),
            make_failed_call("b", 3, 429, seq=2),
            make_call("c", 5, seq=3, request_hash="c1:sha256:b"),
            make_attempt("a", 2, 1.5, 200, waited_ms=400.0),
            make_attempt("a", 1, 1, 429, retry_after_ms=400.0),
            make_call("z", 2, seq=1, session="shell", cell_id=None, cell_attempt=None),
        )
    return path


def test_calls_come_in_the_order_in_which_they_were_made_with_every_column_and_their_tries(recorded: Path) -> None:
    calls = audit(recorded).calls
    assert [call.call_id for call in calls] == ["a", "z", "b", "c"]
    assert [attempt.status for attempt in calls[0].attempts] == [429, 200]
    document = msgspec.json.decode(msgspec.json.encode(calls[0]))
    assert set(document) == {*Call.__struct_fields__, "operation_id", "retry_of", "attempts"}
    assert (document["cell_id"], document["seq"], document["prompt_tokens"]) == (CELL_ID, 1, 1000)


def test_a_sum_says_how_many_calls_it_is_over_and_how_many_have_no_number(recorded: Path) -> None:
    totals = audit(recorded, cell=CELL_ID).totals
    assert totals.calls == 3
    assert totals.prompt_tokens == Total(sum=2000, counted=2, missing=1)
    assert totals.cache_read_tokens == Total(sum=400, counted=1, missing=2)
    assert totals.cost == Total(sum=0.26, counted=2, missing=1)
    assert totals.reasoning_tokens == Total(sum=None, counted=0, missing=3)


def test_a_cell_or_a_session_can_be_audited_alone(recorded: Path) -> None:
    assert [call.call_id for call in audit(recorded, cell=CELL_ID).calls] == ["a", "b", "c"]
    alone = audit(recorded, session="shell")
    assert [call.call_id for call in alone.calls] == ["z"]
    assert audit(recorded, cell=CELL_ID, session=CELL_ID).totals.calls == 3


def test_what_deserves_attention_is_named(recorded: Path) -> None:
    assert [(finding.kind, finding.ids) for finding in audit(recorded).findings] == [
        ("throttled", ["b"]),
        ("agent retry", ["c"]),
        ("proxy retry", ["a"]),
    ]


def test_a_call_that_was_made_again_and_its_retry_are_one_operation(recorded: Path) -> None:
    found = audit(recorded)
    assert [(call.call_id, call.operation_id, call.retry_of) for call in found.calls] == [
        ("a", "a", None),
        ("z", "z", None),
        ("b", "b", None),
        ("c", "b", "b"),
    ]
    assert [(one.call_ids, one.attempts) for one in found.operations] == [(["a"], 2), (["z"], 0), (["b", "c"], 0)]


def test_the_agents_own_totals_stand_beside_the_recorded_ones(recorded: Path) -> None:
    lines = audit(recorded).reconciliations
    assert [(line.count, line.reported, line.recorded, line.agreement) for line in lines] == [
        ("prompt_tokens", 2000, 2000, "agrees"),
        ("completion_tokens", 100, 200, "last call only"),
    ]


def test_a_name_that_is_not_there_is_refused(recorded: Path) -> None:
    with pytest.raises(CellmeterError, match="no cell 'nowhere'"):
        audit(recorded, cell="nowhere")
    with pytest.raises(CellmeterError, match="no call in session 'nobody'"):
        audit(recorded, session="nobody")


def test_a_cell_without_calls_and_an_empty_log_are_audited_as_such(tmp_path: Path) -> None:
    with Log.create(tmp_path / "empty.db", "process") as log:
        assert audit(log).totals.calls == 0
        log.append(make_cell())
        assert audit(log, cell=CELL_ID).calls == []
