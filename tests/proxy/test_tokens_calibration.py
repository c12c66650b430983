import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_proxy.tokens.calibration import KEPT, Calibration, Fit, Key, fit

KEY = Key(host="api.groq.com", model="gpt-oss-120b", tools=False)


def test_one_call_teaches_the_offset_and_nothing_else() -> None:
    assert fit([(100, 164)], ratio=1.0) == Fit(ratio=1.0, offset=64.0, calls=1, error=0.0)


def test_calls_of_one_size_do_not_teach_a_ratio() -> None:
    learned = fit([(100 + n, 164 + 2 * n) for n in range(20)], ratio=1.1)

    assert learned.ratio == 1.1


def test_many_calls_of_many_sizes_teach_ratio_and_offset() -> None:
    learned = fit([(n, round(500 + 1.14 * n)) for n in range(100, 5_000, 300)], ratio=1.0)

    assert learned.ratio == pytest.approx(1.14, abs=0.001)
    assert learned.offset == pytest.approx(500, abs=2)
    assert learned.apply(10_000) == pytest.approx(11_900, abs=15)
    assert learned.error <= 1


def test_a_quarter_of_wild_calls_changes_little() -> None:
    chance = random.Random(7)
    points = [(n, round(60 + n)) for n in range(100, 4_000, 100)]
    wild = [(n, chance.randrange(100_000)) for n, _ in points[::5]]

    learned = fit(points + wild, ratio=1.0)

    assert learned.ratio == pytest.approx(1.0, abs=0.1)
    assert abs(learned.apply(2_000) - 2_060) < 100


def test_a_calibration_learns_each_key_apart_and_is_never_changed_in_place() -> None:
    empty = Calibration()
    with_tools = msgspec.structs.replace(KEY, tools=True)

    learned = empty.observe(KEY, counted=100, billed=160).observe(with_tools, counted=100, billed=700)

    assert empty == Calibration()
    assert learned.fit(KEY, ratio=1.0) == Fit(ratio=1.0, offset=60.0, calls=1, error=0.0)
    assert learned.fit(with_tools, ratio=1.0) == Fit(ratio=1.0, offset=600.0, calls=1, error=0.0)
    assert learned.fit(msgspec.structs.replace(KEY, part="completion"), ratio=1.0) is None


def test_only_the_latest_calls_count_so_that_a_change_is_followed() -> None:
    learned = Calibration()
    for _ in range(KEPT):
        learned = learned.observe(KEY, counted=100, billed=160)
    for _ in range(KEPT):
        learned = learned.observe(KEY, counted=100, billed=130)

    assert learned.fit(KEY, ratio=1.0) == Fit(ratio=1.0, offset=30.0, calls=KEPT, error=0.0)


def test_a_calibration_survives_json() -> None:
    learned = Calibration().observe(KEY, counted=100, billed=160)

    assert msgspec.json.decode(msgspec.json.encode(learned), type=Calibration) == learned


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), min_size=1, max_size=KEPT), st.floats(0.5, 2))
def test_any_points_give_a_line_that_bills_no_negative_tokens(points: list[tuple[int, int]], ratio: float) -> None:
    learned = fit(points, ratio=ratio)

    assert 0.25 <= learned.ratio <= 4
    assert learned.error >= 0
    assert learned.apply(points[0][0]) >= 0
