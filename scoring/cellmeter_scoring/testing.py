"""Rows of a plausible cell for tests of scoring code: each builder gives a complete row and takes what differs.

The cell starts at ``START``; ``at(seconds)`` is a moment of it.
"""

from typing import Any, Final

import msgspec

from cellmeter_proxy.record import Attempt, Call, Cell, Grade, TaskFacts, Workspace

START: Final = 1_780_000_000_000_000
CELL_ID: Final = "s1/aider/vendor/small/mutations/retry#run1"


def at(seconds: float) -> int:
    """A moment of the cell, in microseconds since the epoch."""
    return START + round(seconds * 1_000_000)


def make_cell(**changes: Any) -> Cell:
    """A cell of twenty seconds whose agent fixed ``src/lib.rs`` and passed."""
    cell = Cell(
        cell_id=CELL_ID,
        sweep_id="s1",
        agent="aider",
        model="vendor/small",
        category="mutations",
        task="retry",
        run=1,
        task_digest="sha256:00",
        isolation="process",
        started_at=START,
        ended_at=at(20),
        exit_code=0,
        task_facts=TaskFacts(
            language="rust",
            description="Retry loop condition negated",
            timeout_s=600,
            expected_changes=["src/lib.rs"],
        ),
        workspace=Workspace(modified=["src/lib.rs"]),
        grade=Grade(exit_code=0, passed=True, stdout_tail="4 passed"),
    )
    return msgspec.structs.replace(cell, **changes)


def make_call(call_id: str, second: float = 1, **changes: Any) -> Call:
    """A chat completion of one second within the cell: 1,000 tokens in, 100 out, as the provider counted them."""
    call = Call(
        call_id=call_id,
        session=CELL_ID,
        cell_id=CELL_ID,
        cell_attempt=1,
        writer="host/1/1",
        state="closed",
        endpoint="/v1/chat/completions",
        dialect="chat.completions",
        request_model="vendor/small",
        stream=False,
        request_hash=f"c1:sha256:{call_id}",
        status=200,
        outcome="ok",
        finish_reason="stop",
        prompt_tokens=1000,
        completion_tokens=100,
        usage_source="provider",
        cost=0.01,
        price_source="genai-prices 0.2.3 vendor/small",
        started_at=at(second),
        ended_at=at(second + 1),
        latency_ms=1000.0,
    )
    return msgspec.structs.replace(call, **changes)


def make_failed_call(call_id: str, second: float, status: int | None, **changes: Any) -> Call:
    """A call that the provider refused with a status, or, without one, that did not reach it. It carries no usage."""
    failed = make_call(
        call_id,
        second,
        status=502 if status is None else status,
        outcome="upstream_unreachable" if status is None else "http_error",
        finish_reason=None,
        prompt_tokens=None,
        completion_tokens=None,
        usage_source="none",
        cost=None,
        price_source=None,
    )
    return msgspec.structs.replace(failed, **changes)


def make_attempt(call_id: str, n: int, second: float, status: int | None, **changes: Any) -> Attempt:
    """One try upstream of a tenth of a second."""
    attempt = Attempt(call_id=call_id, n=n, started_at=at(second), status=status, latency_ms=100.0)
    return msgspec.structs.replace(attempt, **changes)
