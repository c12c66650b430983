"""What the cells of a log say about each agent with each model, and what they cannot say.

Invariant: no rate without its numerator, its denominator, what was left out of it and both bounds for that; no
interval without the words for what it is about; no rank; no number over cells of two sweeps. Rows are put in order,
and those that a paired test over their common tasks does not tell apart are named as not separable.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Final, TypeAlias

import msgspec

from cellmeter_proxy.record import FailureClass
from cellmeter_scoring.cell_score import CellScore
from cellmeter_scoring.doubts import findings_about
from cellmeter_scoring.finding import Finding
from cellmeter_scoring.intervals import Interval, holm, pass_at_k, pass_hat_k, sign_flip, t_interval, wilson

SEPARABLE_BELOW: Final = 0.05
"""The adjusted p-value under which two rows are told apart."""

_Key: TypeAlias = tuple[str, str, str]
"""Sweep, agent and model."""


class Middle(msgspec.Struct, frozen=True, kw_only=True):
    """A middle value, and over how many cells: those that have a number."""

    value: float | None
    cells: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One agent with one model in one sweep."""

    agent: str
    model: str
    sweep: str
    cells: int
    passed: int
    counted: int
    """Cells with a verdict; the others are in ``excluded``."""
    excluded: dict[FailureClass, int]
    """Cells without one, by what kept them from it."""
    tasks: int
    """Tasks with at least one counted cell."""
    pass_rate: float | None
    """Repeats averaged within each task first, so that every task counts the same."""
    lowest: float | None
    """The pass rate if every excluded cell had failed."""
    highest: float | None
    """The pass rate if every excluded cell had passed."""
    interval: Interval | None
    k: int | None
    """The fewest counted repeats of any task."""
    pass_at_k: float | None
    """Chance that at least one of ``k`` runs of a task passes."""
    pass_hat_k: float | None
    """Chance that all of them do."""
    composite: Middle
    """Mean over cells: each run counts the same, unlike in ``pass_rate``, where each task does."""
    tokens: Middle
    """Median of all tokens of a cell."""
    latency_ms: Middle
    """Median."""
    findings: list[Finding] = []
    """What makes these numbers less than they seem, with the ids of the cells that it is about."""
    not_separable_from: list[str] = []
    """Names of the rows of the same sweep that are not told apart from this one: a paired sign-flip test of the pass
    rates over the tasks that both have, Holm's adjustment over all pairs of the sweep, p not below 0.05."""
    one_of_sweeps: bool = False
    """Whether there are rows of several sweeps, so that the name has to say of which this one is."""

    @property
    def name(self) -> str:
        """What the row is called: ``agent × model``, with the sweep where there are several."""
        name = f"{self.agent} × {self.model}"
        return f"{self.sweep}: {name}" if self.one_of_sweeps else name


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two agents on the tasks that both have a verdict for."""

    tasks: int
    difference: float | None
    """Mean over tasks of the first one's pass rate less the second one's."""
    p_value: float | None
    """Two-sided, paired, by flipping signs."""
    discordant: list[str]
    """The tasks on which they differ."""


def leaderboard(scores: Sequence[CellScore]) -> list[Row]:
    """One row for each agent × model of each sweep, sweep by sweep.

    Within a sweep the highest pass rate comes first, equals by name; no verdict at all comes last.
    """
    groups: defaultdict[_Key, list[CellScore]] = defaultdict(list)
    for score in scores:
        groups[score.sweep_id, score.agent, score.model].append(score)
    several = len({sweep for sweep, _, _ in groups}) > 1
    rows = [_row(key, cells, one_of_sweeps=several) for key, cells in groups.items()]
    rows.sort(key=lambda row: (row.sweep, row.pass_rate is None, -(row.pass_rate or 0), row.agent, row.model))
    means = {key: _task_means(cells) for key, cells in groups.items()}
    apart = {pair for sweep in {row.sweep for row in rows} for pair in _separable(sweep, means)}
    return [
        msgspec.structs.replace(row, not_separable_from=[other.name for other in rows if _is_close(row, other, apart)])
        for row in rows
    ]


def compare(scores: Sequence[CellScore], one: tuple[str, str], other: tuple[str, str], seed: int = 0) -> Comparison:
    """Two rows, each named by agent and model, task by task.

    Args:
        scores: the cells of one sweep; those of several are taken together.
        one: the first agent and its model.
        other: the second.
        seed: of the signs that are drawn where there are too many to try them all.

    """
    means = [_task_means([score for score in scores if (score.agent, score.model) == name]) for name in (one, other)]
    return _compared(means[0], means[1], seed)


def _compared(one: Mapping[str, float], other: Mapping[str, float], seed: int = 0) -> Comparison:
    common = sorted(one.keys() & other.keys())
    differences = {task: one[task] - other[task] for task in common}
    return Comparison(
        tasks=len(common),
        difference=fmean(differences.values()) if common else None,
        p_value=sign_flip(list(differences.values()), seed) if common else None,
        discordant=[task for task, difference in differences.items() if difference],
    )


def _separable(sweep: str, means: Mapping[_Key, Mapping[str, float]]) -> list[frozenset[_Key]]:
    """The pairs of a sweep's rows that are told apart."""
    pairs: list[frozenset[_Key]] = []
    p_values: list[float] = []
    for one, other in combinations(sorted(key for key in means if key[0] == sweep), 2):
        p_value = _compared(means[one], means[other]).p_value
        if p_value is not None:
            pairs.append(frozenset({one, other}))
            p_values.append(p_value)
    return [pair for pair, p in zip(pairs, holm(p_values), strict=True) if p < SEPARABLE_BELOW]


def _is_close(row: Row, other: Row, apart: Collection[frozenset[_Key]]) -> bool:
    if row is other or row.sweep != other.sweep or row.pass_rate is None or other.pass_rate is None:
        return False
    return frozenset({_key(row), _key(other)}) not in apart


def _key(row: Row) -> _Key:
    return row.sweep, row.agent, row.model


def _row(key: _Key, cells: Sequence[CellScore], *, one_of_sweeps: bool) -> Row:
    sweep, agent, model = key
    verdicts = _verdicts(cells)
    counted = {task: runs for task, runs in verdicts.items() if runs}
    means = [fmean(runs) for runs in counted.values()]
    k = min(map(len, counted.values())) if counted else None
    return Row(
        agent=agent,
        model=model,
        sweep=sweep,
        cells=len(cells),
        passed=round(sum(map(sum, counted.values()))),
        counted=sum(map(len, counted.values())),
        excluded=_excluded(cells),
        tasks=len(counted),
        pass_rate=fmean(means) if means else None,
        lowest=_bound(cells, 0.0),
        highest=_bound(cells, 1.0),
        interval=_interval(counted, means),
        k=k,
        pass_at_k=_over_tasks(counted, k, pass_at_k),
        pass_hat_k=_over_tasks(counted, k, pass_hat_k),
        composite=_middle([cell.values.composite for cell in cells], fmean),
        tokens=_middle([cell.values.tokens for cell in cells], median),
        latency_ms=_middle([cell.values.latency for cell in cells], median),
        findings=findings_about((cell.cell_id, cell.doubts) for cell in cells),
        one_of_sweeps=one_of_sweeps,
    )


def _excluded(cells: Sequence[CellScore]) -> dict[FailureClass, int]:
    classes = Counter[FailureClass](cell.failure_class for cell in cells if cell.values.pass_rate is None)
    return dict(sorted(classes.items()))


def _task_means(cells: Sequence[CellScore]) -> dict[str, float]:
    return {task: fmean(runs) for task, runs in _verdicts(cells).items() if runs}


def _verdicts(cells: Sequence[CellScore], excluded: float | None = None) -> dict[str, list[float]]:
    """The verdicts of each task; a cell without one counts as ``excluded``, or not at all."""
    verdicts: defaultdict[str, list[float]] = defaultdict(list)
    for cell in cells:
        value = excluded if cell.values.pass_rate is None else cell.values.pass_rate
        verdicts[cell.task_id].extend([] if value is None else [value])
    return dict(verdicts)


def _bound(cells: Sequence[CellScore], excluded: float) -> float | None:
    return fmean(fmean(runs) for runs in _verdicts(cells, excluded).values()) if cells else None


def _interval(counted: Mapping[str, Sequence[float]], means: Sequence[float]) -> Interval | None:
    if not means:
        return None
    if len(means) == 1:
        (runs,) = counted.values()
        return wilson(sum(runs), len(runs), "this task")
    if len(set(means)) == 1:
        # Without a spread Student's interval has no width, which a handful of tasks cannot justify.
        return wilson(sum(means), len(means), "tasks like these")
    student = t_interval(means, "tasks like these")
    return msgspec.structs.replace(student, low=max(student.low, 0.0), high=min(student.high, 1.0))


def _over_tasks(
    counted: Mapping[str, Sequence[float]], k: int | None, estimate: Callable[[int, int, int], float]
) -> float | None:
    if k is None:
        return None
    return fmean(estimate(len(runs), round(sum(runs)), k) for runs in counted.values())


def _middle(values: Sequence[float | None], of: Callable[[Sequence[float]], float]) -> Middle:
    known = [value for value in values if value is not None]
    return Middle(value=of(known) if known else None, cells=len(known))
