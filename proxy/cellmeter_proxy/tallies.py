"""Counts in plain numbers, shown by Prometheus' library, whose own counters take a lock each time: a dozen per call.

Invariant: one thread counts and shows.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]
_INFINITE: Final = "+Inf"


class Counts(Collector):
    """A counter: how much of it there was, by its labels."""

    def __init__(self, registry: CollectorRegistry, name: str, documentation: str, *labels: str) -> None:
        self.of: defaultdict[Labels, int] = defaultdict(int)
        self._described = (name, documentation)
        self._labels = labels
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(*self._described, labels=self._labels)
        for labels, count in self.of.items():
            family.add_metric(labels, count)
        yield family


class Distribution:
    """How many values there were up to each of some bounds, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Labels) -> None:
        """Show it as one series of a family; where there are others, only once it has counted something."""
        if labels and not any(self._counts):
            return
        names = [*map(floatToGoString, self._bounds), _INFINITE]
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class Distributions(Collector):
    """A histogram: a distribution for each of its labels."""

    def __init__(
        self, registry: CollectorRegistry, name: str, documentation: str, bounds: Sequence[float], *labels: str
    ) -> None:
        self._of: dict[Labels, Distribution] = {}
        self._described = (name, documentation)
        self._bounds = bounds
        self._labels = labels
        registry.register(self)

    def of(self, *labels: str) -> Distribution:
        """The distribution with these labels."""
        found = self._of.get(labels)
        if found is None:
            found = self._of[labels] = Distribution(self._bounds)
        return found

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(*self._described, labels=self._labels)
        for labels, distribution in self._of.items():
            distribution.add_to(family, labels)
        yield family
