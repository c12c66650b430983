"""What a row says that contradicts itself, each case a literal row; rows as they are really written have no finding."""

from typing import Any

import pytest
from msgspec.structs import replace

from cellmeter_proxy.log import digest_of, writer_name
from cellmeter_proxy.record import (
    Artifact,
    Attempt,
    Call,
    Dialect,
    Egress,
    Grade,
    Phase,
    Record,
    ScoreRow,
    Span,
    Sweep,
)
from cellmeter_scoring.finding import Finding
from cellmeter_scoring.soundness.rows import row_findings
from cellmeter_scoring.testing import CELL_ID, START, at, make_attempt, make_call, make_cell

NOW = at(3600)
DAY = 24 * 3600
USAGE = '{"prompt_tokens": 1000, "completion_tokens": 100}'
NO_COUNTS: dict[str, Any] = {"prompt_tokens": None, "completion_tokens": None, "usage_source": "none", "usage": None}
BLOBS: dict[str, Any] = {"request_blob": "sha256:1", "response_blob": "sha256:2", "body_hash": "sha256:1"}
CALL = make_call("a", seq=1, usage=USAGE, **BLOBS)
OPEN = replace(CALL, state="open", outcome=None, ended_at=None, status=None, response_blob=None, **NO_COUNTS)
REJECTED = replace(CALL, outcome="rejected", status=401, cost=None, price_source=None, response_blob=None, **NO_COUNTS)
CELL = make_cell(failure_class="none", phases=[Phase(name="run", started_at=START, ended_at=at(20))])
SPAN = Span(span_id="s", cell_id=CELL_ID, cell_attempt=1, kind="grade", name="grade", started_at=START, duration_ms=1.0)
SCORE = ScoreRow(
    cell_id=CELL_ID,
    cell_attempt=1,
    methodology="cab-0.1",
    axis="tokens",
    value=0.0,
    scorer_version="0.1.0",
    scored_at=START,
)
EGRESS = Egress(host="h", port=1, allowed=False, at=START)
SWEEP = Sweep(
    sweep_id="s1", spec="{}", spec_digest=digest_of(b"{}"), started_at=START, software_version="0.1.0", host="{}"
)


def findings(row: Record) -> list[Finding]:
    return list(row_findings(row, NOW, lambda writer: writer != "host/1/1"))


def found(row: Record) -> list[str]:
    return [finding.kind for finding in findings(row)]


@pytest.mark.parametrize(
    "row",
    [
        CALL,
        replace(CALL, session=f"{CELL_ID}@2", cell_attempt=2),
        replace(CALL, cell_id=None, cell_attempt=None, session="anonymous"),
        replace(OPEN, writer=writer_name()),
        replace(OPEN, state="interrupted", outcome="interrupted"),
        replace(CALL, outcome="client_gone", client_gone_at=at(2)),
        REJECTED,
        replace(REJECTED, state="interrupted", outcome="interrupted", response_bytes=300_000),
        replace(CALL, cost=None, price_source=None),
        replace(CALL, **NO_COUNTS | {"usage_source": "estimated"}, estimated_prompt_tokens=1, estimate_method="m"),
        replace(CALL, latency_ms=10.0, ttft_ms=10.5),
        replace(CALL, retry_number=0, frames=0, redactions=0),
        CELL,
        replace(CELL, ended_at=None, failure_class=None, grade=None, phases=[]),
        replace(CELL, ended_at=None, failure_class="harness_error", grade=None),
        replace(CELL, exit_code=-9),
        make_attempt("a", 1, 1, 200),
        SPAN,
        SCORE,
        replace(SCORE, value=None, unscored="no usage"),
        EGRESS,
        SWEEP,
    ],
)
def test_a_row_as_it_is_written_has_no_finding(row: Record) -> None:
    assert findings(row) == []


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (replace(CALL, ended_at=START), "impossible time"),
        (replace(CALL, client_gone_at=START), "impossible time"),
        (replace(CALL, latency_ms=-1.0), "impossible time"),
        (replace(CALL, queue_ms=float("inf")), "impossible time"),
        (replace(CALL, latency_ms=10.0, ttft_ms=12.0), "impossible time"),
        (replace(CALL, latency_ms=10.0, headers_ms=12.0), "impossible time"),
        (replace(CALL, latency_ms=10.0, max_gap_ms=12.0), "impossible time"),
        (replace(CALL, ended_at=at(DAY)), "impossible time"),
        (replace(CALL, frames=-1), "impossible number"),
        (replace(CALL, cost=-0.5), "impossible number"),
        (replace(CALL, session="elsewhere"), "name"),
        (replace(CALL, cell_attempt=2), "name"),
        (OPEN, "open row"),
        (replace(OPEN, writer=writer_name(), outcome="http_error"), "incomplete row"),
        (replace(OPEN, writer=writer_name(), ended_at=at(2)), "incomplete row"),
        (replace(CALL, outcome=None), "incomplete row"),
        (replace(CALL, ended_at=None), "incomplete row"),
        (replace(CALL, state="interrupted"), "incomplete row"),
        (replace(CALL, status=None), "incomplete row"),
        (replace(CALL, response_blob=None), "incomplete row"),
        (replace(CALL, outcome="http_error", request_blob=None), "incomplete row"),
        (replace(CALL, prompt_tokens=999), "usage"),
        (replace(CALL, completion_tokens=None), "usage"),
        (replace(CALL, reasoning_tokens=0), "usage"),
        (replace(CALL, usage=None), "usage"),
        (replace(CALL, **NO_COUNTS | {"prompt_tokens": 0}), "usage"),
        (replace(CALL, usage="null"), "usage"),
        (replace(CALL, usage="{"), "usage"),
        (replace(CALL, **NO_COUNTS | {"usage_source": "provider"}), "usage"),
        (replace(CALL, **NO_COUNTS | {"usage_source": "estimated"}), "unmeasured"),
        (replace(CALL, **NO_COUNTS, estimated_prompt_tokens=1, estimate_method="m"), "unmeasured"),
        (replace(CALL, estimated_prompt_tokens=1), "unmeasured"),
        (replace(REJECTED, response_bytes=0), "unmeasured"),
        (replace(REJECTED, frames=0), "unmeasured"),
        (replace(CALL, cost=None), "unmeasured"),
        (replace(CALL, price_source=None), "unmeasured"),
        (replace(CELL, ended_at=START - 1), "impossible time"),
        (replace(CELL, phases=[Phase(name="run", started_at=at(2), ended_at=at(1))]), "impossible time"),
        (replace(CELL, phases=[Phase(name="run", started_at=at(-2), ended_at=at(1))]), "impossible time"),
        (replace(CELL, failure_class=None), "incomplete row"),
        (replace(CELL, ended_at=None, grade=Grade()), "incomplete row"),
        (replace(CELL, model="vendor/large"), "name"),
        (replace(CELL, run=2), "name"),
        (make_attempt("a", 1, DAY, 200), "impossible time"),
        (make_attempt("a", 1, 1, 200, waited_ms=-1.0), "impossible time"),
        (replace(SPAN, duration_ms=-1.0), "impossible time"),
        (replace(SPAN, started_at=-1), "impossible time"),
        (replace(SCORE, unscored="no usage"), "unmeasured"),
        (replace(SCORE, value=None), "unmeasured"),
        (replace(EGRESS, at=at(DAY)), "impossible time"),
        (replace(EGRESS, sent_bytes=-1), "impossible number"),
        (Artifact(cell_id=CELL_ID, cell_attempt=1, name="stdout", blob="sha256:1", size=-1), "impossible number"),
        (replace(SWEEP, spec="[]"), "digest"),
    ],
)
def test_a_contradiction_is_found_and_named(row: Record, kind: str) -> None:
    assert found(row) == [kind]
    named = {Attempt: "a", Call: "a", Span: "s", Egress: "h", Sweep: "s1"}.get(type(row), CELL_ID)
    assert findings(row)[0].ids == [named]


@pytest.mark.parametrize(
    ("dialect", "usage", "counts"),
    [
        ("chat.completions", '{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}', (7, None, None, 3, None)),
        ("chat.completions", '{"prompt_tokens":7,"completion_tokens":3,"total_tokens":15}', (7, None, None, 8, None)),
        (
            "responses",
            '{"input_tokens":7,"input_tokens_details":{"cached_tokens":0},"output_tokens":3}',
            (7, 0, None, 3, None),
        ),
        ("embeddings", '{"prompt_tokens":7,"total_tokens":7}', (7, None, None, None, None)),
        (
            "messages",
            '{"input_tokens":7,"cache_read_input_tokens":5,"cache_creation_input_tokens":1,"output_tokens":3}',
            (13, 5, 1, 3, None),
        ),
        (
            "messages",
            '[{"input_tokens":7,"output_tokens":1},{"output_tokens":3,"cache_read_input_tokens":null}]',
            (7, None, None, 3, None),
        ),
    ],
)
def test_counts_are_held_against_the_usage_object_of_every_dialect(
    dialect: Dialect, usage: str, counts: tuple[int | None, ...]
) -> None:
    names = ("prompt_tokens", "cache_read_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens")
    call = replace(CALL, dialect=dialect, usage=usage, **dict(zip(names, counts, strict=True)))
    assert findings(call) == []
    for name in names:
        assert found(replace(call, **{name: 99})) == ["usage"], name


def test_a_stream_of_messages_that_broke_off_has_no_output_though_its_first_event_counts_one() -> None:
    broken = replace(
        CALL,
        dialect="messages",
        usage_source="partial",
        outcome="stream_error",
        usage='{"input_tokens":7,"output_tokens":1}',
        prompt_tokens=7,
        completion_tokens=None,
    )
    assert findings(broken) == []
    assert found(replace(broken, usage_source="provider")) == ["usage"]
    assert found(replace(broken, prompt_tokens=None)) == ["usage"]
