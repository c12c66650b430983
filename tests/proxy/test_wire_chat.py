"""Chat completions: literal bytes in, exact facts out."""

import json

import pytest

from cellmeter_proxy.record import Usage
from cellmeter_proxy.wire import AnswerFacts, StreamWatcher, read_answer

ANSWER = b"""

{"id":"chatcmpl-1","object":"chat.completion","model":"m-2026","choices":[{"index":0,"message":{"role":"assistant",
"content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},
{"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"}],
"usage": {"prompt_tokens":20, "completion_tokens": 9.0,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":12},
"completion_tokens_details":{"reasoning_tokens":4}},"error":null}"""


def stream(*data: str, end: str = "data: [DONE]\n\n", at: float = 0) -> StreamWatcher:
    watcher = StreamWatcher("chat.completions")
    for number, one in enumerate(data):
        watcher.feed(f"data: {one}\n\n".encode(), at + number)
    watcher.feed(end.encode(), at + len(data))
    watcher.finish()
    return watcher


def chunk(delta: str = "{}", finish: str = "null", more: str = "") -> str:
    return f'{{"id":"c","model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]{more}}}'


def test_a_whole_answer_gives_its_facts() -> None:
    assert read_answer("chat.completions", ANSWER) == AnswerFacts(
        response_model="m-2026",
        response_id="chatcmpl-1",
        finish_reason="tool_calls",
        tool_calls=2,
        usage=Usage(prompt_tokens=20, cache_read_tokens=12, completion_tokens=9, reasoning_tokens=4),
        usage_source="provider",
        usage_json='{"prompt_tokens":20, "completion_tokens": 9.0,"total_tokens":29,"prompt_tokens_details":'
        '{"cached_tokens":12},\n"completion_tokens_details":{"reasoning_tokens":4}}',
        complete=True,
    )


def test_a_stream_gives_the_same_kind_of_facts() -> None:
    watcher = stream(
        chunk('{"role":"assistant","content":""}', more=',"usage":null'),
        chunk('{"content":"hi"}', more=',"usage":null'),
        chunk(finish='"stop"', more=',"usage":null'),
        '{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}',
    )
    assert watcher.facts() == AnswerFacts(
        response_model="m",
        response_id="c",
        finish_reason="stop",
        tool_calls=0,
        usage=Usage(prompt_tokens=5, completion_tokens=2),
        usage_source="provider",
        usage_json='{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}',
        complete=True,
    )
    assert (watcher.ttft_ms, watcher.frames) == (1.0, 5)


STOP = chunk(finish='"stop"')


@pytest.mark.parametrize(
    ("frames", "usage", "source"),
    [
        ([STOP], Usage(), "none"),
        ([chunk(more=',"usage":null'), STOP], Usage(), "none"),
        ([STOP, '{"choices":[],"usage":{}}'], Usage(), "none"),
        (
            [chunk(finish='"stop"', more=',"usage":{"prompt_tokens":5,"completion_tokens":2}')],
            Usage(prompt_tokens=5, completion_tokens=2),
            "provider",
        ),
        (
            [STOP, '{"choices":null,"usage":{"prompt_tokens":5,"completion_tokens":2}}', '{"usage":null}'],
            Usage(prompt_tokens=5, completion_tokens=2),
            "provider",
        ),
        (
            [
                chunk('{"content":"a"}', more=',"usage":{"prompt_tokens":5,"completion_tokens":1}'),
                chunk('{"content":"b"}', more=',"usage":{"prompt_tokens":5,"completion_tokens":2}'),
                STOP,
                '{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}',
            ],
            Usage(prompt_tokens=5, completion_tokens=3),
            "provider",
        ),
        (
            [chunk(finish='"stop"', more=',"x_groq":{"id":"r","usage":{"prompt_tokens":5,"completion_tokens":2}}')],
            Usage(prompt_tokens=5, completion_tokens=2),
            "provider",
        ),
        (
            [
                STOP,
                (
                    '{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,'
                    '"prompt_cache_hit_tokens":3,"prompt_cache_miss_tokens":2}}'
                ),
            ],
            Usage(prompt_tokens=5, cache_read_tokens=3, completion_tokens=2),
            "provider",
        ),
        ([STOP, '{"choices":[],"usage":{"prompt_tokens":5}}'], Usage(prompt_tokens=5), "partial"),
        (
            [STOP, '{"choices":[],"usage":{"prompt_tokens":"5","completion_tokens":true,"total_tokens":7}}'],
            Usage(),
            "none",
        ),
        (
            [STOP, '{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":[1]}}'],
            Usage(prompt_tokens=5, completion_tokens=2),
            "provider",
        ),
    ],
)
def test_usage_is_taken_wherever_a_provider_puts_it(frames: list[str], usage: Usage, source: str) -> None:
    facts = stream(*frames).facts()
    assert (facts.usage, facts.usage_source) == (usage, source)
    assert (facts.usage_json is None) == (source == "none")


def test_counting_along_in_a_stream_that_is_cut_is_partial() -> None:
    cut = stream(chunk('{"content":"a"}', more=',"usage":{"prompt_tokens":5,"completion_tokens":1}'), end="")
    assert (cut.facts().usage_source, cut.facts().complete) == ("partial", False)
    finished = stream(chunk(finish='"stop"', more=',"usage":{"prompt_tokens":5,"completion_tokens":1}'), end="")
    assert (finished.facts().usage_source, finished.facts().complete) == ("provider", False)


def test_usage_after_an_early_end_still_counts() -> None:
    watcher = StreamWatcher("chat.completions")
    assert watcher.feed(b"data: [DONE]\n\n", 0) == b""
    assert watcher.feed(b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n', 1) == b""
    assert watcher.facts().usage == Usage(prompt_tokens=5, completion_tokens=2)


def test_output_that_leaves_reasoning_out_is_made_whole() -> None:
    xai = b"""{"choices":[],"usage":{"prompt_tokens":10120,"completion_tokens":1499,"total_tokens":14428,
    "completion_tokens_details":{"reasoning_tokens":2809}}}"""
    assert read_answer("chat.completions", xai).usage.completion_tokens == 1499 + 2809
    gemini = b'{"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":198,"total_tokens":623}}'
    assert read_answer("chat.completions", gemini).usage.completion_tokens == 603


def test_the_cost_that_openrouter_reports_is_kept() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"cost":0.00014}}'
    assert read_answer("chat.completions", body).provider_cost == 0.00014
    assert read_answer("chat.completions", body.replace(b"0.00014", b"1e999")).provider_cost is None


TOOL = '{{"tool_calls":[{{{},"function":{{"arguments":"x"}}}}]}}'


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        (['{"content":"x"}'], 0),
        ([TOOL.format('"index":0,"id":"a"'), TOOL.format('"index":0'), TOOL.format('"index":1,"id":"b"')], 2),
        ([TOOL.format('"index":0,"id":"a"'), TOOL.format('"index":0,"id":"a"')], 1),
        ([TOOL.format('"index":0,"id":"a"'), TOOL.format('"index":0,"id":"b"')], 2),
        ([TOOL.format('"id":"a"'), TOOL.format('"id":"b"')], 2),
        (['{"function_call":{"name":"f"}}', '{"function_call":{"arguments":"{}"}}'], 1),
        (['{"tool_calls":null}', '{"tool_calls":{"index":0}}'], 0),
    ],
)
def test_tool_calls_are_counted_once_each(deltas: list[str], calls: int) -> None:
    assert stream(*map(chunk, deltas)).facts().tool_calls == calls


@pytest.mark.parametrize(
    ("frame", "is_token"),
    [
        (chunk('{"role":"assistant"}'), False),
        (chunk('{"role":"assistant","content":""}'), False),
        (chunk('{"content":null,"tool_calls":[]}'), False),
        ('{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}', False),
        ('{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}', False),
        ('{"error":{"message":"x"}}', False),
        (chunk('{"content":" "}'), True),
        (chunk('{"reasoning_content":"x"}'), True),
        (chunk('{"reasoning":"x"}'), True),
        (chunk('{"refusal":"x"}'), True),
        (chunk('{"content":[{"type":"thinking","thinking":[]}]}'), True),
        (chunk('{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}'), True),
    ],
)
def test_only_what_the_model_made_is_a_first_token(frame: str, *, is_token: bool) -> None:
    watcher = StreamWatcher("chat.completions")
    watcher.feed(b": keep-alive\n\n", 1)
    watcher.feed(f"data: {frame}\n\n".encode(), 2)
    watcher.feed(f"data: {chunk()}\n\n".encode(), 3)
    assert watcher.ttft_ms == (2 if is_token else None)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"error":{"message":"Slow down","type":"requests","code":"rate_limit"}}', "rate_limit: Slow down"),
        ('[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]', "400: bad"),
        ('{"error":"just text"}', "just text"),
        ('{"error":{}}', None),
        ('{"error":{"a":1}}', '{"a":1}'),
        ('{"object":"error","message":"no","type":"invalid_request_error","code":null}', "invalid_request_error: no"),
        ('{"detail":"Not Found"}', "Not Found"),
        ('{"detail":[{"msg":"x"}]}', '[{"msg":"x"}]'),
    ],
)
def test_the_error_of_an_answer_is_a_sentence(body: str, error: str | None) -> None:
    facts = read_answer("chat.completions", body.encode())
    assert (facts.error, facts.complete, facts.tool_calls) == (error, True, None)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ('{"error":{"message":"overloaded","code":502}}', "502: overloaded"),
        ('{"choices":[],"x_groq":{"error":"failed"}}', "failed"),
        (chunk(finish='"error"', more=',"error":{"message":"gone"}'), "gone"),
    ],
)
def test_an_error_inside_a_stream_is_told(frame: str, error: str) -> None:
    assert stream(chunk('{"content":"a"}'), frame).facts().error == error


@pytest.mark.parametrize("body", [b"", b"not json", b'{"id":"c"', b"null", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_an_answer_is_not_complete(body: bytes) -> None:
    assert read_answer("chat.completions", body) == AnswerFacts()


def test_a_field_of_the_wrong_type_does_not_cost_the_others() -> None:
    body = json.dumps(
        {
            "id": 7,
            "model": ["m"],
            "choices": [None, 3, {"index": "x", "message": "no", "finish_reason": {}}, {"finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2**70, "cost": "free"},
        }
    ).encode()
    facts = read_answer("chat.completions", body)
    assert facts == AnswerFacts(
        finish_reason="stop",
        tool_calls=0,
        usage=Usage(prompt_tokens=5),
        usage_source="partial",
        usage_json=facts.usage_json,
        complete=True,
    )


def test_text_that_is_not_unicode_does_not_cost_the_facts() -> None:
    body = b"""{"id":"c\\ud800","choices":[{"message":{"content":"\\udfff \xff"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":5,"completion_tokens":2, "x":"\\ud800"}}"""
    facts = read_answer("chat.completions", body)
    assert (facts.response_id, facts.finish_reason, facts.usage_source) == ("c?", "stop", "provider")
    assert facts.usage_json == '{"prompt_tokens":5,"completion_tokens":2, "x":"\\ud800"}'
