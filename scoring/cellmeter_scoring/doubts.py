"""What makes a cell's numbers less than they seem though it has a verdict: shown wherever its agent is shown.

Pure. A doubt changes no number: it says which ones a reader should not lean on.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from cellmeter_scoring.axes.composite import AxisResults
from cellmeter_scoring.calls import model_calls, reached_a_model
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.finding import Finding
from cellmeter_scoring.score import Unscored, value_of

Doubt = Literal["pass without a call", "tokens unknown"]

_SENTENCES: Final[Mapping[Doubt, str]] = {
    "pass without a call": "passed though no recorded call reached a model",
    "tokens unknown": "called a model that nobody counted the tokens of",
}


def doubts_of(evidence: CellEvidence, results: AxisResults) -> list[Doubt]:
    """The doubts about one cell.

    Args:
        evidence: its records.
        results: its axes; one that failed for the infrastructure's reasons has no verdict to doubt.

    """
    reached = any(reached_a_model(call) for call in model_calls(evidence.calls))
    doubts: list[Doubt] = []
    if evidence.cell.expects_calls and not reached and value_of(results.pass_rate) == 1:
        doubts.append("pass without a call")
    if reached and isinstance(results.tokens, Unscored) and value_of(results.pass_rate) is not None:
        doubts.append("tokens unknown")
    return doubts


def findings_about(cells: Iterable[tuple[str, Sequence[Doubt]]]) -> list[Finding]:
    """Each kind of doubt once, with the ids of the cells that it is about, in a fixed order."""
    ids: dict[Doubt, list[str]] = {doubt: [] for doubt in _SENTENCES}
    for cell_id, doubts in cells:
        for doubt in doubts:
            ids[doubt].append(cell_id)
    return [
        Finding(kind=doubt, message=f"{_counted(len(found))} {_SENTENCES[doubt]}", ids=found)
        for doubt, found in ids.items()
        if found
    ]


def _counted(cells: int) -> str:
    return "1 cell" if cells == 1 else f"{cells} cells"
