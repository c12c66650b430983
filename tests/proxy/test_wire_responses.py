"""The Responses API: literal bytes in, exact facts out."""

import pytest

from cellmeter_proxy.record import Usage
from cellmeter_proxy.wire import AnswerFacts, StreamWatcher, read_answer

USAGE = (
    '{"input_tokens":100,"input_tokens_details":{"cached_tokens":60,"cache_write_tokens":30},'
    '"output_tokens":9,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":109}'
)
COUNTED = Usage(prompt_tokens=100, cache_read_tokens=60, cache_write_tokens=30, completion_tokens=9, reasoning_tokens=4)


def response(status: str, more: str = "", output: str = "[]", usage: str = USAGE) -> str:
    return f'{{"id":"resp_1","model":"m","status":"{status}","output":{output},"usage":{usage},"error":null{more}}}'


def event(kind: str, members: str, *, named: bool = True) -> bytes:
    head = f"event: {kind}\n" if named else ""
    return f'{head}data: {{"type":"{kind}",{members}}}\n\n'.encode()


CREATED = event("response.created", f'"response":{response("in_progress", usage="null")}')
CALL_ADDED = event("response.output_item.added", '"output_index":0,"item":{"type":"function_call","name":"f"}')
CALL_DONE = event("response.output_item.done", '"output_index":0,"item":{"type":"function_call","name":"f"}')
TEXT = event("response.output_text.delta", '"item_id":"i","delta":"hi"')


def watch(*events: bytes) -> StreamWatcher:
    watcher = StreamWatcher("responses")
    for number, one in enumerate(events):
        watcher.feed(one, number)
    return watcher


@pytest.mark.parametrize(
    ("body", "reason", "calls", "error"),
    [
        (response("completed", output='[{"type":"message"}]'), "completed", 0, None),
        (
            response("completed", output='[{"type":"function_call"},{"type":"web_search_call"},{"type":"shell_call"}]'),
            "completed",
            2,
            None,
        ),
        (
            response("incomplete", ',"incomplete_details":{"reason":"max_output_tokens"}', '[{"type":"message"}]'),
            "max_output_tokens",
            0,
            None,
        ),
        (
            response("failed", ',"error":{"code":"server_error","message":"oops"}'),
            "failed",
            None,
            "server_error: oops",
        ),
    ],
)
def test_a_whole_answer_gives_its_facts(body: str, reason: str, calls: int | None, error: str | None) -> None:
    assert read_answer("responses", body.encode()) == AnswerFacts(
        response_model="m",
        response_id="resp_1",
        finish_reason=reason,
        tool_calls=calls,
        usage=COUNTED,
        usage_source="provider",
        usage_json=USAGE,
        error=error,
        complete=True,
    )


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_the_terminal_event_holds_the_facts_of_a_stream(status: str, *, named: bool) -> None:
    last = event(f"response.{status}", f'"sequence_number":9,"response":{response(status)}', named=named)
    watcher = watch(CREATED, CALL_ADDED, CALL_DONE, TEXT, last)
    assert watcher.terminal
    assert watcher.take_held() == last
    assert watcher.facts() == AnswerFacts(
        response_model="m",
        response_id="resp_1",
        finish_reason=status,
        tool_calls=1,
        usage=COUNTED,
        usage_source="provider",
        usage_json=USAGE,
        complete=True,
    )


def test_a_stream_that_is_cut_says_what_it_said() -> None:
    facts = watch(CREATED, TEXT).facts()
    assert facts == AnswerFacts(response_model="m", response_id="resp_1")


def test_an_error_event_ends_a_stream() -> None:
    watcher = watch(CREATED, event("error", '"code":"rate_limit","message":"slow down","param":null'))
    assert watcher.terminal
    assert watcher.facts().error == "rate_limit: slow down"
    assert watch(event("error", '"error":{"message":"x"}', named=False)).facts().error == "x"


@pytest.mark.parametrize(
    ("frame", "is_token"),
    [
        (CREATED, False),
        (event("response.in_progress", '"response":{}'), False),
        (event("response.output_item.added", '"item":{"type":"message"}'), False),
        (event("response.content_part.added", '"part":{"type":"output_text","text":""}'), False),
        (event("response.output_text.delta", '"delta":""'), False),
        (TEXT, True),
        (event("response.reasoning_summary_text.delta", '"delta":"x"', named=False), True),
        (event("response.function_call_arguments.delta", '"delta":"{"'), True),
        (CALL_ADDED, True),
        (event("response.output_item.done", '"item":{"type":"reasoning"}'), True),
    ],
)
def test_only_what_the_model_made_is_a_first_token(frame: bytes, *, is_token: bool) -> None:
    assert watch(b": x\n\n", frame).ttft_ms == (1 if is_token else None)
