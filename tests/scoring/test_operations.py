from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.record import Call
from cellmeter_scoring.operations import Operation, operations
from cellmeter_scoring.retries import retries_of
from cellmeter_scoring.testing import CELL_ID, START, at, make_attempt, make_call, make_failed_call
from cellmeter_scoring.totals import Total

SAME = "c1:sha256:same"


def test_five_calls_are_one_operation_with_all_that_it_took() -> None:
    calls = [
        make_failed_call("a", 0, 429, request_hash=SAME, retry_number=0),
        make_failed_call("b", 3, 503, request_hash=SAME, retry_number=1),
        make_call("c", 5, request_hash=SAME, outcome="client_gone", client_gone_at=at(5.5), ended_at=at(20)),
        make_call("d", 6, request_hash=SAME, outcome="stream_error", completion_tokens=None, cost=None),
        make_call("e", 9.25, request_hash=SAME),
    ]
    attempts = {"a": [make_attempt("a", 1, 0, 429)], "e": [make_attempt("e", n, 9 + n, 200) for n in (1, 2)]}
    assert operations(calls, attempts) == [
        Operation(
            operation_id="a",
            session=CELL_ID,
            cell_id=CELL_ID,
            cell_attempt=1,
            call_ids=["a", "b", "c", "d", "e"],
            attempts=3,
            started_at=START,
            ended_at=at(10.25),
            outcome="ok",
            waits_ms=[2000.0, 1000.0, 500.0, 2250.0],
            prompt_tokens=Total(sum=3000, counted=3, missing=0),
            completion_tokens=Total(sum=200, counted=2, missing=1),
            cost=Total(sum=0.02, counted=2, missing=1),
        )
    ]


def test_a_call_that_joined_another_was_paid_once() -> None:
    calls = [
        make_call("a", 1, outcome="client_gone", client_gone_at=at(3), ended_at=at(9)),
        make_call("b", 4, request_hash="c1:sha256:a", attached_to="a", prompt_tokens=None, completion_tokens=None),
    ]
    (one,) = operations(calls, {"a": [make_attempt("a", 1, 1, 200)]})
    assert (one.call_ids, one.attempts, one.waits_ms) == (["a", "b"], 1, [1000.0])
    assert (one.prompt_tokens, one.cost) == (
        Total(sum=1000, counted=1, missing=0),
        Total(sum=0.01, counted=1, missing=0),
    )


def test_a_wait_is_unknown_where_the_end_before_it_is() -> None:
    cut = make_call("a", 1, request_hash=SAME, outcome="interrupted", ended_at=None, writer="host/0/0")
    left = make_call("b", 9, request_hash=SAME, outcome="client_gone", client_gone_at=at(400), ended_at=at(400))
    (one,) = operations([cut, left, make_call("c", 300, request_hash=SAME)], {})
    assert one.waits_ms == [None, None]


def test_a_wait_is_unknown_where_the_answer_before_it_did_not_arrive() -> None:
    calls = [make_call("a", 1, request_hash=SAME), make_call("b", 9, request_hash=SAME, retry_number=1)]
    assert [one.waits_ms for one in operations(calls, {})] == [[None]]


def test_nothing_that_no_model_worked_on_was_paid() -> None:
    (one,) = operations([make_failed_call("a", 1, 429)], {})
    assert one.cost == one.prompt_tokens == Total(sum=None, counted=0, missing=0)


def test_what_is_still_being_answered_has_no_outcome_and_no_end() -> None:
    (one,) = operations([make_call("a", 1, state="open", outcome=None, ended_at=None)], {})
    assert (one.outcome, one.ended_at) == (None, None)


@given(
    st.lists(
        st.builds(
            make_call,
            st.sampled_from("abcdefgh"),
            st.integers(0, 4),
            session=st.sampled_from(["s", "t"]),
            request_hash=st.sampled_from([None, SAME]),
            retry_number=st.sampled_from([None, 1]),
            outcome=st.sampled_from(["ok", "http_error", None]),
        ),
        unique_by=lambda call: call.call_id,
    )
)
def test_every_call_is_in_one_operation_and_each_link_makes_them_one_fewer(calls: list[Call]) -> None:
    found = operations(calls, {})
    assert sorted(call_id for one in found for call_id in one.call_ids) == sorted(call.call_id for call in calls)
    assert len(found) == len(calls) - len(retries_of(calls))
    assert all(len(one.waits_ms) == len(one.call_ids) - 1 for one in found)
