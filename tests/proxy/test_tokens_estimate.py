import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_proxy.record import Dialect, Usage
from cellmeter_proxy.tokens import HIDDEN_REASONING, Calibration, Estimate, Fit, Key, estimate, learn

# The messages and the tool of https://github.com/openai/openai-cookbook, How_to_count_tokens_with_tiktoken (MIT),
# where they stand with the prompt tokens that the API counted.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates"
        " corporate jargon into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base"
        " on opportunities for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
WEATHER = [
    {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
    {"role": "user", "content": "What's the weather like in Pittsburgh?"},
]
WEATHER_TOOL = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    },
}


def chat(model: str = "gpt-4o", text: str = "hello", **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}], **more}).encode()


def said(text: str, **more: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text, **more}}]}).encode()


def image(width: int, height: int) -> dict[str, Any]:
    data = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height)
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}


@pytest.mark.parametrize(("model", "billed"), [("gpt-3.5-turbo", 129), ("gpt-4", 129), ("gpt-4o", 124)])
def test_a_prompt_of_text_is_what_openai_counts(model: str, billed: int) -> None:
    assert estimate("chat.completions", chat(model, messages=JARGON)).prompt_tokens == billed


@pytest.mark.parametrize(("model", "billed"), [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101)])
def test_a_prompt_with_tools_is_within_its_tolerance_of_what_openai_counts(model: str, billed: int) -> None:
    made = estimate(
        "chat.completions", chat(model, messages=WEATHER, tools=[{"type": "function", "function": WEATHER_TOOL}])
    )

    assert made.prompt_tokens == billed - 1
    assert made.prompt_tolerance is not None
    assert made.prompt_tolerance < 20


def test_the_same_tools_cost_a_model_that_reasons_eighty_tokens_more() -> None:
    tools = [{"type": "function", "function": WEATHER_TOOL}]
    gpt_4o, gpt_5 = (
        estimate("chat.completions", chat(model, messages=WEATHER, tools=tools)).prompt_tokens
        for model in ("gpt-4o", "gpt-5")
    )

    assert gpt_4o is not None
    assert gpt_5 == gpt_4o + 80 - 1


def test_one_conversation_has_one_count_in_every_dialect() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    requests: dict[Dialect, dict[str, Any]] = {
        "chat.completions": {"messages": messages},
        "responses": {"instructions": "Be brief.", "input": "hello"},
        "messages": {"system": "Be brief.", "messages": messages[1:]},
        "count_tokens": {"system": "Be brief.", "messages": messages[1:]},
    }

    made = {
        dialect: estimate(dialect, json.dumps({"model": "gpt-4o", **request}).encode()).prompt_tokens
        for dialect, request in requests.items()
    }

    assert set(made.values()) == {3 + 1 + 3 + 3 + 1 + 1 + 3}


def test_an_embedding_has_a_prompt_and_no_completion() -> None:
    made = estimate(
        "embeddings", b'{"model": "text-embedding-3-small", "input": ["hello world", "hello"]}', b'{"data": []}'
    )

    assert (made.prompt_tokens, made.completion_tokens) == (3, None)
    assert made.counted_prompt_tokens is None


@pytest.mark.parametrize(
    ("model", "tools", "prompt"),
    [
        ("openai/gpt-oss-120b", False, 60 + 8),
        ("llama-3.3-70b", False, 27 + 8),
        ("claude-sonnet-4-5", False, round(1.14 * 8)),
        ("unheard-of", False, 8),
        ("claude-sonnet-4-5", True, round(500 + 1.14 * (8 + 95))),
    ],
)
def test_other_vendors_have_the_ratio_and_the_offset_of_their_family(model: str, tools: bool, prompt: int) -> None:
    more: dict[str, Any] = {"tools": [{"type": "function", "function": WEATHER_TOOL}]} if tools else {}

    made = estimate("chat.completions", chat(model, **more))

    assert made.prompt_tokens == pytest.approx(prompt, abs=15 if tools else 0)
    assert made.key == Key(host="", model=model, tools=tools)


def test_a_calibration_takes_the_place_of_the_family_and_is_named_in_the_method() -> None:
    calibration = Calibration()
    for text in ("hello", "hello " * 30, "word " * 200):
        plain = estimate("chat.completions", chat("gpt-oss-120b", text), host="api.groq.com")
        assert plain.counted_prompt_tokens is not None
        calibration = learn(calibration, plain, Usage(prompt_tokens=plain.counted_prompt_tokens + 64))

    made = estimate("chat.completions", chat("gpt-oss-120b"), host="api.groq.com", calibration=calibration)
    elsewhere = estimate("chat.completions", chat("gpt-oss-120b"), host="api.cerebras.ai", calibration=calibration)

    assert (made.prompt_tokens, elsewhere.prompt_tokens) == (8 + 64, 8 + 60)
    assert made.method == "o200k_base, ratio 1 and offset +64 learned from 3 calls"
    assert elsewhere.method == "o200k_base, rules for gpt-oss: ratio 1, offset +60"
    assert made.version.startswith("cellmeter rules 1, tiktoken 0.")


def test_a_calibration_of_completions_corrects_completions() -> None:
    key = Key(host="h", model="gpt-4o", tools=False, part="completion")
    calibration = Calibration().observe(key, counted=2, billed=5)

    made = estimate("chat.completions", chat(), said("hello world"), host="h", calibration=calibration)

    assert (made.prompt_tokens, made.completion_tokens) == (8, 5)


@pytest.mark.parametrize(
    ("model", "usage", "offset"),
    [
        ("gpt-4o", Usage(completion_tokens=5), 3.0),
        ("gpt-5", Usage(completion_tokens=512, reasoning_tokens=501), 9.0),
        ("gpt-5", Usage(completion_tokens=512), None),
        ("gpt-4o", Usage(prompt_tokens=8), None),
    ],
)
def test_reasoning_that_is_billed_and_not_shown_teaches_nothing_about_text(
    model: str, usage: Usage, offset: float | None
) -> None:
    learned = learn(Calibration(), estimate("chat.completions", chat(model), said("hello world"), host="h"), usage)

    fitted = learned.fit(Key(host="h", model=model, tools=False, part="completion"), ratio=1.0)
    assert fitted == (None if offset is None else Fit(ratio=1.0, offset=offset, calls=1, error=0.0))


def test_a_call_with_an_image_or_without_a_readable_request_teaches_nothing() -> None:
    seen = estimate("chat.completions", chat(messages=[{"role": "user", "content": [image(9, 9)]}]))

    for made in (seen, estimate("chat.completions", b""), Estimate(method="none", version="1")):
        assert learn(Calibration(), made, Usage(prompt_tokens=10, completion_tokens=10)) == Calibration()


def test_an_answer_is_counted_once_joined() -> None:
    pieces = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in ("hel", "lo wo", "rld")]
    streamed = b"".join(b"data: %b\n\n" % json.dumps(piece).encode() for piece in pieces) + b"data: [DONE]\n\n"

    for answer in (said("hello world"), streamed):
        made = estimate("chat.completions", chat(), answer)
        assert (made.completion_tokens, made.completion_tolerance, made.flags) == (2, 9, [])


def test_a_model_that_hides_its_reasoning_gives_a_lower_bound() -> None:
    made = estimate("chat.completions", chat("gpt-5-mini"), said("hello world"))

    assert made.completion_tokens == 2 + 9
    assert made.completion_tolerance is None
    assert made.flags == [HIDDEN_REASONING]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (chat("gpt-5.2", reasoning_effort="none"), said("hello world")),
        (chat("deepseek-reasoner"), said("hello", reasoning_content=" world")),
    ],
)
def test_reasoning_that_is_off_or_shown_is_no_lower_bound(request_: bytes, answer: bytes) -> None:
    made = estimate("chat.completions", request_, answer)

    assert (made.completion_tokens, made.flags) == (2, [])
    assert made.completion_tolerance is not None


def test_summed_up_thinking_is_a_lower_bound_for_any_model() -> None:
    answer = {"content": [{"type": "thinking", "thinking": "In short"}, {"type": "text", "text": "hello"}]}
    made = estimate("messages", chat("claude-sonnet-4-5", thinking={"type": "enabled"}), json.dumps(answer).encode())

    assert (made.prompt_tokens, made.completion_tokens, made.flags) == (30 + 9, 1, [HIDDEN_REASONING])


def test_an_answer_that_is_not_all_text_has_no_tolerance_and_teaches_nothing() -> None:
    made = estimate("chat.completions", chat(), said("hello", audio={"data": "x"}))

    assert (made.completion_tokens, made.completion_tolerance, made.flags) == (1, None, ["audio not counted"])
    assert made.counted_completion_tokens is None


def test_an_image_is_counted_from_its_header_or_named_as_not_counted() -> None:
    seen = chat(messages=[{"role": "user", "content": [image(512, 512), {"type": "text", "text": "hello"}]}])
    named = chat(
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]
    )

    with_size, without = (estimate("chat.completions", body) for body in (seen, named))

    assert (with_size.prompt_tokens, with_size.flags) == (8 + 85 + 170, [])
    assert (without.prompt_tokens, without.flags, without.prompt_tolerance) == (7, ["image not counted"], None)
    assert with_size.counted_prompt_tokens is without.counted_prompt_tokens is None


def test_the_model_that_answered_decides() -> None:
    assert estimate("chat.completions", chat("alias"), model="gpt-5").prompt_tokens == 7


def test_a_request_that_cannot_be_read_is_none_and_never_zero() -> None:
    made = estimate("chat.completions", b"\x00", said("hello"))

    assert (made.prompt_tokens, made.completion_tokens, made.flags) == (None, 1, ["request not readable"])
    assert (made.prompt_tolerance, made.counted_prompt_tokens) == (None, None)


def test_a_call_without_an_answer_has_no_completion() -> None:
    made = estimate("chat.completions", chat(), b'{"error": {"message": "rate limited"}}')

    assert (made.prompt_tokens, made.completion_tokens) == (8, None)


def test_arguments_nested_to_any_depth_cost_at_most_the_estimate() -> None:
    call = '{"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": %s}}]}]}'
    outcomes = [
        estimate("chat.completions", (call % ("[" * depth + "]" * depth)).encode()).flags for depth in range(500, 1_100)
    ]

    assert outcomes[0] == []
    assert outcomes[-1] == ["request not readable"]
    assert ["nested too deeply to be counted"] in outcomes


def test_text_beyond_the_bound_is_extrapolated_and_says_so() -> None:
    made = estimate("chat.completions", chat(text="word " * 1_800_000))

    assert made.flags == ["too long to be counted whole: extrapolated"]
    assert made.prompt_tokens == pytest.approx(1_800_000, rel=0.001)
    assert made.prompt_tolerance is not None


KEYS = st.sampled_from(
    [
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "image_url",
        "url",
        "source",
        "data",
        "name",
        "tool_calls",
        "function_call",
        "function",
        "arguments",
        "tools",
        "parameters",
        "properties",
        "items",
        "enum",
        "anyOf",
        "required",
        "input",
        "instructions",
        "output",
        "system",
        "input_schema",
        "prompt",
        "choices",
        "delta",
        "message",
        "index",
        "reasoning",
        "reasoning_content",
        "response_format",
        "json_schema",
        "schema",
        "output_index",
        "item",
        "response",
        "object",
        "content_block",
    ]
)
VALUES = st.sampled_from(
    [
        "text",
        "image_url",
        "input_image",
        "tool_use",
        "tool_result",
        "function",
        "custom",
        "message",
        "function_call",
        "reasoning",
        "response",
        "object",
        "array",
        "gpt-5",
        "claude-opus-4-8",
        "qwen3",
        "response.output_item.done",
        "response.output_text.delta",
        "content_block_start",
        "text_delta",
        "data:image/png;base64,iVBORw0KGgo=",
        "assistant",
        "system",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | VALUES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)
DIALECTS: list[Dialect] = [
    "chat.completions",
    "completions",
    "responses",
    "messages",
    "embeddings",
    "models",
    "unknown",
]


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(DIALECTS), st.dictionaries(KEYS, JSON), st.dictionaries(KEYS, JSON))
def test_no_request_and_no_answer_make_an_estimate_raise(
    dialect: Dialect, request: dict[str, Any], answer: dict[str, Any]
) -> None:
    body = json.dumps(answer).encode()

    for form in (body, b"data: " + body):
        made = estimate(dialect, json.dumps(request).encode(), form)
        assert isinstance(made, Estimate)
        assert all(one is None or one >= 0 for one in (made.prompt_tokens, made.completion_tokens))


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(DIALECTS), st.binary(), st.binary())
def test_no_bytes_make_an_estimate_raise(dialect: Dialect, request: bytes, answer: bytes) -> None:
    assert estimate(dialect, request, answer).method
