"""Legacy completions, embeddings, and answers without usage."""

import pytest

from cellmeter_proxy.record import Dialect, Usage
from cellmeter_proxy.wire import AnswerFacts, StreamWatcher, read_answer

COMPLETION = b"""{"id":"cmpl-1","model":"m","choices":[{"index":0,"text":"hi","finish_reason":"length"}],
"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"""


def test_a_completion_gives_its_facts_streamed_and_not() -> None:
    expected = AnswerFacts(
        response_model="m",
        response_id="cmpl-1",
        finish_reason="length",
        tool_calls=0,
        usage=Usage(prompt_tokens=3, completion_tokens=1),
        usage_source="provider",
        usage_json='{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}',
        complete=True,
    )
    assert read_answer("completions", COMPLETION) == expected
    watcher = StreamWatcher("completions")
    watcher.feed(b'data: {"choices":[{"index":0,"text":""}]}\n\n', 1)
    watcher.feed(b"data: " + COMPLETION.replace(b"\n", b"") + b"\n\n", 2)
    watcher.feed(b"data: [DONE]\n\n", 3)
    assert watcher.facts() == expected
    assert (watcher.ttft_ms, watcher.max_gap_ms, watcher.frames, watcher.terminal) == (2, 1, 3, True)


def test_embeddings_have_input_only_and_that_is_all_of_their_usage() -> None:
    body = b'{"object":"list","model":"e","data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}'
    assert read_answer("embeddings", body) == AnswerFacts(
        response_model="e",
        usage=Usage(prompt_tokens=8),
        usage_source="provider",
        usage_json='{"prompt_tokens":8,"total_tokens":8}',
        complete=True,
    )
    assert read_answer("embeddings", b'{"data":[]}').usage_source == "none"


@pytest.mark.parametrize("dialect", ["models", "count_tokens", "unknown"])
def test_other_answers_use_no_tokens(dialect: Dialect) -> None:
    assert read_answer(dialect, b'{"input_tokens":14}') == AnswerFacts(complete=True)
    assert read_answer(dialect, b'{"error":{"message":"no"}}') == AnswerFacts(error="no", complete=True)
    assert read_answer(dialect, b"<html>") == AnswerFacts()


def test_a_stream_of_an_unknown_dialect_ends_at_any_known_end() -> None:
    watcher = StreamWatcher("unknown")
    assert watcher.feed(b'data: {"x":1}\n\n', 0) == b'data: {"x":1}\n\n'
    assert watcher.feed(b"event: message_stop\ndata: {}\n\n", 1) == b""
    assert watcher.facts() == AnswerFacts(complete=True)
    assert watcher.ttft_ms is None
