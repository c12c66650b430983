"""Scores computed from a captured log alone, offline, at any later time."""

from cellmeter_scoring.audit import Audit, AuditedCall, audit
from cellmeter_scoring.cell_score import CellScore, score_cell
from cellmeter_scoring.components import Components, Composite
from cellmeter_scoring.compose import compose
from cellmeter_scoring.evidence import CellEvidence, load_evidence
from cellmeter_scoring.failure import INFRASTRUCTURE, Verdict, classify
from cellmeter_scoring.finding import Finding
from cellmeter_scoring.intervals import minimum_detectable_difference
from cellmeter_scoring.leaderboard import Comparison, Row, compare, leaderboard
from cellmeter_scoring.methodology import METHODOLOGIES, Methodology, find_methodology
from cellmeter_scoring.operations import Operation, operations
from cellmeter_scoring.rescore import rescore
from cellmeter_scoring.retries import retries_of
from cellmeter_scoring.score import Score, Scorer, Unscored
from cellmeter_scoring.verify import verify

__all__ = [
    "INFRASTRUCTURE",
    "METHODOLOGIES",
    "Audit",
    "AuditedCall",
    "CellEvidence",
    "CellScore",
    "Comparison",
    "Components",
    "Composite",
    "Finding",
    "Methodology",
    "Operation",
    "Row",
    "Score",
    "Scorer",
    "Unscored",
    "Verdict",
    "audit",
    "classify",
    "compare",
    "compose",
    "find_methodology",
    "leaderboard",
    "load_evidence",
    "minimum_detectable_difference",
    "operations",
    "rescore",
    "retries_of",
    "score_cell",
    "verify",
]
