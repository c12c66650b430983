"""Each way in which a cell can fail, as a log: written to a file, read from it, scored by both methodologies."""

from pathlib import Path
from typing import NamedTuple

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Cell, FailureClass, Grade, Phase, Record
from cellmeter_scoring.failure import INFRASTRUCTURE
from cellmeter_scoring.rescore import rescore
from cellmeter_scoring.testing import START, at, make_attempt, make_call, make_cell, make_failed_call

SAME = "c1:sha256:same"


class Case(NamedTuple):
    """The rows of a log with one cell, and what is to be said of it."""

    rows: list[Record]
    failure_class: FailureClass
    reason: str
    evidence: list[str]


def cell(**changes: object) -> Cell:
    return make_cell(**{"grade": Grade(exit_code=101, stdout_tail="3 failed"), "ended_at": at(600), **changes})


def broken(name: str, error: str) -> list[Phase]:
    return [Phase(name=name, started_at=START, ended_at=at(1), error=error)]  # type: ignore[arg-type]


CASES = {
    "every call 429": Case(
        [cell(exit_code=1), *(make_failed_call(str(n), n, 429, seq=n, request_hash=SAME) for n in (1, 2, 3))],
        "rate_limited",
        "all 3 calls ended in the provider's rate limit (HTTP 429)",
        ["1", "2", "3"],
    ),
    "429s absorbed and then success": Case(
        [
            make_cell(),
            make_call("a", seq=1),
            make_attempt("a", 1, 1, 429, retry_after_ms=2000.0),
            make_attempt("a", 2, 3, 200, waited_ms=2000.0),
        ],
        "none",
        "the grader passed",
        [],
    ),
    "429s at the end after real work": Case(
        [cell(exit_code=1), make_call("a", 1, seq=1), make_failed_call("b", 3, 429, seq=2)],
        "rate_limited",
        "the last call ended in the provider's rate limit (HTTP 429), after 1 answered",
        ["b"],
    ),
    "exits 0 after its quota ran out": Case(
        [cell(), make_call("a", 1, seq=1), make_failed_call("b", 3, 429, seq=2, error="insufficient_quota: no more")],
        "rate_limited",
        "the last call ended in the provider's rate limit (HTTP 429), after 1 answered",
        ["b"],
    ),
    "sleeps through 429s into its timeout": Case(
        [
            cell(timed_out=True, exit_code=None),
            make_failed_call("a", 10, 429, seq=1, request_hash=SAME),
            make_failed_call("b", 200, 429, seq=2, request_hash=SAME),
            make_call("c", 500, seq=3, request_hash=SAME),
        ],
        "rate_limited",
        "490 s of the run went to the provider's rate limit",
        ["a", "b"],
    ),
    "an error in the stream of a 200": Case(
        [cell(), make_call("a", 1, seq=1, stream=True, outcome="stream_error", error="overloaded_error: busy")],
        "provider_error",
        "the provider's stream was cut: overloaded_error: busy (the only call, HTTP 200)",
        ["a"],
    ),
    "every call refused as unsupported": Case(
        [cell(exit_code=1), make_failed_call("a", 1, 400, seq=1, error="unsupported_parameter: 'store'")],
        "incompatible",
        "the only call ended in a refusal as malformed or unsupported (HTTP 400): unsupported_parameter: 'store'",
        ["a"],
    ),
    "every call malformed by the agent": Case(
        [cell(exit_code=1), make_failed_call("a", 1, 400, seq=1, request_hash=None, error="invalid JSON")],
        "agent_error",
        "the only call ended in a refusal as malformed or unsupported (HTTP 400), and no answer named anything that the"
        " provider lacks",
        ["a"],
    ),
    "no call at all": Case([cell()], "no_model_call", "the agent made no model call", []),
    "a crash before the first call": Case(
        [cell(exit_code=139)], "agent_error", "the agent exited with 139 before its first model call", []
    ),
    "a provider that is down": Case(
        [
            cell(exit_code=1),
            make_failed_call("a", 1, None, seq=1, error="http://p cannot be reached: Connection refused"),
            make_attempt("a", 1, 1, None, error="http://p cannot be reached: Connection refused"),
        ],
        "provider_error",
        "the provider could not be reached: http://p cannot be reached: Connection refused (the only call)",
        ["a"],
    ),
    "a provider that was down until the timeout": Case(
        [
            cell(timed_out=True, exit_code=None),
            make_call("a", 1, seq=1, ended_at=at(402)),
            make_attempt("a", 1, 1, 503),
            make_attempt("a", 2, 401, 200, waited_ms=399_900.0),
        ],
        "provider_error",
        "400 s of the run went to a failure of the provider",
        ["a"],
    ),
    "a local network failure": Case(
        [cell(exit_code=1), make_failed_call("a", 1, None, seq=1, error="http://p cannot be: Network is unreachable")],
        "harness_error",
        "the only call ended in a failure of this machine's network",
        ["a"],
    ),
    "a budget": Case(
        [
            cell(exit_code=1),
            make_call("a", 1, seq=1),
            make_failed_call(
                "b", 3, 400, seq=2, outcome="rejected", error="the budget of 1 call of this cell is spent"
            ),
        ],
        "budget_exceeded",
        "a budget ended the run: the budget of 1 call of this cell is spent",
        ["b"],
    ),
    "a bug of the harness": Case(
        [cell(phases=broken("prepare", "KeyError: 'image'"), grade=None)],
        "harness_error",
        "the prepare phase broke: KeyError: 'image'",
        [],
    ),
    "a crash of the grader": Case(
        [cell(phases=broken("grade", "the image is gone"), grade=None), make_call("a", 1, seq=1)],
        "grader_error",
        "the grade phase broke: the image is gone",
        [],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_log_of_each_failure_says_whose_it_is_and_only_capability_is_scored(case: Case, tmp_path: Path) -> None:
    with Log.create(tmp_path / "case.db", "process") as log:
        log.append(*case.rows)
    (score,) = rescore(tmp_path / "case.db", "cellmeter-1")
    assert (score.failure_class, score.failure_reason, score.evidence) == case[1:]
    assert (score.values.pass_rate is None) is (case.failure_class in INFRASTRUCTURE)
    (published,) = rescore(tmp_path / "case.db", "cab-0.1")
    graded = any(isinstance(row, Cell) and row.grade is not None for row in case.rows)
    assert (published.values.pass_rate is not None) is graded
