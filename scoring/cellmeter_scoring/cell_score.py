"""One cell under one methodology: its axes, its failure class, its composite.

Invariant: pure. The same records give the same answer at any time and on any machine.
"""

import msgspec

from cellmeter_proxy.record import FailureClass
from cellmeter_scoring.axes.blast_radius import BlastRadius
from cellmeter_scoring.axes.composite import AxisResults, CompositeDetail, score_composite
from cellmeter_scoring.axes.integrity import Integrity
from cellmeter_scoring.axes.latency import Latency
from cellmeter_scoring.axes.pass_rate import PassRate
from cellmeter_scoring.axes.refusal import Refusal
from cellmeter_scoring.axes.tokens import TokenCounts
from cellmeter_scoring.doubts import Doubt, doubts_of
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.failure import INFRASTRUCTURE, Verdict, classify
from cellmeter_scoring.methodology import Methodology
from cellmeter_scoring.score import D, Result, Unscored, published, value_of


class Axes(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of every axis; one without a value carries ``unscored`` with the reason."""

    pass_rate: PassRate
    tokens: TokenCounts
    latency: Latency
    blast_radius: BlastRadius
    refusal: Refusal
    integrity: Integrity
    composite: CompositeDetail


class AxisValues(msgspec.Struct, frozen=True, kw_only=True):
    """The one number of each axis; None where it has none."""

    pass_rate: float | None
    """0 or 1."""
    tokens: float | None
    """All tokens of the cell."""
    latency: float | None
    """Milliseconds; what the methodology counts of the wall clock."""
    blast_radius: float | None
    refusal: float | None
    integrity: float | None
    composite: float | None


class CellScore(msgspec.Struct, frozen=True, kw_only=True):
    """One cell under one methodology: the newest attempt of it, with who is to blame where it failed."""

    cell_id: str
    sweep_id: str
    attempt: int
    agent: str
    model: str
    task_id: str
    run: int
    methodology: str
    failure_class: FailureClass
    failure_reason: str
    evidence: list[str]
    """The call ids that prove the failure class."""
    doubts: list[Doubt]
    """Why a number of it should not be leaned on, such as a pass by an agent none of whose calls was recorded."""
    values: AxisValues
    axes: Axes
    composite: float | None


def score_cell(evidence: CellEvidence, methodology: Methodology) -> CellScore:
    """Score one cell on every axis of a methodology."""
    cell = evidence.cell
    verdict = classify(cell, evidence.calls, evidence.attempts)
    results = _score_axes(evidence, methodology, verdict)
    composite = score_composite(results, methodology)
    return CellScore(
        cell_id=cell.cell_id,
        sweep_id=cell.sweep_id,
        attempt=cell.attempt,
        agent=cell.agent,
        model=cell.model,
        task_id=f"{cell.category}/{cell.task}",
        run=cell.run,
        methodology=methodology.name,
        failure_class=verdict.failure_class,
        failure_reason=verdict.reason,
        evidence=verdict.evidence,
        doubts=doubts_of(evidence, results),
        values=AxisValues(
            pass_rate=value_of(results.pass_rate),
            tokens=value_of(results.tokens),
            latency=value_of(results.latency),
            blast_radius=value_of(results.blast_radius),
            refusal=value_of(results.refusal),
            integrity=value_of(results.integrity),
            composite=value_of(composite),
        ),
        axes=Axes(
            pass_rate=published(results.pass_rate),
            tokens=published(results.tokens),
            latency=published(results.latency),
            blast_radius=published(results.blast_radius),
            refusal=published(results.refusal),
            integrity=published(results.integrity),
            composite=published(composite),
        ),
        composite=value_of(composite),
    )


def _score_axes(evidence: CellEvidence, methodology: Methodology, verdict: Verdict) -> AxisResults:
    scorers = methodology.scorers
    unfair = verdict.failure_class in INFRASTRUCTURE and not methodology.scores_infrastructure
    why = f"{verdict.failure_class}: {verdict.reason}" if unfair else None
    return AxisResults(
        pass_rate=_unless(why, scorers.pass_rate(evidence)),
        tokens=_unless(why, scorers.tokens(evidence)),
        latency=_unless(why, scorers.latency(evidence)),
        blast_radius=_unless(why, scorers.blast_radius(evidence)),
        refusal=_unless(why, scorers.refusal(evidence)),
        integrity=_unless(why, scorers.integrity(evidence)),
    )


def _unless(why: str | None, result: Result[D]) -> Result[D]:
    """The result, or its keys without a value where there is a reason not to score."""
    return result if why is None else Unscored(why, result.detail)
