"""``cellmeter audit`` as a reader sees it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cellmeter_harness.cli import invoke
from cellmeter_proxy.log import Log, digest_of, make_blob
from cellmeter_proxy.record import Record, Reported
from cellmeter_scoring.testing import CELL_ID, at, make_attempt, make_call, make_cell, make_failed_call

Shown = Callable[..., list[str]]

REQUEST = b'{"messages":[{"role":"user","content":"hi"}]}'
ANSWER = b'{"choices":[{"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}'
CALLS = (
    make_call(
        "a",
        1,
        seq=1,
        prompt_tokens=12_345,
        cache_read_tokens=10_000,
        completion_tokens=678,
        reasoning_tokens=500,
        message_count=2,
        new_messages=2,
        ttft_ms=812.34,
        latency_ms=12_345.6,
        finish_reason="tool_calls",
        cost=0.0123,
    ),
    make_failed_call("b", 3, 429, seq=2, message_count=4, new_messages=2),
    make_call(
        "c",
        5,
        seq=3,
        request_hash="c1:sha256:b",
        prompt_tokens=None,
        completion_tokens=None,
        estimated_prompt_tokens=13_000,
        estimated_completion_tokens=50,
        usage_source="estimated",
        message_count=4,
        new_messages=0,
        cost=None,
    ),
)


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shown:
    """A function that puts rows into a log, and gives the lines of their audit."""

    def show(*rows: Record, options: tuple[str, ...] = ()) -> list[str]:
        with Log.create(tmp_path / "a.db", "process") as log:
            log.append(*rows)
            log.put_blob(make_blob(REQUEST))
            log.put_blob(make_blob(ANSWER))
        assert invoke(["audit", str(tmp_path / "a.db"), *options]) == 0
        return capsys.readouterr().out.splitlines()

    return show


def test_the_table_shows_what_each_call_spent_and_the_lines_below_it_what_to_look_at(shown: Shown) -> None:
    lines = shown(*CALLS)
    assert set(lines[2].strip()) == {"─"}
    assert lines[:7] == [
        f"session {CELL_ID}, 2026-05-28, vendor/small",
        " #  UTC        prompt  cached  new  compl.  think  TTFT ms  latency ms  status, finish    cost $  retry of",
        lines[2],
        " 1  20:26:41   12,345  10,000  2/2     678    500    812.3      12,346  200 tool_calls  0.012300",
        " 2  20:26:43        –       –  2/4       –      –        –       1,000  429                    –",
        " 3  20:26:45  ~13,000       –  0/4     ~50      –        –       1,000  200 stop               –  #2",
        "",
    ]
    assert lines[7] == (
        "3 calls, 12,345 prompt tokens (10,000 cached) + ~13,000 estimated for 1 call,"
        " 678 completion tokens (500 reasoning) + ~50 estimated for 1 call, $0.012300 and 1 call without a price"
    )
    assert lines[8:] == [
        "! estimate: 1 call: token counts are estimates (#3)",
        "! throttled: 1 call: ended in HTTP 429 (#2)",
        "! agent retry: 1 call: made again by the agent after a failure (#3)",
    ]


def test_a_column_is_there_only_where_it_says_something(shown: Shown) -> None:
    lines = shown(make_call("a", 1, seq=1))
    assert lines[1].split() == ["#", "UTC", "prompt", "compl.", "latency", "ms", "status,", "finish", "cost", "$"]
    assert lines[-1] == "1 call, 1,000 prompt tokens, 100 completion tokens, $0.010000"


def test_a_session_of_several_models_names_them_and_one_of_several_tries_counts_them(shown: Shown) -> None:
    lines = shown(
        make_call("a", 1, seq=1),
        make_call("b", 3, seq=2, response_model="other"),
        make_attempt("b", 1, 3, 429),
        make_attempt("b", 2, 4, 200),
    )
    assert lines[0] == f"session {CELL_ID}, 2026-05-28"
    assert lines[3].split()[2] == "vendor/small"
    assert lines[4].split()[2] == "other"
    assert lines[4].split()[-2:] == ["2", "0.010000"]


SAME = "c1:sha256:same"
FIVE = (
    make_failed_call("a", 1, 429, seq=1, request_hash=SAME),
    make_failed_call("b", 5, 503, seq=2, request_hash=SAME),
    make_failed_call("c", 9.5, None, seq=3, request_hash=SAME),
    make_call(
        "d", 14, seq=4, request_hash=SAME, outcome="client_gone", client_gone_at=at(16), ended_at=at(30), queue_ms=12.0
    ),
    make_call("e", 18, seq=5, request_hash=SAME, attached_to="d", provider_tools=["web_search", "mcp:https://x.test"]),
    make_attempt("d", 1, 14, 429),
    make_attempt("d", 2, 14.5, 429, waited_ms=400.0),
    make_attempt("d", 3, 17, 200, waited_ms=2400.0),
)


def test_retries_waits_and_tools_of_the_provider_have_columns_of_their_own(shown: Shown) -> None:
    lines = shown(*FIVE)
    heading = lines[1]
    assert heading.rstrip().endswith("tries  queue ms  waited ms    cost $  retry of      provider tools")
    columns = [heading.index(name) for name in ("queue ms", "retry of", "provider tools")]
    assert [line[columns[1] : columns[2]].strip() for line in lines[3:8]] == ["", "#1", "#2", "#3", "#4, attached"]
    assert lines[6][columns[0] :].split()[:2] == ["12.0", "2,800"]
    assert lines[7].endswith("  web_search, mcp:https://x.test")


@pytest.mark.parametrize("options", [(), ("--format", "json"), ("--format", "jsonl"), ("--format", "csv")])
def test_how_many_operations_the_calls_are_is_said_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    with Log.create(tmp_path / "a.db", "process") as log:
        log.append(*FIVE)
    assert invoke(["audit", str(tmp_path / "a.db"), *options]) == 0
    out, err = capsys.readouterr()
    assert err == "5 calls are 1 operation: the agent made 4 calls again, after 12.0 s of waiting\n"
    assert "operation" not in out if not options else "operation_id" in out


def test_a_wait_that_nobody_measured_is_not_counted_as_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Log.create(tmp_path / "a.db", "process") as log:
        log.append(
            make_call("a", 1, seq=1, request_hash=SAME, outcome="interrupted", ended_at=None, writer="host/0/0"),
            make_failed_call("b", 4, 429, seq=2, request_hash=SAME),
            make_call("c", 6, seq=3, request_hash=SAME),
            make_call("d", 8, seq=4),
        )
    assert invoke(["audit", str(tmp_path / "a.db")]) == 0
    assert capsys.readouterr().err == (
        "4 calls are 2 operations: the agent made 2 calls again, after at least 1.0 s of waiting\n"
    )


def test_calls_that_were_not_made_again_are_told_of_with_no_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Log.create(tmp_path / "a.db", "process") as log:
        log.append(make_call("a", 1, seq=1), make_call("b", 3, seq=2))
    assert invoke(["audit", str(tmp_path / "a.db"), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [(call["operation_id"], call["retry_of"]) for call in json.loads(out)] == [("a", None), ("b", None)]


def test_each_session_has_its_table_and_the_totals_are_over_all(shown: Shown) -> None:
    lines = shown(make_call("a", 1, seq=1), make_call("b", 2, seq=1, session="shell", cost=None))
    assert [line for line in lines if line.startswith("session")] == [
        f"session {CELL_ID}, 2026-05-28, vendor/small",
        "session shell, 2026-05-28, vendor/small",
    ]
    assert lines[-2].startswith("2 calls, 2,000 prompt tokens")
    assert lines[-1] == "! no price: 1 call: not priced (vendor/small)"


@pytest.mark.parametrize(
    ("reported", "line"),
    [
        (
            Reported(prompt_tokens=2000),
            "printed 2,000 prompt tokens (stdout, rounded from 1,950 to 2,049), recorded 2,000: agrees",
        ),
        (Reported(completion_tokens=100), "printed 100 completion tokens (stdout), recorded 200: last call only"),
        (Reported(prompt_tokens=1999), "printed 1,999 prompt tokens (stdout), recorded 2,000: differs"),
    ],
)
def test_what_the_agent_printed_is_one_line_for_each_count(shown: Shown, reported: Reported, line: str) -> None:
    lines = shown(make_cell(reported=reported), make_call("a", 1, seq=1), make_call("b", 3, seq=2))
    assert lines[-1] == f"the agent {line}"


def test_a_total_that_was_rounded_call_by_call_says_so(shown: Shown) -> None:
    calls = (make_call("a", 1, seq=1, prompt_tokens=1349), make_call("b", 3, seq=2, prompt_tokens=606))
    lines = shown(make_cell(reported=Reported(prompt_tokens=1906)), *calls)
    assert lines[-1] == "the agent printed 1,906 prompt tokens (stdout), recorded 1,955: agrees but for its rounding"


def test_estimates_stand_beside_the_providers_counts_when_they_are_asked_for(shown: Shown) -> None:
    bodies = {"body_hash": digest_of(REQUEST), "request_blob": digest_of(REQUEST), "response_blob": digest_of(ANSWER)}
    call = make_call("a", 1, seq=1, prompt_tokens=8, completion_tokens=1, request_model="gpt-4o", **bodies)
    lines = shown(call, options=("--estimate",))
    assert lines[1].split()[:6] == ["#", "UTC", "prompt", "≈prompt", "compl.", "≈compl."]
    assert lines[3].split()[2:6] == ["8", "8", "1", "1"]


def test_the_estimates_are_in_the_machine_formats_too(shown: Shown) -> None:
    bodies = {"body_hash": digest_of(REQUEST), "request_blob": digest_of(REQUEST), "response_blob": digest_of(ANSWER)}
    call = make_call("a", 1, seq=1, prompt_tokens=8, completion_tokens=1, request_model="gpt-4o", **bodies)
    (line,) = shown(call, options=("--estimate", "--format", "jsonl"))
    document = json.loads(line)
    assert (document["estimated_prompt_tokens"], document["usage_source"]) == (8, "provider")


def test_an_embedding_has_no_output_to_be_counted(shown: Shown) -> None:
    lines = shown(make_call("a", 1, seq=1, dialect="embeddings", completion_tokens=None))
    assert lines[-1] == "1 call, 1,000 prompt tokens, 0 completion tokens, $0.010000"


def test_a_log_without_calls_says_so(shown: Shown) -> None:
    assert shown() == ["no calls"]
