"""Estimates for every call of an audit, made offline from the stored bodies, and the usage that disagrees with them.

Invariant: an estimate never takes the place of what a provider reported. It stands beside it, and where both are
there, a call is held against the rules of its model's family and against what *other* calls of the log teach about
its provider, never against itself.

Not imported with the package: it loads the tokenizer, which nothing else here needs.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from cellmeter_proxy.counts import can_be_counted, model_of, usage_of
from cellmeter_proxy.estimates import estimate_call, latest_reporting, method_of
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.tokens import Calibration, Estimate, Key, corrected, learn
from cellmeter_proxy.tokens.calibration import KEPT, Series
from cellmeter_scoring.audit import Audit, AuditedCall, sum_up
from cellmeter_scoring.finding import Finding

ENOUGH: Final = 3
"""So many other calls must have reported before they are believed about one that did, too."""
_PARTS: Final[tuple[Literal["prompt", "completion"], ...]] = ("prompt", "completion")
_Point = tuple[int, int]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One count of a provider that is beyond the error of its estimate."""

    call: AuditedCall
    part: Literal["prompt", "completion"]
    reported: int
    estimated: int
    tolerance: int
    consistent: bool
    """The provider counts its other calls in this way, too."""

    @property
    def excess(self) -> float:
        """How many times the tolerance the two are apart."""
        return abs(self.reported - self.estimated) / max(1, self.tolerance)


def with_estimates(log: Log, found: Audit) -> Audit:
    """The same audit with an estimate for each call that a model answered, and what disagrees with them.

    A call whose provider told nothing is then counted by its estimate, as the relay would have it. Estimates that the
    relay made stay as they are.

    Args:
        log: the log of the audit.
        found: the audit of all of it, or of a cell or session.

    """
    made = dict(_estimates(log, filter(_is_wanted, found.calls)))
    taught = _Taught()
    for call, one in _reporting(log, found.calls, made):
        taught.add(call, one)
    calls: list[AuditedCall] = []
    compared: list[Comparison] = []
    for call in found.calls:
        if call.call_id not in made:
            calls.append(call)
            continue
        by_rules = made[call.call_id]
        if call.usage_source == "provider":
            others = taught.by_others(call, by_rules)
            calls.append(_filled(call, corrected(by_rules, others)))
            compared += _compare(call, by_rules, others)
        else:
            calls.append(_filled(call, estimate_call(log, call, taught.by_all(by_rules))))
    audit = sum_up(calls, found.reconciliations)
    return replace(audit, findings=[*audit.findings, *_differs(compared), *_counts_otherwise(compared)])


class _Taught:
    """What calls that reported their usage teach, each call's lesson apart from the others'."""

    def __init__(self) -> None:
        self._points: defaultdict[Key, list[_Point]] = defaultdict(list)
        self._places: dict[tuple[Key, str], int] = {}

    def add(self, call: Call, made: Estimate) -> None:
        for series in learn(Calibration(), made, usage_of(call)).series:
            self._places[series.key, call.call_id] = len(self._points[series.key])
            self._points[series.key] += series.points

    def by_others(self, call: Call, made: Estimate) -> Calibration:
        """What the nearest other calls teach about one; nothing where they are too few."""
        series = [Series(key=key, points=self._near(key, call)) for key in _keys(made)]
        return Calibration(series=[one for one in series if len(one.points) >= ENOUGH])

    def by_all(self, made: Estimate) -> Calibration:
        """What the latest calls teach about one that did not report."""
        series = [Series(key=key, points=self._points[key][-KEPT:]) for key in _keys(made)]
        return Calibration(series=[one for one in series if one.points])

    def _near(self, key: Key, call: Call) -> list[_Point]:
        points = self._points[key]
        at = self._places.get((key, call.call_id), len(points))
        return points[max(0, at - KEPT // 2) : at] + points[at + 1 : at + 1 + KEPT // 2]


def _keys(made: Estimate) -> list[Key]:
    return [] if made.key is None else [replace(made.key, part=part) for part in _PARTS]


def _is_wanted(call: Call) -> bool:
    return can_be_counted(call) and (call.usage_source == "provider" or call.estimate_method is None)


def _estimates(log: Log, calls: Iterable[Call]) -> Iterator[tuple[str, Estimate]]:
    for call in calls:
        try:
            yield call.call_id, estimate_call(log, call)
        except KeyError:
            # A body that the log has lost is a finding of `verify`.
            continue


def _reporting(log: Log, calls: Sequence[Call], made: Mapping[str, Estimate]) -> Iterator[tuple[Call, Estimate]]:
    """The calls to learn from: those of the audit, and the latest of the log to the same models."""
    yield from (
        (call, made[call.call_id]) for call in calls if call.usage_source == "provider" and call.call_id in made
    )
    models = {(call.upstream, model_of(call)): call for call in filter(can_be_counted, calls)}
    for call in models.values():
        others = [one for one in latest_reporting(log, call, count=KEPT) if one.call_id not in made]
        estimates = dict(_estimates(log, others))
        yield from ((one, estimates[one.call_id]) for one in others if one.call_id in estimates)


def _filled(call: AuditedCall, made: Estimate) -> AuditedCall:
    counted = made.prompt_tokens is not None or made.completion_tokens is not None
    return replace(
        call,
        estimated_prompt_tokens=made.prompt_tokens,
        estimated_completion_tokens=made.completion_tokens,
        estimate_method=method_of(made),
        usage_source="estimated" if call.usage_source == "none" and counted else call.usage_source,
    )


def _compare(call: AuditedCall, by_rules: Estimate, others: Calibration) -> Iterator[Comparison]:
    by_others = corrected(by_rules, others)
    taught = {series.key.part for series in others.series}
    for part in _PARTS:
        reported = call.prompt_tokens if part == "prompt" else call.completion_tokens
        if reported is None or (off := _beyond(reported, by_rules, part)) is None:
            continue
        nearer = _beyond(reported, by_others, part) if part in taught else off
        estimated, tolerance = nearer or off
        yield Comparison(
            call=call, part=part, reported=reported, estimated=estimated, tolerance=tolerance, consistent=nearer is None
        )


def _beyond(reported: int, made: Estimate, part: Literal["prompt", "completion"]) -> tuple[int, int] | None:
    """The estimate and its tolerance where a count is beyond them; None where it is within, or nobody can tell."""
    if part == "prompt":
        estimated, tolerance = made.prompt_tokens, made.prompt_tolerance
    else:
        estimated, tolerance = made.completion_tokens, made.completion_tolerance
    if estimated is None or tolerance is None or abs(reported - estimated) <= tolerance:
        return None
    return estimated, tolerance


def _differs(compared: Sequence[Comparison]) -> Iterator[Finding]:
    for part in _PARTS:
        lines = [line for line in compared if line.part == part and not line.consistent]
        if not lines:
            continue
        worst = max(lines, key=lambda line: line.excess)
        yield Finding(
            kind="usage differs",
            message=f"{_calls(len(lines))}: the provider's {part} tokens are beyond the error of their estimate;"
            f" the furthest reported {worst.reported:,}, estimated {worst.estimated:,} ± {worst.tolerance:,}",
            ids=[line.call.call_id for line in lines],
        )


def _counts_otherwise(compared: Sequence[Comparison]) -> Iterator[Finding]:
    grouped: defaultdict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for line in compared:
        if line.consistent:
            grouped[model_of(line.call) or "", line.part].append(line)
    for (model, part), lines in grouped.items():
        worst = max(lines, key=lambda line: line.excess)
        yield Finding(
            kind="counts otherwise",
            message=f"{_calls(len(lines))}: the {part} tokens of {model} agree with each other, and not with the rules"
            f" known for that model: reported {worst.reported:,} where those give {worst.estimated:,}"
            f" ± {worst.tolerance:,}",
            ids=[line.call.call_id for line in lines],
        )


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"
