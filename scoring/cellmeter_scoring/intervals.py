"""Intervals and tests that hold for the few repeats an agent benchmark has.

Invariant: every function is exact or seeded; the same input gives the same output on every machine, with or without
scipy. That is why Student's quantile is computed here, from the finite series that its distribution has for a whole
number of degrees of freedom: the only ones that a mean over tasks needs.
"""

import math
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from statistics import NormalDist, fmean, stdev
from typing import Final

import msgspec

_EXACT_UP_TO: Final = 14
"""Differences up to which all sign patterns are tried: 2 to this power is a moment's work."""
_DRAWS: Final = 20_000
_MAX_DENOMINATOR: Final = 1000
"""Of a difference of two pass rates: the product of their repeats, at most."""
_ROUNDING: Final = 1e-12
_MAX_BITS: Final = 20_000_000
"""A number of so many bits is shifted and added in a millisecond."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A range that holds the true value in ``level`` of such samples, and what that value is."""

    low: float
    high: float
    level: float
    method: str
    estimand: str
    """What the interval is about, in words."""


def wilson(passed: float, runs: int, estimand: str, level: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion, which keeps its level at three runs.

    Source: Wilson 1927; https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval. ``passed`` may be the
    sum of shares, such as of task means.

    Raises:
        ValueError: there are no runs, or more passes than runs.

    """
    if not 0 <= passed <= runs or runs == 0:
        raise ValueError(f"{passed} of {runs} runs is no proportion")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = passed / runs
    middle = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z / (1 + z * z / runs) * math.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs))
    # At the edges the formula gives 0 and 1 but for rounding.
    low = 0.0 if passed == 0 else middle - half
    high = 1.0 if passed == runs else middle + half
    return Interval(low=low, high=high, level=level, method="Wilson", estimand=estimand)


def t_interval(values: Sequence[float], estimand: str, level: float = 0.95) -> Interval:
    """Student's interval for the mean of independent values, such as one mean for each task.

    Raises:
        ValueError: there are fewer than two values.

    """
    if len(values) < 2:
        raise ValueError("an interval for a mean needs at least two values")
    mean = fmean(values)
    half = t_quantile((1 + level) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(low=mean - half, high=mean + half, level=level, method="Student t", estimand=estimand)


def t_quantile(probability: float, degrees: int) -> float:
    """The value that a Student variable stays below with a probability of at least one half.

    Raises:
        ValueError: the probability is not in [0.5, 1), or there is no degree of freedom.

    """
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ValueError(f"no Student quantile for probability {probability} with {degrees} degrees of freedom")
    central = 2 * probability - 1
    low, high = 0.0, 1.0
    while _t_central(high, degrees) < central:
        low, high = high, 2 * high
    while high - low > 1e-12 * (1 + high):
        middle = (low + high) / 2
        if _t_central(middle, degrees) < central:
            low = middle
        else:
            high = middle
    return high


def _t_central(t: float, degrees: int) -> float:
    """P(|T| < t): Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    theta = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    if degrees % 2:
        series = sum(_products(cosine, range(2, degrees - 1, 2), cosine))
        return 2 / math.pi * (theta + sine * series) if degrees > 1 else 2 * theta / math.pi
    return sine * sum(_products(1.0, range(1, degrees - 1, 2), cosine))


def _products(first: float, numerators: range, cosine: float) -> Iterator[float]:
    """``first``, and each term from the one before: times n/(n+1) and the square of the cosine."""
    term = first
    yield term
    for n in numerators:
        term *= n / (n + 1) * cosine * cosine
        yield term


def pass_at_k(runs: int, passed: int, k: int) -> float:
    """The chance that at least one of ``k`` runs passes, estimated without bias.

    Source: Chen et al. 2021, https://arxiv.org/abs/2107.03374.

    Raises:
        ValueError: ``k`` is not between 1 and the number of runs.

    """
    _check_k(runs, passed, k)
    return 1 - math.comb(runs - passed, k) / math.comb(runs, k)


def pass_hat_k(runs: int, passed: int, k: int) -> float:
    """The chance that all of ``k`` runs pass, estimated without bias.

    Source: Yao et al. 2024 (tau-bench), https://arxiv.org/abs/2406.12045.

    Raises:
        ValueError: ``k`` is not between 1 and the number of runs.

    """
    _check_k(runs, passed, k)
    return math.comb(passed, k) / math.comb(runs, k)


def _check_k(runs: int, passed: int, k: int) -> None:
    if not 1 <= k <= runs or not 0 <= passed <= runs:
        raise ValueError(f"no estimate for {k} of {runs} runs with {passed} passed")


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of paired differences under chance signs.

    Differences of pass rates over a few repeats are multiples of one small fraction: for such ones, however many, and
    for up to fourteen of any kind, every sign pattern counts. Of more, 20,000 patterns are drawn with ``seed``, and the
    observed one counts among them.
    """
    moving = [abs(difference) for difference in differences if difference]
    units = _in_units(differences)
    if units is not None:
        return _share_as_extreme(units)
    observed = abs(math.fsum(differences)) * (1 - 1e-12)
    if len(moving) <= _EXACT_UP_TO:
        patterns = [abs(math.fsum(signed)) for signed in product(*((size, -size) for size in moving))]
        return sum(total >= observed for total in patterns) / len(patterns)
    draw = random.Random(seed)  # noqa: S311 - statistics, not secrets
    extreme = sum(
        abs(math.fsum(size if draw.random() < 0.5 else -size for size in moving)) >= observed for _ in range(_DRAWS)
    )
    return (extreme + 1) / (_DRAWS + 1)


def _in_units(differences: Sequence[float]) -> list[int] | None:
    """The differences as multiples of a fraction that they share; None where there is none to count with."""
    moving = [Fraction(difference) for difference in differences if difference]
    near = [value.limit_denominator(_MAX_DENOMINATOR) for value in moving]
    if any(abs(fraction - value) > _ROUNDING for fraction, value in zip(near, moving, strict=True)):
        return None
    common = math.lcm(*(fraction.denominator for fraction in near))
    units = [int(fraction * common) for fraction in near]
    return units if sum(map(abs, units)) * (len(units) + 2) <= _MAX_BITS else None


def _share_as_extreme(units: Sequence[int]) -> float:
    """The share of all sign patterns whose sum is as far from zero as the observed one.

    A pattern is the set of units that count as negative. How many sets have the sum k is the coefficient of x^k in the
    product of (1 + x^unit), which is computed as one number with x a power of two too large for any carry.
    """
    sizes, observed = [abs(unit) for unit in units], abs(sum(units))
    width = len(sizes) + 2
    sets = 1
    for size in sizes:
        sets += sets << size * width
    reach = (sum(sizes) - observed) // 2
    tail = sets & (1 << width * (reach + 1)) - 1
    # A number and the sum of its digits leave the same remainder by the base less one, which is more than the sum.
    counted = tail % ((1 << width) - 1)
    return min(2 * counted / (1 << len(sizes)), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value adjusted for how many were looked at, in the order given.

    Source: Holm 1979; https://en.wikipedia.org/wiki/Holm%E2%80%93Bonferroni_method. To call those below a level
    significant errs in any of them with at most that probability.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def minimum_detectable_difference(
    tasks: int,
    repeats: int,
    *,
    pairs: int = 1,
    between: float = 1 / 9,
    within: float = 1 / 6,
    level: float = 0.05,
    power: float = 0.8,
) -> float | None:
    """The smallest difference of two pass rates that a paired comparison over tasks like these is likely to find.

    ``(z(1 - level/2/pairs) + z(power)) * sqrt((between + 2*within/repeats) / tasks)``. Source: Miller 2024, the
    power analysis of https://arxiv.org/abs/2411.00640, with the level divided among the pairs.

    Args:
        tasks: how many both agents run.
        repeats: runs of each task by each agent.
        pairs: how many pairs of agents are compared.
        between: variance over tasks of the true difference; not known before a sweep.
        within: mean variance of one run of a task; 1/6 where every pass rate from 0 to 1 is as likely as another.
        level: chance of finding a difference where there is none, in any pair.
        power: chance of finding one that is there.

    Returns:
        The difference, from 0 to 1; None where none can be found: signs flipped over so few tasks cannot give a
        p-value below the level, or the difference would be more than 1.

    Raises:
        ValueError: there are no tasks, repeats or pairs.

    """
    if min(tasks, repeats, pairs) < 1:
        raise ValueError(f"no comparison of {pairs} pairs over {tasks} tasks with {repeats} repeats")
    if 2 * pairs / 2**tasks >= level:
        return None
    normal = NormalDist()
    reach = normal.inv_cdf(1 - level / 2 / pairs) + normal.inv_cdf(power)
    difference = reach * math.sqrt((between + 2 * within / repeats) / tasks)
    return difference if difference <= 1 else None
