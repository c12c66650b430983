import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_scoring.intervals import (
    holm,
    minimum_detectable_difference,
    pass_at_k,
    pass_hat_k,
    sign_flip,
    t_interval,
    t_quantile,
    wilson,
)


@pytest.mark.parametrize(
    ("passed", "runs", "low", "high"),
    [(0, 3, 0, 0.561), (1, 3, 0.061, 0.792), (2, 3, 0.208, 0.939), (3, 3, 0.439, 1), (5, 5, 0.566, 1)],
)
def test_wilson_gives_the_known_intervals_of_few_runs(passed: int, runs: int, low: float, high: float) -> None:
    interval = wilson(passed, runs, "this task")
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-4)
    assert interval.estimand == "this task"


@pytest.mark.parametrize(("passed", "runs"), [(0, 0), (4, 3), (-1, 3)])
def test_wilson_refuses_what_is_no_proportion(passed: int, runs: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson(passed, runs, "")


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    [
        # Abramowitz and Stegun, table 26.10.
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 3, 3.182),
        (0.975, 4, 2.776),
        (0.975, 9, 2.262),
        (0.975, 19, 2.093),
        (0.975, 30, 2.042),
        (0.95, 5, 2.015),
        (0.995, 10, 3.169),
        (0.5, 7, 0.0),
    ],
)
def test_student_quantiles_are_those_of_the_tables(probability: float, degrees: int, quantile: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(quantile, abs=5e-4)


def test_student_quantiles_approach_the_normal_one() -> None:
    assert t_quantile(0.975, 100_000) == pytest.approx(1.959964 * (1 + (1.959964**2 + 1) / 400_000), abs=1e-7)


@pytest.mark.parametrize(("probability", "degrees"), [(0.4, 3), (1.0, 3), (0.975, 0)])
def test_student_refuses_what_has_no_quantile(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="no Student quantile"):
        t_quantile(probability, degrees)


def test_the_t_interval_is_the_textbook_one() -> None:
    interval = t_interval([0.0, 0.5, 1.0], "tasks like these")
    half = 4.302653 * 0.5 / math.sqrt(3)
    assert (interval.low, interval.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_one_value_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least two"):
        t_interval([1.0], "")


def test_pass_at_k_and_pass_hat_k_on_one_of_three() -> None:
    assert [pass_at_k(3, 1, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [pass_hat_k(3, 2, k) for k in (1, 2, 3)] == pytest.approx([2 / 3, 1 / 3, 0])


@pytest.mark.parametrize(("runs", "passed", "k"), [(3, 1, 0), (3, 1, 4), (3, 4, 1)])
def test_more_runs_than_there_are_is_refused(runs: int, passed: int, k: int) -> None:
    with pytest.raises(ValueError, match="no estimate"):
        pass_at_k(runs, passed, k)
    with pytest.raises(ValueError, match="no estimate"):
        pass_hat_k(runs, passed, k)


def test_the_sign_flip_of_five_equal_gains_is_two_patterns_of_thirty_two() -> None:
    assert sign_flip([1.0, 1.0, 1.0, 1.0, 1.0]) == 2 / 32


def test_ties_and_nothing_at_all_prove_nothing() -> None:
    assert sign_flip([0.0, 0.0]) == 1
    assert sign_flip([]) == 1
    assert sign_flip([1.0, 0.0, -1.0]) == 1


def test_many_differences_of_pass_rates_are_counted_to_the_last_pattern() -> None:
    # Two tails of the binomial: none of forty signs one way, at most two of twenty.
    assert sign_flip([1 / 3] * 40) == 2 / 2**40
    assert sign_flip([0.1] * 18 + [-0.1] * 2) == 2 * (1 + 20 + 190) / 2**20
    # Units of a sixth: as far from zero are only all signs alike, and all but one of the thirds.
    assert sign_flip([1 / 2] * 20 + [1 / 3] * 9 + [-1 / 3]) == 2 * (1 + 10) / 2**30


def test_a_hundred_tasks_take_no_time_and_no_chance() -> None:
    differences = [(n % 7 - 2) / 6 for n in range(100)]
    assert sign_flip(differences, seed=1) == sign_flip(differences[::-1], seed=2)


@given(st.lists(st.builds(lambda passed, runs: passed / runs, st.integers(-5, 5), st.integers(1, 6)), max_size=9))
def test_counting_is_trying_all_patterns(differences: list[float]) -> None:
    observed = abs(math.fsum(differences)) - 1e-9
    patterns = [abs(math.fsum(signed)) for signed in product(*((size, -size) for size in differences))]
    assert sign_flip(differences) == sum(total >= observed for total in patterns) / len(patterns)


def test_many_differences_that_share_no_fraction_are_sampled_with_a_seed() -> None:
    roots = [math.sqrt(n) for n in range(1, 80) if math.isqrt(n) ** 2 != n]
    assert sign_flip(roots) == 1 / 20_001
    mixed = [root * (-1) ** n for n, root in enumerate(roots)]
    assert sign_flip(mixed) == sign_flip(mixed) != sign_flip(mixed, seed=7)
    assert sign_flip(roots[:14]) == 2 / 2**14
    # So close to a fraction, and yet not it: the second and third are not equal.
    assert sign_flip([0.5, -0.25, 0.25 + 1e-8]) == 2 / 4


def test_fractions_that_share_only_a_tiny_one_are_sampled_too() -> None:
    primes = [number for number in range(500, 1000) if all(number % factor for factor in range(2, 32))]
    p_value = sign_flip([1 / prime * (-1) ** prime.bit_count() for prime in primes])
    assert p_value * 20_001 == pytest.approx(round(p_value * 20_001))


def test_holm_adjusts_by_how_many_are_left_and_never_turns_the_order_round() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []


def test_the_minimum_detectable_difference_is_that_of_the_power_analysis() -> None:
    # (1.959964 + 0.841621) * sqrt((1/9 + 1/3) / 100) and the same with three repeats.
    assert minimum_detectable_difference(100, 1) == pytest.approx(0.186772, abs=1e-5)
    assert minimum_detectable_difference(100, 3) == pytest.approx(2.801585 * math.sqrt(2 / 9 / 100), abs=1e-5)
    # Without chance within a task, 969 tasks find three points of a hundred.
    assert minimum_detectable_difference(969, 1, within=0) == pytest.approx(0.03, abs=1e-4)
    assert minimum_detectable_difference(100, 1, pairs=3) == pytest.approx(
        (2.393980 + 0.841621) * math.sqrt(4 / 9 / 100), abs=1e-5
    )


def test_few_tasks_find_no_difference_whatever_it_is() -> None:
    assert minimum_detectable_difference(5, 100) is None
    assert minimum_detectable_difference(6, 100, between=0) is not None
    assert minimum_detectable_difference(5000, 1) is not None
    assert minimum_detectable_difference(6, 100, pairs=2, between=0) is None
    assert minimum_detectable_difference(6, 1, between=1, within=0.25) is None
    with pytest.raises(ValueError, match="no comparison"):
        minimum_detectable_difference(6, 0)


@given(st.integers(1, 60), st.data())
def test_an_interval_holds_its_own_estimate(runs: int, data: st.DataObject) -> None:
    passed = data.draw(st.integers(0, runs))
    interval = wilson(passed, runs, "")
    assert 0 <= interval.low <= passed / runs <= interval.high <= 1
    assert 0 <= pass_hat_k(runs, passed, runs) <= passed / runs <= pass_at_k(runs, passed, runs) <= 1
