"""Which tries are followed by another, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.absorb import Patience, Trial, is_passing, may_repeat, wait_s

PATIENCE = Patience(budget_s=600, first_s=0.5, ceiling_s=60)


@pytest.mark.parametrize("status", [None, 408, 409, 429, 500, 502, 503, 504, 529, 599])
def test_what_may_pass_is_tried_again(status: int | None) -> None:
    assert is_passing(Trial(status))


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 402, 403, 404, 413, 422, 425, 499])
def test_what_will_not_pass_is_not(status: int) -> None:
    assert not is_passing(Trial(status))


def test_the_provider_may_forbid_another_try() -> None:
    assert not is_passing(Trial(503, headers={"x-should-retry": " False "}))
    assert is_passing(Trial(503, headers={"x-should-retry": "true"}))


def test_a_spent_quota_does_not_come_back() -> None:
    assert not is_passing(Trial(429, body=b'{"error":{"code":"insufficient_quota"}}'))
    assert is_passing(Trial(429, body=b'{"error":{"code":"rate_limit_exceeded"}}'))


@pytest.mark.parametrize(
    ("method", "dialect", "repeated"),
    [
        ("POST", "chat.completions", True),
        ("POST", "messages", True),
        ("GET", "models", True),
        ("GET", "unknown", True),
        ("POST", "unknown", False),
        ("DELETE", "unknown", False),
    ],
)
def test_what_is_not_known_is_not_done_twice(method: str, dialect: str, repeated: bool) -> None:
    assert may_repeat(method, dialect) is repeated  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("tries", "least", "most"), [(1, 0.25, 0.5), (2, 0.5, 1), (5, 4, 8), (20, 30, 60)])
def test_the_back_off_doubles_to_a_ceiling_and_half_of_it_is_drawn(tries: int, least: float, most: float) -> None:
    assert wait_s(Trial(503), tries, 600, 0.0, PATIENCE) == least
    assert wait_s(Trial(503), tries, 600, 1.0, PATIENCE) == most


def test_a_retry_after_is_honoured_and_up_to_a_tenth_more() -> None:
    assert wait_s(Trial(429, 20_000), 1, 600, 0.0, PATIENCE) == 20
    assert wait_s(Trial(429, 20_000), 1, 600, 1.0, PATIENCE) == 22
    assert wait_s(Trial(429, 20_000), 1, 20.5, 1.0, PATIENCE) == 20.5


def test_a_retry_after_beyond_the_budget_gives_up_at_once() -> None:
    assert wait_s(Trial(429, 20_001), 1, 20, 0.0, PATIENCE) is None
    assert wait_s(Trial(503), 1, 0.2, 0.0, PATIENCE) is None


def test_a_retry_after_of_nothing_is_no_endless_loop() -> None:
    assert wait_s(Trial(429, 0), 1, 600, 0.0, PATIENCE) == 0
    assert wait_s(Trial(429, 0), 3, 600, 0.0, PATIENCE) == 1


@given(
    st.none() | st.integers(100, 999),
    st.none() | st.floats(0, 1e9),
    st.integers(1, 10_000),
    st.floats(0, 600),
    st.floats(0, 1, exclude_max=True),
)
def test_no_wait_is_negative_or_longer_than_the_budget_or_shorter_than_asked(
    status: int | None, retry_after_ms: float | None, tries: int, left_s: float, draw: float
) -> None:
    wait = wait_s(Trial(status, retry_after_ms), tries, left_s, draw, PATIENCE)
    if wait is not None:
        assert (retry_after_ms or 0) / 1000 <= wait <= left_s
