"""What the cells of a log say about each agent with each model, and what they cannot say.

Invariant: no rate without its numerator, its denominator, what was left out of it and both bounds for that; no
interval without the words for what it is about; no rank. Rows are put in order, and those whose intervals overlap
are named as not separable.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median

import msgspec

from cellmeter_proxy.record import FailureClass
from cellmeter_scoring.cell_score import CellScore
from cellmeter_scoring.intervals import Interval, pass_at_k, pass_hat_k, sign_flip, t_interval, wilson


class Middle(msgspec.Struct, frozen=True, kw_only=True):
    """A middle value, and over how many cells: those that have a number."""

    value: float | None
    cells: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One agent with one model."""

    agent: str
    model: str
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
    """Mean."""
    tokens: Middle
    """Median of all tokens of a cell."""
    latency_ms: Middle
    """Median."""
    not_separable_from: list[str] = []
    """Rows whose interval overlaps with this one's, as ``agent × model``."""

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.agent} × {self.model}"


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
    """One row for each agent × model, the highest pass rate first, equals by name; no verdict at all comes last."""
    groups: defaultdict[tuple[str, str], list[CellScore]] = defaultdict(list)
    for score in scores:
        groups[score.agent, score.model].append(score)
    rows = [_row(agent, model, cells) for (agent, model), cells in groups.items()]
    rows.sort(key=lambda row: (row.pass_rate is None, -(row.pass_rate or 0), row.agent, row.model))
    return [
        msgspec.structs.replace(row, not_separable_from=[other.name for other in rows if _overlap(row, other)])
        for row in rows
    ]


def compare(scores: Sequence[CellScore], one: tuple[str, str], other: tuple[str, str], seed: int = 0) -> Comparison:
    """Two rows, each named by agent and model, task by task."""
    means = [_task_means([score for score in scores if (score.agent, score.model) == name]) for name in (one, other)]
    common = sorted(means[0].keys() & means[1].keys())
    differences = {task: means[0][task] - means[1][task] for task in common}
    return Comparison(
        tasks=len(common),
        difference=fmean(differences.values()) if common else None,
        p_value=sign_flip(list(differences.values()), seed) if common else None,
        discordant=[task for task, difference in differences.items() if difference],
    )


def _row(agent: str, model: str, cells: Sequence[CellScore]) -> Row:
    verdicts = _verdicts(cells)
    counted = {task: runs for task, runs in verdicts.items() if runs}
    means = [fmean(runs) for runs in counted.values()]
    k = min(map(len, counted.values())) if counted else None
    return Row(
        agent=agent,
        model=model,
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


def _overlap(row: Row, other: Row) -> bool:
    if row is other or row.interval is None or other.interval is None:
        return False
    return row.interval.low <= other.interval.high and other.interval.low <= row.interval.high
