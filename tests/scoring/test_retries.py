from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.record import Call, Outcome
from cellmeter_scoring.retries import given_up_at, has_failed, retries_of
from cellmeter_scoring.testing import at, make_call, make_failed_call

SAME = "c1:sha256:same"


def failed(call_id: str, second: float, status: int | None = 429, **changes: object) -> Call:
    return make_failed_call(call_id, second, status, **{"request_hash": SAME, **changes})


def answered(call_id: str, second: float, **changes: object) -> Call:
    return make_call(call_id, second, **{"request_hash": SAME, **changes})


@pytest.mark.parametrize(
    "first",
    [
        failed("a", 1, 429),
        failed("a", 1, 500),
        failed("a", 1, 529),
        failed("a", 1, 408),
        failed("a", 1, 409),
        failed("a", 1, 401),
        failed("a", 1, None),
        failed("a", 1, 504, outcome="timeout"),
        answered("a", 1, outcome="stream_error"),
        answered("a", 1, outcome="client_gone", client_gone_at=at(1.5), ended_at=at(100)),
        answered("a", 1, outcome="interrupted", state="interrupted", ended_at=None, writer="host/0/0"),
    ],
)
def test_the_same_request_after_a_failure_is_a_retry_of_it(first: Call) -> None:
    assert retries_of([first, answered("b", 5)]) == {"b": "a"}


def test_two_identical_answered_calls_are_no_retries() -> None:
    assert retries_of([answered("a", 1), answered("b", 3)]) == {}


def test_an_answer_ends_the_chain() -> None:
    calls = [failed("a", 1), failed("b", 3), answered("c", 5), answered("d", 7), failed("e", 9), answered("f", 11)]
    assert retries_of(calls) == {"b": "a", "c": "b", "f": "e"}


def test_a_call_made_while_the_other_was_still_being_answered_is_none() -> None:
    assert retries_of([failed("a", 1, ended_at=at(10)), answered("b", 5)]) == {}
    under_way = answered("a", 1, state="open", outcome=None, ended_at=None)
    assert retries_of([under_way, answered("b", 5, writer="host/2/2")]) == {}


def test_a_failure_counts_from_the_moment_at_which_it_was_over() -> None:
    assert retries_of([failed("a", 1, ended_at=at(5)), answered("b", 5)]) == {"b": "a"}


def test_a_client_that_comes_back_long_before_its_leaving_is_noticed_is_linked() -> None:
    left = answered("a", 1, outcome="client_gone", client_gone_at=at(400), ended_at=at(400))
    assert retries_of([left, answered("b", 300)]) == {"b": "a"}
    late = failed("a", 1, 504, client_gone_at=at(400), ended_at=at(400))
    assert retries_of([late, answered("b", 300)]) == {"b": "a"}


def test_a_call_that_ended_with_its_process_was_beside_what_the_process_still_recorded() -> None:
    cut = answered("a", 1, outcome="interrupted", state="interrupted", ended_at=None)
    beside = answered("b", 2, outcome="interrupted", state="interrupted", ended_at=None)
    assert retries_of([cut, beside]) == {}
    assert retries_of([cut, beside, answered("c", 9, writer="host/2/2")]) == {"c": "b"}


def test_concurrent_equal_calls_are_each_made_again_once() -> None:
    calls = [failed("a", 1), failed("b", 1), answered("c", 5), answered("d", 5), answered("e", 5)]
    links = retries_of(calls)
    assert set(links) == {"c", "d"}
    assert set(links.values()) == {"a", "b"}


def test_the_sdks_own_count_tells_concurrent_chains_apart() -> None:
    calls = [
        failed("a0", 1, retry_number=0),
        failed("b0", 1.1, retry_number=0),
        failed("a1", 4, retry_number=1),
        failed("b1", 6, retry_number=1),
        answered("a2", 8, retry_number=2),
        answered("b2", 9, retry_number=2),
    ]
    links = retries_of(calls)
    assert {links["a1"], links["b1"]} == {"a0", "b0"}
    assert {links["a2"], links["b2"]} == {"a1", "b1"}


def test_a_count_that_starts_anew_is_a_retry_by_the_agent_around_its_sdk() -> None:
    calls = [failed("a", 1, retry_number=0), failed("b", 3, retry_number=1), answered("c", 30, retry_number=0)]
    assert retries_of(calls) == {"b": "a", "c": "b"}


def test_a_count_that_is_stuck_is_linked_by_the_request() -> None:
    calls = [failed("a", 1, retry_number=0), failed("b", 3, retry_number=0), answered("c", 5, retry_number=3)]
    assert retries_of(calls) == {"b": "a", "c": "b"}


def test_an_sdk_that_did_not_receive_the_answer_is_believed() -> None:
    assert retries_of([answered("a", 1, retry_number=0), answered("b", 5, retry_number=1)]) == {"b": "a"}


def test_of_equal_calls_an_sdk_makes_the_failed_one_again() -> None:
    calls = [failed("a", 1, retry_number=0), answered("b", 1.1, retry_number=0), answered("c", 5, retry_number=1)]
    assert retries_of(calls) == {"c": "a"}
    stuck = failed("x", 3, retry_number=0)
    again = [failed("a", 1, retry_number=1), stuck, answered("c", 5, retry_number=2)]
    assert retries_of(again) == {"x": "a", "c": "x"}
    beside = [failed("a", 1, retry_number=1), failed("x", 1.5, retry_number=0), answered("c", 5, retry_number=2)]
    assert retries_of(beside) == {"c": "a"}


def test_a_retry_whose_bytes_differ_is_linked_to_the_failed_call_before_it() -> None:
    first, again = make_failed_call("a", 1, 500), make_call("b", 3, retry_number=1)
    assert retries_of([first, again]) == {"b": "a"}
    between = make_call("x", 2, retry_number=0)
    assert retries_of([first, between, again]) == {}
    assert retries_of([first, make_call("b", 3, retry_number=2)]) == {}
    assert retries_of([first, make_call("b", 3, retry_number=1, endpoint="/v1/embeddings")]) == {}
    assert retries_of([make_call("a", 1), again]) == {}


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"session": "other"},
        {"cell_id": "s1/other/cell#run1"},
        {"cell_attempt": 2},
        {"client_session": "ses_2"},
        {"endpoint": "/v1/responses"},
        {"method": "PUT"},
    ],
)
@pytest.mark.parametrize("marked", [{}, {"retry_number": 1}, {"attached_to": "a"}])
def test_nothing_is_linked_across_sessions_attempts_and_endpoints(
    elsewhere: dict[str, object], marked: dict[str, object]
) -> None:
    assert retries_of([failed("a", 1), answered("b", 3, **elsewhere, **marked)]) == {}


def test_a_call_that_was_given_the_answer_of_another_belongs_to_it() -> None:
    paid = answered("a", 1, ended_at=at(60))
    calls = [paid, answered("b", 5, attached_to="a", outcome="client_gone"), answered("c", 9, attached_to="a")]
    assert retries_of(calls) == {"b": "a", "c": "b"}


@pytest.mark.parametrize("joined", ["b", "gone"])
def test_a_call_that_claims_to_have_joined_itself_or_nobody_is_linked_to_none(joined: str) -> None:
    assert retries_of([answered("a", 1), answered("b", 3, attached_to=joined)]) == {}


def test_bodies_that_are_no_json_are_compared_by_their_bytes_and_unread_ones_not_at_all() -> None:
    raw = failed("a", 1, request_hash=None, body_hash="sha256:raw")
    assert retries_of([raw, answered("b", 3, request_hash=None, body_hash="sha256:raw")]) == {"b": "a"}
    assert retries_of([failed("a", 1, request_hash=None), answered("b", 3, request_hash=None)]) == {}


def test_calls_of_one_moment_are_taken_by_their_number() -> None:
    calls = [answered("a", 1, seq=2, ended_at=at(1)), failed("b", 1, seq=1, ended_at=at(1))]
    assert retries_of(calls) == {"a": "b"}


names = st.sampled_from("abcdefghij")
moments = st.integers(0, 6).map(at)
any_call = st.builds(
    make_call,
    names,
    st.integers(0, 5),
    session=st.sampled_from(["s", "t"]),
    cell_attempt=st.sampled_from([1, 2]),
    request_hash=st.sampled_from([None, "c1:sha256:x", "c1:sha256:y"]),
    retry_number=st.sampled_from([None, 0, 1, 2, 999_999_999]),
    attached_to=st.none() | names,
    outcome=st.sampled_from([None, *get_args(Outcome)]),
    ended_at=st.none() | moments,
    client_gone_at=st.none() | moments,
    seq=st.none() | st.integers(1, 3),
    writer=st.sampled_from(["host/1/1", "host/2/2"]),
)
any_calls = st.lists(any_call, max_size=10, unique_by=lambda call: call.call_id)


@given(any_calls, st.randoms(use_true_random=False))
def test_the_order_in_which_rows_are_read_changes_no_link(calls: list[Call], chance: Random) -> None:
    shuffled = list(calls)
    chance.shuffle(shuffled)
    assert retries_of(shuffled) == retries_of(calls)


@given(any_calls)
def test_links_are_chains_that_lead_back_in_time_within_a_session_and_an_attempt(calls: list[Call]) -> None:
    by_id = {call.call_id: call for call in calls}
    links = retries_of(calls)
    assert len(set(links.values())) == len(links)
    for after, before in ((by_id[after], by_id[before]) for after, before in links.items()):
        assert (after.session, after.cell_attempt) == (before.session, before.cell_attempt)
        assert (before.started_at, before.seq or 0, before.call_id) < (
            after.started_at, after.seq or 0, after.call_id,
        )  # fmt: skip
        if not after.retry_number and after.attached_to is None:
            assert after.request_hash == before.request_hash is not None
            assert has_failed(before)
            over = given_up_at(before)
            assert before.client_gone_at is not None or over is None or over <= after.started_at


@given(any_calls)
def test_the_links_of_a_session_are_the_same_without_the_others(calls: list[Call]) -> None:
    together = retries_of(calls)
    apart = [retries_of([call for call in calls if call.session == session]) for session in ("s", "t")]
    assert together == apart[0] | apart[1]
