from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.record import Phase
from cellmeter_scoring.calls import Trouble
from cellmeter_scoring.testing import START, at, make_attempt, make_call, make_cell, make_failed_call
from cellmeter_scoring.throttling import Interval, held_up_us, run_of, throttled_us, union_us


def test_overlapping_and_touching_intervals_are_counted_once() -> None:
    assert union_us([(0, 10), (5, 15), (15, 20), (30, 31), (40, 35)]) == 21


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8))
def test_a_union_is_the_number_of_covered_moments(intervals: list[Interval]) -> None:
    assert union_us(intervals) == len({moment for start, end in intervals for moment in range(start, end)})


def test_waiting_outside_the_agents_run_does_not_count() -> None:
    run = Phase(name="run", started_at=at(2), ended_at=at(10))
    attempts = [make_attempt("a", 1, 0.9, 429), make_attempt("a", 2, 4, 200, waited_ms=3000.0)]
    assert throttled_us(make_cell(phases=[run]), [make_call("a")], attempts) == 2_000_000


def test_only_an_agent_that_ran_into_its_timeout_slept_after_its_last_refusal() -> None:
    refused = [make_failed_call("a", 5, 429)]
    assert throttled_us(make_cell(timed_out=True), refused, []) == 15_000_000
    assert throttled_us(make_cell(), refused, []) == 1_000_000


def test_an_agent_that_made_another_call_after_its_refusal_did_not_sleep_until_its_timeout() -> None:
    calls = [make_failed_call("a", 5, 429), make_call("b", 8)]
    assert throttled_us(make_cell(timed_out=True), calls, []) == 1_000_000


def test_two_requests_without_a_hash_are_not_taken_for_the_same() -> None:
    calls = [make_failed_call("a", 1, 429, request_hash=None), make_call("b", 9, request_hash=None)]
    assert throttled_us(make_cell(), calls, []) == 1_000_000


def test_a_wait_after_a_failure_of_the_provider_is_no_throttling() -> None:
    attempts = [
        make_attempt("a", 1, 1, 503, latency_ms=500.0),
        make_attempt("a", 2, 4, 429, waited_ms=2500.0, latency_ms=1000.0),
        make_attempt("a", 3, 7, 200, waited_ms=2000.0),
    ]
    cell, calls = make_cell(), [make_call("a", 1, ended_at=at(8)), make_call("b", 10, queue_ms=1000.0)]
    assert throttled_us(cell, calls, attempts) == 4_000_000
    assert held_up_us(cell, calls, attempts, {Trouble.PROVIDER}) == 3_000_000
    assert held_up_us(cell, calls, attempts, set(Trouble)) == 7_000_000


def test_a_wait_after_a_try_that_was_not_recorded_is_nobodys() -> None:
    assert throttled_us(make_cell(), [make_call("a")], [make_attempt("a", 2, 4, 200, waited_ms=3000.0)]) == 0


def test_the_agents_pause_after_a_failure_of_the_provider_is_no_throttling() -> None:
    calls = [make_failed_call("a", 1, 503, request_hash="c1:x"), make_call("b", 9, request_hash="c1:x")]
    assert throttled_us(make_cell(), calls, []) == 0
    assert held_up_us(make_cell(), calls, [], {Trouble.PROVIDER}) == 8_000_000


def test_a_request_that_was_made_again_elsewhere_did_not_end_the_pause() -> None:
    calls = [
        make_failed_call("a", 1, 429, request_hash="c1:x"),
        make_call("b", 9, request_hash="c1:x", client_session="another agent in the same cell"),
    ]
    assert throttled_us(make_cell(), calls, []) == 1_000_000


def test_a_client_that_left_while_the_proxy_waited_was_throttled_until_it_came_back() -> None:
    left = make_call("a", 1, status=None, outcome="client_gone", client_gone_at=at(6), ended_at=at(6))
    tries = [make_attempt("a", 1, 1.5, 429)]
    assert throttled_us(make_cell(), [left, make_call("b", 6.5, request_hash=left.request_hash)], tries) == 5_000_000


def test_an_error_in_a_stream_that_is_a_rate_limit_is_throttling() -> None:
    cut = make_call("a", 1, outcome="stream_error", error="rate_limit_exceeded: try again in 7 s", request_hash="c1:x")
    assert throttled_us(make_cell(), [cut, make_call("b", 9, request_hash="c1:x")], []) == 8_000_000


def test_a_run_without_an_end_has_no_interval() -> None:
    assert run_of(make_cell(ended_at=None)) is None
    assert run_of(make_cell()) == (START, at(20))
    assert throttled_us(make_cell(ended_at=None), [make_failed_call("a", 5, 429)], []) == 0
