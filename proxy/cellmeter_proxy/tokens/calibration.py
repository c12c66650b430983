"""What the calls that reported their usage teach about counting the ones that did not.

``billed ≈ offset + ratio · counted``, for each upstream host, model, and whether tools were given: a chat template
adds the same tokens to each call, and a tokenizer stays in proportion to another on the same kind of text. Only the
latest ``KEPT`` calls of a key count, so that a provider's silent change of either is followed.

Everything here is a value; a calibration can be written to JSON with msgspec and read back.
"""

import statistics
from itertools import combinations
from typing import Final, Literal, Self

import msgspec

KEPT: Final = 48
_POINTS_FOR_RATIO: Final = 8
_SPREAD_FOR_RATIO: Final = 2.0
_RATIOS: Final = (0.25, 4.0)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """The calls that share an offset and a ratio."""

    host: str
    model: str
    tools: bool
    part: Literal["prompt", "completion"] = "prompt"


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """``billed ≈ offset + ratio · counted``."""

    ratio: float
    offset: float
    calls: int
    """How many calls it was learned from."""
    error: float
    """The median distance of those calls from the line, in tokens."""

    def apply(self, counted: int) -> int:
        """The tokens that are likely to be billed for a count."""
        return max(0, round(self.offset + self.ratio * counted))


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The latest calls of one key, oldest first."""

    key: Key
    points: list[tuple[int, int]]
    """Tokens counted here, tokens billed."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """All that was learned."""

    series: list[Series] = []

    def observe(self, key: Key, *, counted: int, billed: int) -> Self:
        """The same calibration with one more call that reported its usage.

        Args:
            key: what the call shares with others.
            counted: the count made here, before any offset or ratio .
            billed: what the provider reported; for completions less the reasoning that was not shown.

        """
        known = next((one.points for one in self.series if one.key == key), [])
        latest = Series(key=key, points=[*known, (counted, billed)][-KEPT:])
        return type(self)(series=[*(one for one in self.series if one.key != key), latest])

    def fit(self, key: Key, *, ratio: float) -> Fit | None:
        """The line through the calls of a key, or None where there was none.

        Args:
            key: what the call shares with others.
            ratio: the ratio to assume while too few calls, or too similar ones, tell it.

        """
        points = next((one.points for one in self.series if one.key == key), [])
        return fit(points, ratio=ratio) if points else None


def fit(points: list[tuple[int, int]], *, ratio: float) -> Fit:
    """The Theil-Sen line through some points: the median of all slopes, then the median of all offsets.

    It bears up to 29 % of wild points (Theil 1950, Sen 1968). With fewer than 8 points, or where the largest count
    is not twice the smallest, the slope is ``ratio`` and only the offset is learned.

    Raises:
        statistics.StatisticsError: there is no point.

    """
    if _tells_ratio(points):
        slopes = [(q[1] - p[1]) / (q[0] - p[0]) for p, q in combinations(points, 2) if p[0] != q[0]]
        ratio = min(max(statistics.median(slopes), _RATIOS[0]), _RATIOS[1])
    offset = statistics.median(billed - ratio * counted for counted, billed in points)
    error = statistics.median(abs(billed - ratio * counted - offset) for counted, billed in points)
    return Fit(ratio=ratio, offset=offset, calls=len(points), error=error)


def _tells_ratio(points: list[tuple[int, int]]) -> bool:
    counts = [counted for counted, _ in points]
    return len(points) >= _POINTS_FOR_RATIO and max(counts) >= _SPREAD_FOR_RATIO * max(1, min(counts))
