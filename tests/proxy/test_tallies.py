"""Plain counts are shown as Prometheus' own library shows what it has counted itself."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from cellmeter_proxy.tallies import Counts, Distributions

BOUNDS = (0.005, 0.1, 1.0, 64.0)
VALUES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(BOUNDS) | st.floats(0, 1000)), max_size=8)


def shown(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(VALUES)
def test_a_distribution_is_the_histogram_of_the_library(values: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    one = Distributions(ours, "seconds", "How long", BOUNDS, "kind")
    other = Histogram("seconds", "How long", ["kind"], buckets=BOUNDS, registry=theirs)
    whole = Distributions(ours, "all", "All", BOUNDS).of()
    all_of_it = Histogram("all", "All", buckets=BOUNDS, registry=theirs)
    for kind, value in values:
        one.of(kind).observe(value)
        other.labels(kind).observe(value)
        whole.observe(value)
        all_of_it.observe(value)
    assert shown(ours) == shown(theirs)


@given(VALUES)
def test_a_count_is_the_counter_of_the_library(values: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    one, other = Counts(ours, "calls", "Calls", "kind"), Counter("calls", "Calls", ["kind"], registry=theirs)
    for kind, value in values:
        one.of[kind,] += int(value)
        other.labels(kind).inc(int(value))
    assert shown(ours) == shown(theirs)


def test_a_series_that_has_counted_nothing_is_shown_where_it_is_the_only_one() -> None:
    registry = CollectorRegistry()
    Distributions(registry, "one", "One", BOUNDS, "kind").of("a")
    Distributions(registry, "other", "Other", BOUNDS).of()
    lines = shown(registry)
    assert "other_count 0.0" in lines
    assert not any(line.startswith("one_") for line in lines)
