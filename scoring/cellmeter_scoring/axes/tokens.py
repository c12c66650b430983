"""``tokens``: what the recorded model calls cost in tokens.

The counts are the provider's. An estimate stands in where the recorder made one, and is named; a call that a model
worked on and whose tokens nobody counted leaves the axis without a value, because a sum without it would be too low.
What the agent itself printed is never used.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from cellmeter_proxy.record import Call
from cellmeter_scoring.calls import model_calls, reached_a_model, tokens_of
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.score import Detail, Result, Score, Unscored


class UsageSources(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the counted calls have their numbers from where."""

    provider: int = 0
    partial: int = 0
    estimated: int = 0
    none: int = 0


class TokenCounts(Detail, frozen=True, kw_only=True):
    """Sums over the model calls of the cell."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    model_calls: int
    tokens_per_correct_task: float | None
    """``total_tokens / pass``; None where tokens were spent and nothing is correct."""
    pass_used_for_division: int | None
    usage_sources: UsageSources | UnsetType = UNSET
    """Present where not every count is the provider's own."""


def score_tokens_as_published(evidence: CellEvidence) -> Result[TokenCounts]:
    """All tokens of the cell; a cell without calls has 0, as the published pages have it."""
    asked = model_calls(evidence.calls)
    counted = [call for call in asked if reached_a_model(call)]
    uncounted = [call for call in counted if _is_uncounted(call)]
    if uncounted:
        return Unscored(_unknown(uncounted, counted), _counts(evidence, asked, counted, known=False))
    detail = _counts(evidence, asked, counted, known=True)
    return Score(float(detail.total_tokens or 0), detail)


def score_tokens(evidence: CellEvidence) -> Result[TokenCounts]:
    """All tokens of the cell; without a call that reached a model, only an agent that makes none has 0."""
    asked = model_calls(evidence.calls)
    if evidence.cell.expects_calls and not any(reached_a_model(call) for call in asked):
        why = f"none of the {len(asked)} calls reached a model" if asked else "no model call was recorded"
        return Unscored(why, _counts(evidence, asked, [], known=False))
    return score_tokens_as_published(evidence)


def _is_uncounted(call: Call) -> bool:
    tokens = tokens_of(call)
    return tokens.prompt is None or tokens.completion is None


def _unknown(uncounted: Sequence[Call], counted: Sequence[Call]) -> str:
    return f"{len(uncounted)} of {len(counted)} calls that reached a model carry no token usage"


def _counts(evidence: CellEvidence, asked: Sequence[Call], counted: Sequence[Call], *, known: bool) -> TokenCounts:
    grade = evidence.cell.grade
    passed = None if grade is None else int(grade.passed)
    tokens = [tokens_of(call) for call in counted]
    prompt = sum(each.prompt or 0 for each in tokens) if known else None
    completion = sum(each.completion or 0 for each in tokens) if known else None
    total = None if prompt is None or completion is None else prompt + completion
    return TokenCounts(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        model_calls=len(asked),
        tokens_per_correct_task=_per_correct(total, passed),
        pass_used_for_division=passed,
        usage_sources=_sources(counted),
    )


def _per_correct(total: int | None, passed: int | None) -> float | None:
    if total is None or passed is None:
        return None
    if total == 0:
        return 0
    return total / passed if passed else None


def _sources(counted: Sequence[Call]) -> UsageSources | UnsetType:
    sources = Counter(str(call.usage_source) for call in counted)
    return UsageSources(**sources) if sources.keys() - {"provider"} else UNSET
