"""``latency``: how long the cell took, and how much of it was the container's and the model's.

``model_call_ms`` is the time in which at least one model call was in flight: calls made at once count once, so it is
never more than the run. ``throttled_ms`` is the part of the run that went to the provider's rate limit.
"""

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from cellmeter_proxy.record import Call
from cellmeter_scoring.calls import model_calls
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.score import Detail, Result, Score, Unscored
from cellmeter_scoring.throttling import throttled_us, union_us


class Latency(Detail, frozen=True, kw_only=True):
    """Durations in milliseconds."""

    wall_clock_ms: float | None
    """The whole cell, the harness included."""
    container_active_ms: float | None
    """The agent's process; None where no span of kind ``container`` was recorded."""
    model_call_ms: float | None
    throttled_ms: float | UnsetType = UNSET


def score_latency_as_published(evidence: CellEvidence) -> Result[Latency]:
    """The wall clock of the whole cell, throttling included."""
    detail = _latency(evidence, UNSET)
    if detail.wall_clock_ms is None:
        return Unscored("the cell has no end", detail)
    return Score(detail.wall_clock_ms, detail)


def score_latency(evidence: CellEvidence) -> Result[Latency]:
    """The wall clock of the whole cell, less the time that went to the provider's rate limit."""
    throttled = _ms(throttled_us(evidence.cell, evidence.calls, evidence.attempts))
    detail = _latency(evidence, throttled)
    if detail.wall_clock_ms is None:
        return Unscored("the cell has no end", detail)
    return Score(max(detail.wall_clock_ms - throttled, 0.0), detail)


def _latency(evidence: CellEvidence, throttled_ms: float | UnsetType) -> Latency:
    cell = evidence.cell
    containers = [span.duration_ms for span in evidence.spans if span.kind == "container"]
    return Latency(
        wall_clock_ms=None if cell.ended_at is None else _ms(cell.ended_at - cell.started_at),
        container_active_ms=sum(containers) if containers else None,
        model_call_ms=_model_call_ms(model_calls(evidence.calls)),
        throttled_ms=throttled_ms,
    )


def _model_call_ms(asked: Sequence[Call]) -> float | None:
    """None where a call has no recorded end."""
    intervals = [(call.started_at, call.ended_at) for call in asked if call.ended_at is not None]
    return _ms(union_us(intervals)) if len(intervals) == len(asked) else None


def _ms(microseconds: int) -> float:
    # By way of seconds, as the published pages did it: one division more or less differs in the last bit.
    return microseconds / 1_000_000 * 1000
