"""What is allowed at a moment, by what the provider said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.pace import Entry, Limits
from cellmeter_proxy.ratelimit import Limit


def told(limit: int, remaining: int, reset_s: float, what: str = "requests") -> dict[str, Limit]:
    return {what: Limit(limit=limit, remaining=remaining, reset_ms=reset_s * 1000)}


def begun(limit: int, window_s: float) -> Limits:
    """Limits after the first answer of a provider with this limit, at the time 0.0."""
    limits = Limits()
    limits.answered(limits.enter(10, 0.0), told(limit, limit - 1, window_s), 0.0)
    limits.leave()
    return limits


def let_through(limits: Limits, now: float, most: int = 1000) -> list[Entry]:
    entries: list[Entry] = []
    while len(entries) < most and limits.delay(1, now) == 0:
        entries.append(limits.enter(1, now))
    return entries


def test_a_few_calls_try_the_ground_until_an_answer_tells_more() -> None:
    limits = Limits()
    assert len(let_through(limits, 0.0)) == 4
    assert limits.delay(1, 0.0) is None
    limits.leave()
    assert limits.delay(1, 0.0) == 0


def test_what_a_window_allows_goes_at_once_and_the_rest_when_it_has_passed() -> None:
    limits = begun(20, 60.0)
    assert len(let_through(limits, 1.0)) == 19
    wait = limits.delay(1, 1.0)
    assert wait is not None
    assert 59 <= wait <= 61
    assert len(let_through(limits, 65.0)) == 20


def test_what_others_used_up_is_not_asked_for() -> None:
    limits = begun(20, 60.0)
    (entry,) = let_through(limits, 1.0, most=1)
    limits.answered(entry, told(20, 3, 30.0), 2.0)
    assert len(let_through(limits, 2.0)) == 3
    assert limits.delay(1, 2.0) == 30.0


def test_an_older_report_does_not_undo_a_newer_one() -> None:
    limits = begun(20, 60.0)
    older, newer = let_through(limits, 1.0, most=2)
    limits.answered(newer, told(20, 0, 50.0), 2.0)
    limits.answered(older, told(20, 18, 50.0), 3.0)
    assert let_through(limits, 3.0) == []


def test_tokens_are_counted_too() -> None:
    limits = Limits()
    limits.answered(limits.enter(10, 0.0), told(1000, 900, 60.0, "tokens"), 0.0)
    assert limits.delay(900, 1.0) == 0
    wait = limits.delay(950, 1.0)
    assert wait is not None
    assert 58 < wait < 62
    assert limits.delay(10**9, 120.0) == 0


def test_a_refusal_cuts_what_is_allowed_and_answers_add_it_back_up_to_what_is_stated() -> None:
    limits = begun(20, 60.0)
    entries = let_through(limits, 1.0, most=10)
    limits.refused(entries[0], told(20, 0, 5.0), 5.0, 2.0)
    limits.refused(entries[1], told(20, 0, 5.0), 5.0, 2.0)
    assert limits.requests.allowed == pytest.approx(18)
    assert limits.delay(1, 2.0) == 5.0
    for entry in entries[2:]:
        limits.answered(entry, told(20, 0, 5.0), 3.0)
    assert limits.requests.allowed == 20


def test_a_provider_that_states_nothing_is_held_to_what_it_takes_at_once() -> None:
    limits = Limits()
    entries = let_through(limits, 0.0)
    for entry in entries:
        limits.answered(entry, {}, 0.5)
        limits.leave()
    entries = let_through(limits, 1.0)
    assert len(entries) == 8
    limits.refused(entries[0], {}, 1.0, 1.0)
    assert limits.at_once == 4
    assert limits.requests.allowed is None
    limits.answered(entries[1], {}, 2.0)
    assert limits.at_once == 4.25


def test_a_refusal_with_something_left_is_about_calls_at_once() -> None:
    limits = begun(20, 60.0)
    entries = let_through(limits, 1.0, most=10)
    limits.refused(entries[0], told(20, 10, 60.0), 0.0, 1.0)
    assert limits.at_once == 5


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.floats(0, 5)), max_size=60))
def test_something_is_always_allowed_in_the_end_and_never_more_than_stated(
    news: list[tuple[bool, int, float]],
) -> None:
    limits, now = Limits(), 0.0
    for refused, remaining, passed in news:
        now += passed
        if limits.delay(1, now) != 0:
            continue
        entry = limits.enter(1, now)
        if refused:
            limits.refused(entry, told(30, remaining, 10.0), 1.0, now)
        else:
            limits.answered(entry, told(30, remaining, 10.0), now)
        limits.leave()
        assert 1 <= (limits.requests.allowed or 0) <= 30
        assert limits.at_once >= 1
    assert limits.delay(1, now + 100) == 0
