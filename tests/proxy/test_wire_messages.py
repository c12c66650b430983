"""Anthropic messages: literal bytes in, exact facts out."""

import pytest

from cellmeter_proxy.record import Usage
from cellmeter_proxy.wire import AnswerFacts, StreamWatcher, read_answer

START_USAGE = '{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":1}'


def event(kind: str, members: str = "", *, named: bool = True) -> bytes:
    head = f"event: {kind}\n" if named else ""
    return f'{head}data: {{"type":"{kind}"{members and ","}{members}}}\n\n'.encode()


START = event("message_start", f'"message":{{"id":"msg_1","model":"claude","content":[],"usage":{START_USAGE}}}')
TEXT = event("content_block_delta", '"index":0,"delta":{"type":"text_delta","text":"hi"}')
TOOL = event("content_block_start", '"index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}')
SERVER_TOOL = event("content_block_start", '"index":2,"content_block":{"type":"server_tool_use","name":"web_search"}')
STOP = event("message_stop")


def delta(usage: str) -> bytes:
    return event("message_delta", f'"delta":{{"stop_reason":"tool_use"}},"usage":{usage}')


def watch(*events: bytes) -> StreamWatcher:
    watcher = StreamWatcher("messages")
    for number, one in enumerate(events):
        watcher.feed(one, number)
    watcher.finish()
    return watcher


def test_a_whole_answer_gives_its_facts() -> None:
    usage = (
        '{"input_tokens":10,"cache_read_input_tokens":5,'
        '"output_tokens":7,"output_tokens_details":{"thinking_tokens":3}}'
    )
    body = f"""{{"type":"message","id":"msg_1","model":"claude","stop_reason":"end_turn",
    "content":[{{"type":"text","text":"hi"}},{{"type":"tool_use"}},{{"type":"server_tool_use"}}],"usage":{usage}}}"""
    assert read_answer("messages", body.encode()) == AnswerFacts(
        response_model="claude",
        response_id="msg_1",
        finish_reason="end_turn",
        tool_calls=1,
        usage=Usage(prompt_tokens=15, cache_read_tokens=5, completion_tokens=7, reasoning_tokens=3),
        usage_source="provider",
        usage_json=usage,
        complete=True,
    )


@pytest.mark.parametrize("named", [True, False])
def test_a_stream_takes_its_input_from_the_start_and_its_output_from_the_last_delta(*, named: bool) -> None:
    stop = event("message_stop", named=named)
    watcher = watch(
        START, event("ping"), TEXT, TOOL, SERVER_TOOL, delta('{"output_tokens":5}'), delta('{"output_tokens":9}'), stop
    )
    assert watcher.terminal
    assert watcher.facts() == AnswerFacts(
        response_model="claude",
        response_id="msg_1",
        finish_reason="tool_use",
        tool_calls=1,
        usage=Usage(prompt_tokens=3210, cache_read_tokens=3000, cache_write_tokens=200, completion_tokens=9),
        usage_source="provider",
        usage_json=f'[{START_USAGE},{{"output_tokens":9}}]',
        complete=True,
    )
    assert watcher.ttft_ms == 2


def test_a_delta_that_counts_the_input_again_replaces_it() -> None:
    last = '{"input_tokens":15,"cache_creation_input_tokens":0,"cache_read_input_tokens":3300,"output_tokens":9}'
    facts = watch(START, delta(last), STOP).facts()
    assert facts.usage == Usage(prompt_tokens=3315, cache_read_tokens=3300, cache_write_tokens=0, completion_tokens=9)
    assert facts.usage_json == last
    nulls = watch(START, delta('{"input_tokens":null,"output_tokens":9}'), STOP).facts()
    assert nulls.usage.prompt_tokens == 3210


def test_a_stream_that_is_cut_knows_its_input_and_no_output() -> None:
    facts = watch(START, TEXT).facts()
    assert facts.usage == Usage(prompt_tokens=3210, cache_read_tokens=3000, cache_write_tokens=200)
    assert (facts.usage_source, facts.usage_json, facts.complete) == ("partial", START_USAGE, False)


def test_an_error_event_ends_a_stream() -> None:
    error = event("error", '"error":{"type":"overloaded_error","message":"Overloaded"}')
    watcher = watch(START, error)
    assert watcher.terminal
    assert watcher.facts().error == "overloaded_error: Overloaded"
    assert watcher.facts().usage_source == "partial"
    body = b'{"type":"error","error":{"type":"not_found_error","message":"no"},"request_id":"r"}'
    assert read_answer("messages", body) == AnswerFacts(error="not_found_error: no", complete=True)


@pytest.mark.parametrize(
    ("frame", "is_token"),
    [
        (START, False),
        (event("ping"), False),
        (event("content_block_start", '"content_block":{"type":"text","text":""}'), False),
        (event("content_block_delta", '"delta":{"type":"input_json_delta","partial_json":""}'), False),
        (event("content_block_delta", '"delta":{"type":"signature_delta","signature":"x"}'), False),
        (TEXT, True),
        (event("content_block_delta", '"delta":{"type":"thinking_delta","thinking":"x"}', named=False), True),
        (event("content_block_start", '"content_block":{"type":"redacted_thinking","data":"x"}'), True),
        (TOOL, True),
    ],
)
def test_only_what_the_model_made_is_a_first_token(frame: bytes, *, is_token: bool) -> None:
    assert watch(frame, delta('{"output_tokens":9}'), STOP).ttft_ms == (0 if is_token else None)
