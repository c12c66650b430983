import msgspec
import pytest

from cellmeter_proxy.record import Span
from cellmeter_scoring.axes.latency import score_latency, score_latency_as_published
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.score import Score, Unscored
from cellmeter_scoring.testing import CELL_ID, START, at, make_attempt, make_call, make_cell, make_failed_call


def container(duration_ms: float) -> Span:
    return Span(
        span_id="s",
        cell_id=CELL_ID,
        cell_attempt=1,
        kind="container",
        name="aider:launch",
        started_at=START,
        duration_ms=duration_ms,
    )


@pytest.mark.parametrize(
    ("microseconds", "published_ms"),
    [(407_680_673, 407680.673), (36_678_769, 36678.769), (19_005_186, 19005.185999999998)],
)
def test_the_wall_clock_is_the_published_one_to_its_last_digit(microseconds: int, published_ms: float) -> None:
    evidence = CellEvidence(cell=make_cell(ended_at=START + microseconds), spans=[container(17069.019)])
    result = score_latency_as_published(evidence)
    assert isinstance(result, Score)
    assert result.value == published_ms
    assert msgspec.to_builtins(result.detail) == {
        "wall_clock_ms": published_ms,
        "container_active_ms": 17069.019,
        "model_call_ms": 0,
    }


def test_calls_made_at_once_count_once() -> None:
    calls = [make_call("a", 1, ended_at=at(4)), make_call("b", 2, ended_at=at(5)), make_call("c", 10)]
    assert score_latency(CellEvidence(cell=make_cell(), calls=calls)).detail.model_call_ms == 5000


def test_a_call_without_an_end_leaves_the_model_time_unmeasured() -> None:
    calls = [make_call("a", 1), make_call("b", 3, ended_at=None, outcome="interrupted")]
    assert score_latency(CellEvidence(cell=make_cell(), calls=calls)).detail.model_call_ms is None


def test_the_times_of_several_containers_add_up() -> None:
    evidence = CellEvidence(cell=make_cell(), spans=[container(100.0), container(250.0)])
    assert score_latency(evidence).detail.container_active_ms == 350


def test_no_container_span_is_no_container_time() -> None:
    assert score_latency(CellEvidence(cell=make_cell())).detail.container_active_ms is None


def test_what_the_proxy_waited_and_queued_is_taken_out_and_shown() -> None:
    calls = [make_call("a", 1, queue_ms=500.0, ended_at=at(6)), make_call("b", 2, ended_at=at(5))]
    attempts = [
        make_attempt("a", 1, 1.5, 429),
        make_attempt("a", 2, 3, 200, waited_ms=1400.0),
        make_attempt("b", 1, 2, 429),
        make_attempt("b", 2, 3, 200, waited_ms=900.0),
    ]
    result = score_latency(CellEvidence(cell=make_cell(), calls=calls, attempts=attempts))
    assert isinstance(result, Score)
    assert result.detail.throttled_ms == pytest.approx(2000)
    assert result.detail.wall_clock_ms == 20_000
    assert result.value == pytest.approx(18_000)


def test_the_agents_pause_before_the_same_request_again_is_throttling() -> None:
    same = "c1:sha256:same"
    calls = [
        make_failed_call("a", 1, 429, request_hash=same),
        make_call("b", 9, request_hash=same),
        make_failed_call("c", 12, 429, ended_at=at(12.5)),
        make_call("d", 18),
    ]
    detail = score_latency(CellEvidence(cell=make_cell(), calls=calls)).detail
    assert detail.throttled_ms == pytest.approx(8500)


def test_the_wait_after_a_failure_of_the_provider_stays_in_the_latency() -> None:
    same = "c1:sha256:same"
    calls = [
        make_failed_call("a", 1, 503, request_hash=same),
        make_failed_call("b", 5, 429, request_hash=same, ended_at=at(5.5)),
        make_call("c", 8, request_hash=same, ended_at=at(12)),
    ]
    attempts = [make_attempt("c", 1, 8, 500), make_attempt("c", 2, 11, 200, waited_ms=2900.0)]
    result = score_latency(CellEvidence(cell=make_cell(), calls=calls, attempts=attempts))
    assert isinstance(result, Score)
    assert (result.value, result.detail.throttled_ms) == (17_000, 3000)


def test_without_throttling_the_whole_wall_clock_counts() -> None:
    result = score_latency(CellEvidence(cell=make_cell(), calls=[make_call("a")]))
    assert isinstance(result, Score)
    assert (result.value, result.detail.throttled_ms) == (20_000, 0)


def test_a_cell_without_an_end_has_no_value() -> None:
    evidence = CellEvidence(cell=make_cell(ended_at=None))
    assert isinstance(score_latency(evidence), Unscored)
    assert isinstance(score_latency_as_published(evidence), Unscored)
