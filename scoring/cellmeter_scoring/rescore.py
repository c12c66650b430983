"""The scores of every cell of a captured log, computed from the log alone.

Invariant: scores are added to the log, never changed or removed, so that what a log once said under a methodology
stays readable.
"""

import importlib.metadata
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import msgspec

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Axis, ScoreRow, now_us
from cellmeter_scoring.cell_score import CellScore, score_cell
from cellmeter_scoring.evidence import load_evidence
from cellmeter_scoring.methodology import find_methodology


def rescore(log: Log | Path | str, methodology: str = "cellmeter-1", *, append: bool = True) -> list[CellScore]:
    """Score every cell of a log, in the order in which the cells were first run.

    Args:
        log: an open log, or where it is.
        methodology: the name of one of ``METHODOLOGIES``.
        append: add the scores to the log. A log that cannot be written is scored all the same, with a
            ``RuntimeWarning``.

    Raises:
        CellmeterError: there is no such methodology or no such log.

    """
    chosen = find_methodology(methodology)
    if isinstance(log, Log):
        scores = [score_cell(evidence, chosen) for evidence in load_evidence(log)]
        if append:
            _append(log, scores)
        return scores
    with Log.read(log) as reading:
        scores = rescore(reading, methodology, append=False)
    if append:
        _append_to(log, scores)
    return scores


def _append_to(path: Path | str, scores: Sequence[CellScore]) -> None:
    try:
        with Log.create(path) as writing:
            _append(writing, scores)
    except CellmeterError as error:
        _warn(path, error)


def _append(log: Log, scores: Sequence[CellScore]) -> None:
    try:
        log.conn.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        _warn(log.path, error)
        return
    try:
        log.append(*_rows(scores))
        log.conn.execute("COMMIT")
    except sqlite3.Error as error:
        log.conn.execute("ROLLBACK")
        _warn(log.path, error)


def _warn(path: Path | str, error: Exception) -> None:
    warnings.warn(f"the scores were not added to {path}: {error}", RuntimeWarning, stacklevel=4)


def _rows(scores: Sequence[CellScore]) -> Iterator[ScoreRow]:
    version = importlib.metadata.version("cellmeter")
    scored_at = now_us()
    axes: tuple[Axis, ...] = get_args(Axis)
    for score in scores:
        for axis in axes:
            detail = msgspec.to_builtins(getattr(score.axes, axis))
            yield ScoreRow(
                cell_id=score.cell_id,
                cell_attempt=score.attempt,
                methodology=score.methodology,
                axis=axis,
                value=getattr(score.values, axis),
                unscored=detail.pop("unscored", None),
                detail=detail,
                scorer_version=version,
                scored_at=scored_at,
            )
