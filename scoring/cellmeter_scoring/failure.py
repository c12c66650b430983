"""Who is to blame when a cell did not pass: decided from the wire, the exit facts and the phases.

Invariant: pure, and never from prose. Neither the agent's output nor the text of an answer is read, so an agent
cannot talk its way into or out of a class. Each verdict names the calls that prove it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from cellmeter_proxy.record import UNCOLLECTABLE, Attempt, Call, Cell, FailureClass, Outcome, Phase
from cellmeter_scoring.calls import (
    Trouble,
    attempts_by_call,
    in_order,
    is_answered,
    model_calls,
    provider_status,
    trouble_of,
    trouble_of_try,
)
from cellmeter_scoring.refusals import shows_incompatibility
from cellmeter_scoring.throttling import held_up_us, run_of

INFRASTRUCTURE: Final[frozenset[FailureClass]] = frozenset(
    {"rate_limited", "provider_error", "incompatible", "grader_error", "harness_error", "cancelled"}
)
"""The classes that say nothing about what the agent can do, and that another attempt may change."""

_BLAME: Final[Mapping[Trouble, FailureClass]] = {
    Trouble.THROTTLED: "rate_limited",
    Trouble.PROVIDER: "provider_error",
    Trouble.DENIED: "provider_error",
    Trouble.LOCAL_NETWORK: "harness_error",
    Trouble.RECORDER: "harness_error",
}

_TAKES_TIME: Final = (Trouble.THROTTLED, Trouble.PROVIDER, Trouble.LOCAL_NETWORK)
"""What an agent can be held up by until its time is over, though it was answered in the end."""
_FAULTS: Final[Mapping[Outcome | None, str]] = {
    "stream_error": "the provider's stream was cut",
    "upstream_unreachable": "the provider could not be reached",
    "timeout": "the provider did not answer in time",
}
"""What a provider's failure is called where no status says it."""
_MAX_SAID: Final = 200


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What kept a cell from a fair result, or ``none``; the sentence; the ids of the calls that prove it."""

    failure_class: FailureClass
    reason: str
    evidence: list[str] = []


def classify(cell: Cell, calls: Sequence[Call], attempts: Sequence[Attempt]) -> Verdict:
    """The failure class of one attempt of a cell.

    Args:
        cell: its row, with phases, exit facts and grade.
        calls: the calls of this attempt, in any order.
        attempts: the tries upstream for these calls.

    """
    asked = model_calls(calls)
    by_call = attempts_by_call(attempts)
    return (
        _by_the_harness(cell)
        or _passed(cell)
        or _by_the_workspace(cell)
        or _by_a_budget(asked, by_call)
        or _by_the_lack_of_calls(cell, calls, asked)
        or _by_refusals(cell, asked, by_call)
        or _by_the_wire(asked, by_call)
        or _by_lost_time(cell, asked, attempts, by_call)
        or _by_the_exit(cell, asked)
        or _by_the_grader(cell)
    )


def _by_the_harness(cell: Cell) -> Verdict | None:
    if cell.failure_class == "cancelled":
        return Verdict(
            failure_class="cancelled", reason=cell.failure_reason or "the sweep was stopped during this cell"
        )
    broken = {phase.name: phase.error for phase in cell.phases if phase.error and not _is_uncollectable(phase)}
    for name in ("prepare", "run", "collect"):
        if name in broken:
            return Verdict(failure_class="harness_error", reason=f"the {name} phase broke: {broken[name]}")
    if "grade" in broken:
        return Verdict(failure_class="grader_error", reason=f"the grade phase broke: {broken['grade']}")
    if cell.ended_at is None:
        return Verdict(failure_class="harness_error", reason="the cell was never finished")
    return None


def _passed(cell: Cell) -> Verdict | None:
    if cell.grade is None or not cell.grade.passed:
        return None
    return Verdict(failure_class="none", reason="the grader passed")


def _is_uncollectable(phase: Phase) -> bool:
    return phase.name == "collect" and phase.error is not None and phase.error.startswith(UNCOLLECTABLE)


def _by_the_workspace(cell: Cell) -> Verdict | None:
    """An agent that leaves what cannot be read has failed: else it could choose not to be counted."""
    reason = next((phase.error for phase in cell.phases if _is_uncollectable(phase)), None)
    return None if reason is None else Verdict(failure_class="agent_error", reason=reason)


def _by_a_budget(asked: Sequence[Call], by_call: Mapping[str, list[Attempt]]) -> Verdict | None:
    refused = [call for call in asked if trouble_of(call, by_call.get(call.call_id, [])) is Trouble.BUDGET]
    if not refused:
        return None
    return _verdict("budget_exceeded", refused, f"a budget ended the run: {refused[0].error}")


def _by_the_lack_of_calls(cell: Cell, calls: Sequence[Call], asked: Sequence[Call]) -> Verdict | None:
    if asked or not cell.expects_calls:
        return None
    if cell.timed_out:
        return Verdict(failure_class="agent_timeout", reason="the agent ran out of time before its first model call")
    if cell.exit_code != 0:
        return Verdict(failure_class="agent_error", reason=f"{_exit_of(cell)} before its first model call")
    if calls:
        return _verdict("no_model_call", in_order(calls), f"none of the agent's calls ({len(calls)}) asked a model")
    return Verdict(failure_class="no_model_call", reason="the agent made no model call")


def _by_refusals(cell: Cell, asked: Sequence[Call], by_call: Mapping[str, list[Attempt]]) -> Verdict | None:
    """Every call refused: because the provider lacks something, which it said, or because of what the agent sent."""
    if not asked or any(trouble_of(call, by_call.get(call.call_id, [])) is not Trouble.REFUSED for call in asked):
        return None
    reason = _ended_in(Trouble.REFUSED, asked, asked, [])
    proving = [call for call in asked if shows_incompatibility(call, cell.model)]
    if not proving:
        return _verdict("agent_error", asked, f"{reason}, and no answer named anything that the provider lacks")
    said = _said(proving[-1])
    return _verdict("incompatible", asked, f"{reason}: {said}" if said else reason)


def _by_the_wire(asked: Sequence[Call], by_call: Mapping[str, list[Attempt]]) -> Verdict | None:
    """The trouble that the run ended in: that of the calls after the last answer."""
    answers = [position for position, call in enumerate(asked) if is_answered(call)]
    ending = asked[answers[-1] + 1 :] if answers else asked
    troubles = [(call, trouble_of(call, by_call.get(call.call_id, []))) for call in ending]
    infrastructure = [trouble for _, trouble in troubles if trouble is not None and trouble in _BLAME]
    if not infrastructure or (answers and troubles[-1][1] is Trouble.REFUSED):
        return None
    blamed = infrastructure[-1]
    calls = [call for call, trouble in troubles if trouble is blamed]
    return _verdict(_BLAME[blamed], calls, _ended_in(blamed, calls, asked, answers))


def _by_lost_time(
    cell: Cell, asked: Sequence[Call], attempts: Sequence[Attempt], by_call: Mapping[str, list[Attempt]]
) -> Verdict | None:
    """A timeout of which troubles that are not the agent's took at least half; the one that took most names it."""
    run = run_of(cell)
    if not cell.timed_out or run is None:
        return None
    lost = {trouble: held_up_us(cell, asked, attempts, {trouble}) for trouble in _TAKES_TIME}
    if 2 * held_up_us(cell, asked, attempts, lost.keys()) < run[1] - run[0] or not any(lost.values()):
        return None
    met = [call for call in asked if any(lost[trouble] for trouble in _met(call, by_call.get(call.call_id, [])))]
    parts = [f"{us / 1e6:.0f} s of the run went to {trouble.value}" for trouble, us in lost.items() if us]
    return _verdict(_BLAME[max(lost, key=lost.__getitem__)], met, ", ".join(parts))


def _met(call: Call, attempts: Sequence[Attempt]) -> set[Trouble]:
    """The troubles that took a call's time."""
    troubles = {trouble_of(call, attempts), *map(trouble_of_try, attempts)}
    if call.queue_ms:
        troubles.add(Trouble.THROTTLED)
    return {trouble for trouble in _TAKES_TIME if trouble in troubles}


def _by_the_exit(cell: Cell, asked: Sequence[Call]) -> Verdict | None:
    if cell.timed_out:
        return _verdict("agent_timeout", asked[-1:], "the agent was still running when its time was over")
    if not cell.expects_calls:
        return None
    if cell.exit_code != 0:
        return _verdict("agent_error", asked[-1:], _exit_of(cell))
    return None


def _exit_of(cell: Cell) -> str:
    """A run phase that did not break and left no exit code: the agent took the process that watches it with it."""
    if cell.exit_code is None:
        return "the agent's process was killed together with its supervisor"
    return f"the agent exited with {cell.exit_code}"


def _by_the_grader(cell: Cell) -> Verdict:
    """The agent had its fair run: the grader has the last word."""
    grade = cell.grade
    if grade is None:
        return Verdict(failure_class="grader_error", reason="the grader did not run")
    if grade.exit_code is None and not grade.timed_out:
        # A grader that could not be started broke its phase: this one was ended by what it ran.
        return Verdict(failure_class="none", reason="the agent finished, its work ended the grader")
    if grade.timed_out:
        return Verdict(failure_class="none", reason="the agent finished, its work ran out of the grader's time")
    return Verdict(failure_class="none", reason="the agent finished, its work did not pass")


def _verdict(failure_class: FailureClass, calls: Sequence[Call], reason: str) -> Verdict:
    return Verdict(failure_class=failure_class, reason=reason, evidence=[call.call_id for call in calls])


def _ended_in(trouble: Trouble, calls: Sequence[Call], asked: Sequence[Call], answers: Sequence[int]) -> str:
    count = len(calls)
    which = ("all", "the only") if count == len(asked) else ("the last", "the last")
    subject = f"{which[0]} {count} calls" if count > 1 else f"{which[1]} call"
    statuses = sorted({status for status in map(provider_status, calls) if status is not None})
    listed = f"HTTP {', '.join(map(str, statuses))}" if statuses else ""
    before = f", after {len(answers)} answered" if answers else ""
    fault = _fault(trouble, calls)
    if fault is not None:
        return f"{fault} ({', '.join(filter(None, (subject, listed)))}{before})"
    return f"{subject} ended in {trouble.value}{f' ({listed})' if listed else ''}{before}"


def _fault(trouble: Trouble, calls: Sequence[Call]) -> str | None:
    """The fault in the words of the outcome that these calls share, with what was recorded of the last of them."""
    outcomes = {call.outcome for call in calls}
    words = _FAULTS.get(calls[-1].outcome) if trouble is Trouble.PROVIDER and len(outcomes) == 1 else None
    said = _said(calls[-1])
    return f"{words}: {said}" if words and said else words


def _said(call: Call) -> str:
    """What was recorded of a call's end, on one line."""
    return " ".join((call.error or "").split())[:_MAX_SAID]
