"""``composite``: one number for a cell, made of its other axes by the methodology's formula."""

import math
from collections.abc import Collection

import msgspec
from msgspec import UNSET, UnsetType

from cellmeter_proxy.record import Axis
from cellmeter_scoring.axes.blast_radius import BlastRadius
from cellmeter_scoring.axes.integrity import Integrity
from cellmeter_scoring.axes.latency import Latency
from cellmeter_scoring.axes.pass_rate import PassRate
from cellmeter_scoring.axes.refusal import Refusal
from cellmeter_scoring.axes.tokens import TokenCounts
from cellmeter_scoring.components import Components, ComposedComponents, Weights
from cellmeter_scoring.methodology import Methodology
from cellmeter_scoring.score import Detail, Result, Score, Unscored, value_of


class AxisResults(msgspec.Struct, frozen=True, kw_only=True):
    """What the scorers of a methodology said about one cell."""

    pass_rate: Result[PassRate]
    tokens: Result[TokenCounts]
    latency: Result[Latency]
    blast_radius: Result[BlastRadius]
    refusal: Result[Refusal]
    integrity: Result[Integrity]


class CompositeDetail(Detail, frozen=True, kw_only=True):
    """The number and everything that it was made of."""

    composite: float | None
    weights: Weights
    components: ComposedComponents
    note: str
    reweighted: list[str] | UnsetType = UNSET
    """The axes that were not scored and whose share the others took over."""
    unearned: list[str] | UnsetType = UNSET
    """The axes that were not scored and whose share is lost."""


def score_composite(results: AxisResults, methodology: Methodology) -> Result[CompositeDetail]:
    """The composite of one cell; no value where an axis that the methodology needs has none."""
    made = methodology.combine(components_of(results))
    reasons = _missing(results, methodology.needs) or made.unscored
    detail = CompositeDetail(
        composite=None if reasons else made.composite,
        weights=made.weights,
        components=made.components,
        note=made.note,
        reweighted=made.reweighted or UNSET,
        unearned=made.unearned or UNSET,
    )
    if reasons or made.composite is None:
        return Unscored("; ".join(reasons), detail)
    return Score(made.composite, detail)


def components_of(results: AxisResults) -> Components:
    """The values that a composite is made of; an axis without a value gives None."""
    refusal = results.refusal.detail
    return Components(
        pass_rate=value_of(results.pass_rate),
        integrity=value_of(results.integrity),
        blast_radius=value_of(results.blast_radius),
        tokens_per_correct_task=_tokens_per_correct(results.tokens),
        wall_clock_ms=value_of(results.latency),
        expected_refusal=refusal.expected_refusal,
        refusal_produced=refusal.refusal_produced,
    )


def _missing(results: AxisResults, needs: Collection[Axis]) -> list[str]:
    """One sentence for each reason, with the axes that it holds for."""
    axes: dict[str, list[str]] = {}
    for axis in needs:
        result = getattr(results, axis)
        if isinstance(result, Unscored):
            axes.setdefault(result.reason, []).append(axis)
    return [f"no value for {', '.join(names)}: {reason}" for reason, names in axes.items()]


def _tokens_per_correct(tokens: Result[TokenCounts]) -> float | None:
    if isinstance(tokens, Unscored):
        return None
    per_correct = tokens.detail.tokens_per_correct_task
    if per_correct is None and tokens.detail.pass_used_for_division == 0:
        return math.inf
    return per_correct
