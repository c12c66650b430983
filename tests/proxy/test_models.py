"""Whether models share one limit follows from what answers say, and from nothing that one limit could say as well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.models import Models
from cellmeter_proxy.ratelimit import Limit


def told(limit: int | None, remaining: int | None, reset_s: float | None = 60.0) -> dict[str, Limit]:
    return {"requests": Limit(limit=limit, remaining=remaining, reset_ms=None if reset_s is None else reset_s * 1000)}


def test_different_ceilings_are_of_different_limits() -> None:
    models = Models()
    assert not models.note("a", told(10, 9), 0, 0.0)
    assert not models.note("a", told(20, 9), 0, 1.0)
    assert models.note("b", told(10, 9), 0, 2.0)
    assert models.apart
    assert not models.note("c", told(5, 1), 0, 3.0)


def test_ceilings_of_one_kind_are_compared_with_each_other_only() -> None:
    models = Models()
    models.note("a", {"requests": Limit(limit=10), "input-tokens": Limit(limit=1000)}, 0, 0.0)
    assert not models.note("b", {"tokens": Limit(limit=5000), "requests": Limit(limit=10)}, 0, 0.0)
    assert models.note("c", {"input-tokens": Limit(limit=2000)}, 0, 0.0)


@pytest.mark.parametrize(
    ("remaining", "under_way", "passed_s", "apart"),
    [
        (99, 0, 1.0, True),
        (12, 0, 1.0, False),  # Ten were left, and one or two have come back since.
        (13, 0, 1.0, True),
        (16, 4, 1.0, False),  # Four were under way, and may have been counted in another order.
        (56, 0, 30.0, False),
        (57, 0, 30.0, True),
        (100, 0, 60.0, False),
        (100, 0, 600.0, False),
        (0, 0, 1.0, False),
    ],
)
def test_more_left_than_one_limit_can_have_is_of_another(
    remaining: int, under_way: int, passed_s: float, apart: bool
) -> None:
    models = Models()
    models.note("a", told(100, 10), 0, 5.0)
    assert models.note("b", told(100, remaining), under_way, 5.0 + passed_s) == apart


def test_nothing_is_concluded_where_nothing_is_stated() -> None:
    models = Models()
    models.note("a", told(100, 10, None), 0, 0.0)
    models.note("b", {}, 0, 0.0)
    assert not models.note("c", told(100, 99), 0, 1.0)
    assert not models.note("d", told(None, 99), 0, 1.0)


@given(st.integers(1, 50), st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20)), max_size=60))
def test_one_bucket_that_fills_up_little_by_little_never_looks_like_several(
    limit: int, calls: list[tuple[str, float]]
) -> None:
    models, now, used = Models(), 0.0, 0.0
    for model, passed in calls:
        now += passed
        used = max(used - passed * limit / 60, 0.0)
        if used + 1 > limit:
            continue
        used += 1
        models.note(model, told(limit, int(limit - used), used * 60 / limit), 0, now)
        assert not models.apart


@given(st.integers(1, 50), st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20)), max_size=60))
def test_one_window_that_slides_or_starts_anew_never_looks_like_several(
    limit: int, calls: list[tuple[str, float]]
) -> None:
    sliding, fixed, now, times = Models(), Models(), 0.0, list[float]()
    for model, passed in calls:
        now += passed
        times = [at for at in times if at > now - 60]
        if len(times) < limit:
            times.append(now)
        sliding.note(model, told(limit, limit - len(times), times[0] + 60 - now), 0, now)
        started = now // 60 * 60
        used = min(sum(at >= started for at in times), limit)
        fixed.note(model, told(limit, limit - used, started + 60 - now), 0, now)
        assert [sliding.apart, fixed.apart] == [False, False]
