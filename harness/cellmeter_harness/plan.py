"""What is left to be done of a sweep, decided from what its log holds. Pure: nothing here touches a file.

Rules: the newest attempt at a cell counts. A cell is done when that attempt was completed and did not fail for
the infrastructure's reasons. Cells that did are tried again within the sweep's bound, which counts attempts of
all runs; a cancelled attempt, one whose harness died, and one that ended because the whole sweep had spent its budget
(so that it had less than others had) are no failures, are not counted, and are made again.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence

import msgspec

from cellmeter_harness.sweep import CellPlan, SweepDocument
from cellmeter_proxy.budget import is_of_sweep
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import Cell


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt at a cell that is to be made."""

    plan: CellPlan
    attempt: int
    failures: int = 0
    """How many attempts at it failed for the infrastructure's reasons so far."""


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """The cells of a sweep by what is to become of them."""

    pending: list[Pending]
    done: list[Cell]
    exhausted: list[Cell]
    """Newest attempts that failed for the infrastructure's reasons, with no further one within the bound."""


def outlook(plans: Sequence[CellPlan], rows: Sequence[Cell], bound: int, infrastructure: Collection[str]) -> Outlook:
    """Sort the cells of a sweep by what its log holds.

    Args:
        plans: the cells, in the order in which they are to be run.
        rows: every attempt that the log holds.
        bound: how many further attempts a cell gets that failed for the infrastructure's reasons.
        infrastructure: the failure classes that are the infrastructure's.

    """
    history: dict[str, list[Cell]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.attempt):
        history[row.cell_id].append(row)
    found = Outlook(pending=[], done=[], exhausted=[])
    for plan in plans:
        past = history[plan.cell_id]
        failures = sum(1 for row in past if is_failure(row, infrastructure))
        if past and _is_done(past[-1], infrastructure):
            found.done.append(past[-1])
        elif past and is_failure(past[-1], infrastructure) and failures > bound:
            found.exhausted.append(past[-1])
        else:
            attempt = past[-1].attempt + 1 if past else 1
            found.pending.append(Pending(plan=plan, attempt=attempt, failures=failures))
    return found


def once_more(found: Outlook, plans: Sequence[CellPlan], bound: int) -> Outlook:
    """The same cells where those that are out of attempts get one more each, after all others."""
    planned = {plan.cell_id: plan for plan in plans}
    further = [Pending(plan=planned[row.cell_id], attempt=row.attempt + 1, failures=bound) for row in found.exhausted]
    return Outlook(pending=[*found.pending, *further], done=found.done, exhausted=[])


def is_failure(row: Cell, infrastructure: Collection[str]) -> bool:
    """Whether an attempt was completed and failed for the infrastructure's reasons."""
    return row.ended_at is not None and row.failure_class in infrastructure and row.failure_class != "cancelled"


def _is_done(row: Cell, infrastructure: Collection[str]) -> bool:
    return row.ended_at is not None and row.failure_class not in infrastructure and not was_cut_short(row)


def was_cut_short(row: Cell) -> bool:
    """Whether an attempt ended because the cells of its sweep had together spent what they may."""
    return row.failure_class == "budget_exceeded" and is_of_sweep(row.failure_reason or "")


def again(pending: Pending, cell: Cell, bound: int, infrastructure: Collection[str]) -> Pending | None:
    """The further attempt that a cell gets after an attempt, if any."""
    if not is_failure(cell, infrastructure) or pending.failures >= bound:
        return None
    return Pending(plan=pending.plan, attempt=pending.attempt + 1, failures=pending.failures + 1)


def abandoned(rows: Sequence[Cell]) -> list[Cell]:
    """The rows of attempts whose harness died, completed as far as they can be.

    The caller must know that no other run of the sweep is alive.
    """
    reason = "the harness ended before the cell did"
    return [
        msgspec.structs.replace(row, failure_class="harness_error", failure_reason=reason)
        for row in rows
        if row.ended_at is None and row.failure_class is None
    ]


def refuse_mixture(
    plans: Sequence[CellPlan],
    done: Sequence[Cell],
    *,
    before: SweepDocument | None,
    now: SweepDocument,
    isolation: str,
    versions: dict[str, str],
) -> None:
    """Make sure that finished cells and new ones will have been run under the same conditions.

    Args:
        plans: the cells of the sweep as its file has them now.
        done: those that are finished.
        before: what the sweep was when it was last run; None if it never was.
        now: what it is.
        isolation: how cells will be isolated.
        versions: the versions of the agents that will run, by name.

    Raises:
        CellmeterError: something has changed; the sentence names it, and a cell that stands on it.

    """
    planned = {plan.cell_id: plan for plan in plans}
    for cell in done:
        plan = planned[cell.cell_id]
        version = versions.get(cell.agent, plan.agent.version)
        changes = {
            f"the task {plan.task.id} has changed": cell.task_digest != plan.task.digest,
            f"its isolation was {cell.isolation} and would be {isolation}": cell.isolation != isolation,
            f"{cell.agent} was version {cell.agent_version} and is {version}": cell.agent_version != version,
        }
        if before is not None:
            digest = before.agents.get(cell.agent, plan.agent.digest)
            changes |= {
                f"the agent {cell.agent} has changed": digest != plan.agent.digest,
                f"its upstream was {before.upstream} and would be {now.upstream}": before.upstream != now.upstream,
                f"its time limit was {before.timeout_s} and would be {now.timeout_s}": before.timeout_s
                != now.timeout_s,
                "the budget of its cells has changed": before.budget != now.budget,
                "the provider-side tools that it grants have changed": before.granted_tools != now.granted_tools,
            }
        for change, happened in changes.items():
            if happened:
                raise CellmeterError(
                    f"the sweep cannot be resumed: {change} since {cell.cell_id} was run",
                    hint="undo the change, or give the sweep another name or another log",
                    exit_code=2,
                )


def merged(before: SweepDocument | None, now: SweepDocument) -> SweepDocument:
    """What the sweep is from now on: agents and tasks that its file no longer names are still remembered."""
    if before is None:
        return now
    return msgspec.structs.replace(now, agents=before.agents | now.agents, tasks=before.tasks | now.tasks)
