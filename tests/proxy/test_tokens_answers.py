import json

import pytest

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.tokens.answers import Answer, answer_of
from cellmeter_proxy.tokens.conversation import ToolCall


def stream(*events: object) -> bytes:
    return b"".join(b": ping\n\ndata: %b\n\n" % json.dumps(event).encode() for event in events)


def body(answer: object) -> bytes:
    return b"\n" + json.dumps(answer).encode()


def delta(index: int = 0, **said: object) -> dict[str, object]:
    return {"object": "chat.completion.chunk", "choices": [{"index": index, "delta": said}]}


def test_a_chat_answer_is_its_text_and_its_tool_calls() -> None:
    answer = {
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Looking.",
                    "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": '{"at": 1}'}}],
                },
            }
        ],
    }

    assert answer_of("chat.completions", body(answer)) == Answer(
        texts=["Looking."], tool_calls=[ToolCall(name="look", arguments='{"at": 1}')]
    )


def test_a_chat_stream_is_joined_per_choice_and_tool_call() -> None:
    events = stream(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(1, content="Bon"),
        delta(content="lo"),
        delta(1, content="jour"),
        delta(tool_calls=[{"index": 1, "function": {"name": "b", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"name": "a", "arguments": '{"x"'}}]),
        delta(tool_calls=[{"index": 1, "function": {"arguments": "{}"}}]),
        delta(tool_calls=[{"index": 0, "function": {"name": "a", "arguments": ":1}"}}]),
        {"choices": [], "usage": None, "obfuscation": "random padding"},
    )

    assert answer_of("chat.completions", events + b"data: [DONE]") == Answer(
        texts=["Hello", "Bonjour"],
        tool_calls=[ToolCall(name="b", arguments="{}"), ToolCall(name="a", arguments='{"x":1}')],
    )


def test_shown_reasoning_is_generated_text_once_under_either_of_its_names() -> None:
    events = stream(delta(reasoning_content="Let me", reasoning="Let me"), delta(reasoning=" see."))

    assert answer_of("chat.completions", events) == Answer(texts=["", "Let me see."], shown_reasoning=True)


def test_content_in_parts_is_joined_and_its_thinking_is_shown_reasoning() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}]}
    events = stream(delta(content=[thinking]), delta(content=[{"type": "text", "text": "Yes"}]), delta(content="."))

    assert answer_of("chat.completions", events) == Answer(texts=["Yes.", "Let me see."], shown_reasoning=True)


@pytest.mark.parametrize(
    ("dialect", "answer", "sentence"),
    [
        ("chat.completions", {"choices": [{"message": {"audio": {"data": "x"}}}]}, "audio not counted"),
        (
            "responses",
            {"object": "response", "output": [{"type": "image_generation_call"}]},
            "item of an unknown type not counted",
        ),
    ],
)
def test_what_was_generated_and_is_no_text_is_named(dialect: Dialect, answer: object, sentence: str) -> None:
    read = answer_of(dialect, body(answer))

    assert read is not None
    assert read.uncounted == [sentence]


def test_encrypted_reasoning_is_hidden_reasoning() -> None:
    answer = answer_of("chat.completions", stream(delta(reasoning_details=[{"type": "reasoning.encrypted"}])))

    assert answer is not None
    assert answer.hidden_reasoning


def test_a_legacy_completion_is_its_text() -> None:
    chunks = stream({"choices": [{"index": 0, "text": "Once"}]}, {"choices": [{"index": 0, "text": " upon"}]})

    assert answer_of("completions", chunks) == Answer(texts=["Once upon"])


def test_a_responses_stream_gives_the_same_answer_cut_or_whole() -> None:
    item = {"type": "function_call", "name": "look", "arguments": '{"at":1}'}
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
    begun = [
        {"type": "response.created", "response": {"object": "response", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "lo"},
        {"type": "response.output_item.added", "output_index": 1, "item": {**item, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"at"'},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": ":1}"},
    ]
    items = [
        {"type": "response.output_item.done", "output_index": 0, "item": message},
        {"type": "response.output_item.done", "output_index": 1, "item": item},
    ]
    ended = [{"type": "response.completed", "response": {"object": "response", "output": [message, item]}}]
    expected = Answer(texts=["Hello"], tool_calls=[ToolCall(name="look", arguments='{"at":1}')])

    for events in (begun, begun + items, begun + items + ended, items, ended):
        assert answer_of("responses", stream(*events)) == expected
    assert answer_of("responses", body({"object": "response", "output": [message, item]})) == expected


def test_a_reasoning_item_is_hidden_unless_its_text_is_shown() -> None:
    hidden = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Thought."}], "encrypted_content": "g"}
    shown = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Let me see."}]}

    assert answer_of("responses", body({"object": "response", "output": [hidden]})) == Answer(hidden_reasoning=True)
    assert answer_of("responses", body({"object": "response", "output": [shown]})) == Answer(
        texts=["Let me see."], shown_reasoning=True
    )


def test_a_cut_stream_tells_reasoning_that_is_shown_from_reasoning_that_is_not() -> None:
    added = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "summary": []}}
    shown = {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "Let me"}

    assert answer_of("responses", stream(added)) == Answer(hidden_reasoning=True)
    assert answer_of("responses", stream(added, shown)) == Answer(texts=["Let me"], shown_reasoning=True)


def test_a_tool_call_without_a_name_is_still_generated_text() -> None:
    calls = [{"index": 0, "function": {"name": "", "arguments": "{}"}}]

    assert answer_of("chat.completions", stream(delta(tool_calls=calls))) == Answer(texts=["", "{}"])


def test_a_messages_answer_is_the_same_streamed_or_not() -> None:
    whole = {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "In short", "signature": "s"},
            {"type": "text", "text": "Looking."},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}},
        ],
    }
    events = stream(
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "In short"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Look"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ing."}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "name": "look", "input": {}}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"at":'}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 40}},
    )
    expected = Answer(
        texts=["Looking."], tool_calls=[ToolCall(name="look", arguments='{"at":1}')], hidden_reasoning=True
    )

    assert answer_of("messages", body(whole)) == expected
    assert answer_of("messages", events) == expected


@pytest.mark.parametrize(
    "dialect", ["chat.completions", "completions", "responses", "messages", "embeddings", "unknown"]
)
def test_documents_that_show_no_answer_give_none(dialect: Dialect) -> None:
    for nothing in (b"", b"data: [DONE]\n\n", b"\xff", b"[]", b'{"error": {"message": "overloaded"}}', b": ping\n\n"):
        assert answer_of(dialect, nothing) is None
