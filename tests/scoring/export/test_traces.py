"""The OTLP document, held against its own rules and against exact spans."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellmeter_proxy.log import Log, make_blob
from cellmeter_proxy.record import Span
from cellmeter_scoring.export import to_otel
from cellmeter_scoring.export.otlp import attributes
from cellmeter_scoring.testing import CELL_ID, START, at, make_attempt, make_call, make_cell, make_failed_call

MESSAGES: dict[str, set[str]] = {
    "resourceSpans": {"resource", "scopeSpans"},
    "resource": {"attributes"},
    "scopeSpans": {"scope", "spans"},
    "scope": {"name", "version"},
    "spans": {"traceId", "spanId", "parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano"}
    | {"attributes", "events", "links", "status"},
    "links": {"traceId", "spanId"},
    "events": {"timeUnixNano", "name", "attributes"},
    "status": {"message", "code"},
    "attributes": {"key", "value"},
    "values": {"stringValue", "boolValue", "intValue", "doubleValue", "arrayValue", "kvlistValue", "key", "value"},
    "value": {"stringValue", "boolValue", "intValue", "doubleValue", "arrayValue", "kvlistValue"},
    "arrayValue": {"values"},
    "kvlistValue": {"values"},
}
"""The fields of each message, by the field that holds it; trace.proto and common.proto of OTLP 1.x."""
SECRET = "sk-proj-0123456789abcdefghijklmnop"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    timeline = make_blob(b"[[12.5,100],[20.0,7]]")
    step: dict[str, Any] = {"cell_id": CELL_ID, "cell_attempt": 1}
    with Log.create(tmp_path / "log.db", "process") as log:
        log.append(
            timeline,
            make_cell(agent_version="0.86.2", failure_class="rate_limited", failure_reason="429 to the end"),
            make_cell(attempt=2, started_at=at(60), ended_at=None),
            Span(span_id="s1", kind="adapter_run", name="aider:retry", started_at=START, duration_ms=1500.5, **step),
            Span(
                span_id="s2", parent_id="s1", kind="container", name="aider:launch", started_at=at(1), duration_ms=0.5,
                attrs={"argv": ["aider", "--yes"], "exit_code": None, "limits": {"cpu": 2}}, error="killed", **step,
            ),
            make_call(
                "a", 1, seq=1, upstream="https://api.openai.com/v1", stream=True, timeline_blob=timeline.digest,
                cache_read_tokens=10, response_id="r1", client_session="ses_1",
            ),
            make_failed_call("b", 3, 429, seq=2, error=f"slow down {SECRET}", upstream="http://127.0.0.1:8000"),
            make_call("c", 5, seq=1, session="other", cell_id=None, cell_attempt=None, request_model=None),
            make_call("d", 6, seq=2, session="other", cell_id=None, cell_attempt=None, state="open", ended_at=None,
                      status=None, outcome=None),
            make_attempt("b", 1, 3, 429, retry_after_ms=1000.0),
            make_attempt("b", 2, 4, 429),
        )  # fmt: skip
        yield log


def spans(log: Log, **chosen: str) -> dict[str, dict[str, Any]]:
    """The spans by the call, cell, attempt or step that they are of."""
    document = json.loads("".join(to_otel(log, **chosen)))
    found = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return {str(values(span).get("cellmeter.call_id") or f"{span['name']}"): span for span in found}


def values(holder: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: next(iter(pair["value"].values()), None) for pair in holder.get("attributes", [])}


def check(name: str, message: object) -> None:
    """Hold a message against the rules of OTLP's JSON."""
    if isinstance(message, list):
        for item in message:
            check(name, item)
    elif isinstance(message, dict):
        assert set(message) <= MESSAGES[name], name
        for key, value in message.items():
            check(key, value)
    elif name in {"traceId", "spanId", "parentSpanId"}:
        assert re.fullmatch("[0-9a-f]{32}" if name == "traceId" else "[0-9a-f]{16}", str(message))
    elif name in {"intValue", "timeUnixNano", "startTimeUnixNano", "endTimeUnixNano"}:
        assert isinstance(message, str)
        assert str(int(message)) == message
    elif name in {"kind", "code"}:
        assert message in {1, 2, 3}
    else:
        assert isinstance(message, {"doubleValue": float, "boolValue": bool}.get(name, str)), name


def test_the_document_obeys_the_rules_of_its_encoding_and_is_one_line(log: Log) -> None:
    text = "".join(to_otel(log))
    assert text.count("\n") == 1
    assert text.endswith("\n")
    check("resourceSpans", json.loads(text)["resourceSpans"])
    assert "null" not in text


def test_a_call_has_the_names_of_the_conventions(log: Log) -> None:
    span = spans(log)["a"]
    assert (span["name"], span["kind"], span["status"]) == ("chat vendor/small", 3, {})
    assert (span["startTimeUnixNano"], span["endTimeUnixNano"]) == ("1780000001000000000", "1780000002000000000")
    found = values(span)
    assert {name: value for name, value in found.items() if not name.startswith("cellmeter.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.agent.name": "aider",
        "gen_ai.agent.version": "0.86.2",
        "gen_ai.request.model": "vendor/small",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "r1",
        "gen_ai.response.finish_reasons": {"values": [{"stringValue": "stop"}]},
        "gen_ai.response.time_to_first_chunk": 0.0125,
        "gen_ai.conversation.id": "ses_1",
        "gen_ai.usage.input_tokens": "1000",
        "gen_ai.usage.output_tokens": "100",
        "gen_ai.usage.cache_read.input_tokens": "10",
        "http.request.method": "POST",
        "http.response.status_code": "200",
        "url.path": "/v1/chat/completions",
        "server.address": "api.openai.com",
        "server.port": "443",
    }
    assert found["cellmeter.request_hash"] == "c1:sha256:a"
    assert found["cellmeter.usage_source"] == "provider"
    assert found["cellmeter.cost"] == 0.01
    assert "cellmeter.cost" not in values(spans(log)["b"])


def test_a_failed_call_says_why_and_how_often_it_was_tried(log: Log) -> None:
    span = spans(log)["b"]
    assert span["status"]["code"] == 2
    assert span["status"]["message"].startswith("slow down ")
    found = values(span)
    assert (found["error.type"], found["server.port"]) == ("429", "8000")
    assert (found["cellmeter.attempt"], found["cellmeter.retry_after_ms"]) == ("2", 1000.0)
    assert "gen_ai.usage.input_tokens" not in found
    assert [(event["timeUnixNano"], values(event)["cellmeter.n"]) for event in span["events"]] == [
        ("1780000003000000000", "1"),
        ("1780000004000000000", "2"),
    ]


def test_a_retry_links_to_the_call_that_it_makes_again_and_counts_those_before(tmp_path: Path) -> None:
    same: dict[str, Any] = {"request_hash": "c1:sha256:same"}
    alone: dict[str, Any] = {**same, "session": "shell", "cell_id": None, "cell_attempt": None}
    with Log.create(tmp_path / "log.db", "process") as log:
        log.append(
            *(make_failed_call(name, 3 * n, 429, seq=n, **same) for n, name in enumerate("ab", 1)),
            make_call("c", 9, seq=3, **same),
            make_failed_call("x", 1, 500, seq=1, **alone),
            make_call("y", 5, seq=2, **alone),
        )
        found = spans(log)
    check("spans", list(found.values()))
    for after, before in (("b", "a"), ("c", "b"), ("y", "x")):
        assert found[after]["links"] == [{"traceId": found[before]["traceId"], "spanId": found[before]["spanId"]}]
    assert [values(found[name]).get("http.request.resend_count") for name in "abcxy"] == [None, "1", "2", None, "1"]
    assert [values(found[name])["cellmeter.operation_id"] for name in "abcxy"] == ["a", "a", "a", "x", "x"]
    assert values(found["c"])["cellmeter.retry_of"] == "b"
    assert "links" not in found["a"]


def test_a_cell_is_a_trace_with_its_steps_and_calls_below(log: Log) -> None:
    found = spans(log, cell=CELL_ID)
    document = json.loads("".join(to_otel(log, cell=CELL_ID)))
    first, second = document["resourceSpans"][0]["scopeSpans"][0]["spans"][:2]
    assert first["name"] == second["name"] == "invoke_agent aider"
    assert first["traceId"] != second["traceId"]
    assert "parentSpanId" not in first
    assert first["status"] == {"message": "429 to the end", "code": 2}
    assert values(first)["error.type"] == "rate_limited"
    assert second["startTimeUnixNano"] == second["endTimeUnixNano"]
    assert found["aider:retry"]["parentSpanId"] == found["a"]["parentSpanId"] == first["spanId"]
    assert found["aider:launch"]["parentSpanId"] == found["aider:retry"]["spanId"]
    assert {found[name]["traceId"] for name in ("a", "b", "aider:retry", "aider:launch")} == {first["traceId"]}
    launch = found["aider:launch"]
    assert launch["status"] == {"message": "killed", "code": 2}
    assert launch["endTimeUnixNano"] == "1780000001000500000"
    assert values(launch)["cellmeter.argv"] == {"values": [{"stringValue": "aider"}, {"stringValue": "--yes"}]}
    assert "cellmeter.exit_code" not in values(launch)
    assert set(found) == {"invoke_agent aider", "aider:retry", "aider:launch", "a", "b"}


def test_a_call_outside_a_sweep_is_a_trace_of_its_own(log: Log) -> None:
    found = spans(log, session="other")
    assert set(found) == {"c", "d"}
    assert found["c"]["traceId"] != found["d"]["traceId"]
    assert "parentSpanId" not in found["c"]
    assert found["c"]["name"] == "chat"
    assert found["d"]["startTimeUnixNano"] == found["d"]["endTimeUnixNano"]
    assert values(found["d"])["cellmeter.state"] == "open"
    assert found["d"]["status"] == {}


def test_a_call_whose_cell_is_not_in_the_log_has_no_parent_that_is_missing(tmp_path: Path) -> None:
    with Log.create(tmp_path / "log.db", "process") as log:
        log.append(make_call("a", seq=1))
        assert "parentSpanId" not in spans(log)["a"]


def test_identifiers_are_the_same_in_every_export_and_differ_within_one(log: Log) -> None:
    first, second = "".join(to_otel(log)), "".join(to_otel(log))
    assert first == second
    ids = re.findall(r'"spanId":"([0-9a-f]+)"', first)
    assert len(ids) == len(set(ids)) == 8


def test_no_key_goes_out(log: Log) -> None:
    assert SECRET not in "".join(to_otel(log))


def test_a_log_without_calls_is_an_empty_document(tmp_path: Path) -> None:
    with Log.create(tmp_path / "log.db", "process") as log:
        assert json.loads("".join(to_otel(log)))["resourceSpans"][0]["scopeSpans"][0]["spans"] == []


def test_values_keep_their_kinds() -> None:
    pairs = attributes(
        {"none": None, "yes": True, "big": 2**53 + 1, "ratio": 0.5, "list": [1, None], "map": {"a": "b"}}
    )
    assert [pair.key for pair in pairs] == ["yes", "big", "ratio", "list", "map"]
    assert [pair.value.bool_value for pair in pairs] == [True, None, None, None, None]
    assert pairs[1].value.int_value == "9007199254740993"
    assert pairs[2].value.double_value == 0.5
    assert pairs[3].value.array_value is not None
    assert [item.int_value for item in pairs[3].value.array_value.values] == ["1", None]
    assert pairs[4].value.kvlist_value is not None
    assert pairs[4].value.kvlist_value.values[0].value.string_value == "b"
