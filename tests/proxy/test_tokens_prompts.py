import json
from typing import Any

import pytest

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.tokens.conversation import Conversation, Message, ToolCall
from cellmeter_proxy.tokens.images import Image
from cellmeter_proxy.tokens.prompts import conversation_of
from cellmeter_proxy.tokens.toolspec import Tool


def read(dialect: Dialect, request: dict[str, Any]) -> Conversation:
    conversation = conversation_of(dialect, json.dumps(request).encode())
    assert conversation is not None
    return conversation


def test_a_chat_request_gives_its_messages_tools_and_images() -> None:
    conversation = read(
        "chat.completions",
        {
            "model": "gpt-4o",
            "reasoning_effort": "none",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "name": "ada",
                    "content": [
                        {"type": "text", "text": "What is "},
                        {"type": "text", "text": "this?"},
                        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "reasoning_content": "not sent again",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}},
                        {"id": "c2", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
                {"role": "assistant", "function_call": {"name": "old", "arguments": {"as": "object"}}},
            ],
            "tools": [{"type": "function", "function": {"name": "look", "description": "See", "parameters": {"a": 1}}}],
        },
    )

    assert conversation == Conversation(
        model="gpt-4o",
        messages=[
            Message(role="system", text="Be brief."),
            Message(
                role="user",
                text="What is this?",
                name="ada",
                images=[Image(source="https://example.com/a.png", detail="low")],
            ),
            Message(
                role="assistant",
                text="",
                tool_calls=[
                    ToolCall(name="look", arguments='{"at": 1}'),
                    ToolCall(name="patch", arguments="*** Begin"),
                ],
            ),
            Message(role="tool", text="a cat"),
            Message(role="assistant", text="", tool_calls=[ToolCall(name="old", arguments='{"as":"object"}')]),
        ],
        tools=[
            Tool(
                name="look",
                description="See",
                parameters={"a": 1},
                definition='{"type":"function","function":{"name":"look","description":"See","parameters":{"a":1}}}',
            )
        ],
        thinking=False,
    )


def test_a_responses_request_gives_the_same_conversation_as_its_chat_request_would() -> None:
    conversation = read(
        "responses",
        {
            "model": "gpt-5",
            "instructions": "Be brief.",
            "reasoning": {"effort": "high"},
            "input": [
                {"role": "user", "content": "Hi"},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look"}]},
                {"type": "reasoning", "encrypted_content": "gAAAA", "summary": []},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "*** Begin"},
            ],
            "tools": [{"type": "function", "name": "look", "parameters": {}}, {"type": "web_search"}],
        },
    )

    assert [(one.role, one.text, one.tool_calls) for one in conversation.messages] == [
        ("system", "Be brief.", []),
        ("user", "Hi", []),
        ("user", "Look", []),
        ("assistant", "", [ToolCall(name="look", arguments="{}")]),
        ("tool", "a cat", []),
        ("assistant", "", [ToolCall(name="patch", arguments="*** Begin")]),
    ]
    assert [tool.name for tool in conversation.tools] == ["look"]
    assert conversation.thinking is True
    assert conversation.uncounted == ["server-side tool not counted"]


def test_a_responses_input_may_be_a_string() -> None:
    assert read("responses", {"input": "Hi"}).messages == [Message(role="user", text="Hi")]


def test_a_messages_request_gives_each_tool_result_a_message_of_its_own() -> None:
    conversation = read(
        "messages",
        {
            "model": "claude-sonnet-4-5",
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "messages": [
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "not sent again", "signature": "s"},
                        {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "a cat"}]},
                        {"type": "tool_result", "tool_use_id": "t2", "content": "a dog"},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                        {"type": "document", "source": {"type": "text", "data": "plain"}},
                        {"type": "document", "source": {"type": "base64", "data": "JVBE"}},
                    ],
                },
            ],
            "tools": [{"name": "look", "input_schema": {"type": "object"}}, {"type": "web_search_20250305"}],
        },
    )

    assert conversation.messages == [
        Message(role="system", text="Be brief."),
        Message(role="user", text="Hi"),
        Message(role="assistant", text="", tool_calls=[ToolCall(name="look", arguments='{"at":1}')]),
        Message(role="tool", text="a cat"),
        Message(role="tool", text="a dog"),
        Message(role="user", text="plain", images=[Image(source="iVBO")]),
    ]
    assert conversation.tools[0].parameters == {"type": "object"}
    assert conversation.thinking is True
    assert conversation.uncounted == ["file not counted", "server-side tool not counted"]


@pytest.mark.parametrize(
    ("given", "plain", "tokens"),
    [
        ("Once upon", ["Once upon"], 0),
        (["Once", "twice"], ["Once", "twice"], 0),
        ([1, 2, 3], [], 3),
        ([[1, 2], [3]], [], 3),
        (None, [], 0),
        ([], [], 0),
    ],
)
def test_plain_inputs_are_texts_or_token_numbers(given: object, plain: list[str], tokens: int) -> None:
    for dialect, key in (("completions", "prompt"), ("embeddings", "input")):
        conversation = read("completions" if dialect == "completions" else "embeddings", {key: given})
        assert (conversation.plain, conversation.given_tokens) == (plain, tokens)


@pytest.mark.parametrize(
    ("dialect", "request_", "sentence"),
    [
        ("responses", {"previous_response_id": "resp_1"}, "earlier turns held by the provider not counted"),
        ("responses", {"prompt": {"id": "pmpt_1"}}, "prompt held by the provider not counted"),
        ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "item of an unknown type not counted"),
        ("chat.completions", {"messages": [{"content": [{"type": "input_audio"}]}]}, "audio not counted"),
        ("chat.completions", {"messages": [{"content": [{"type": "file"}]}]}, "file not counted"),
        ("chat.completions", {"messages": [{"content": [{"type": "new"}]}]}, "content of an unknown type not counted"),
        ("chat.completions", {"tools": [{"type": "browser_search"}]}, "server-side tool not counted"),
        (
            "chat.completions",
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
            "schema of the answer counted as its JSON",
        ),
        ("embeddings", {"input": [{"image": "x"}]}, "content of an unknown type not counted"),
    ],
)
def test_what_is_in_no_count_is_named(dialect: Dialect, request_: dict[str, Any], sentence: str) -> None:
    assert read(dialect, request_).uncounted == [sentence]


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b'"x"', b"[" * 100_000])
def test_a_body_that_is_no_json_object_gives_no_conversation(body: bytes) -> None:
    assert conversation_of("chat.completions", body) is None


def test_half_a_surrogate_pair_is_read_as_agents_in_javascript_send_it() -> None:
    conversation = conversation_of("chat.completions", b'{"messages": [{"role": "user", "content": "\\ud83d"}]}')

    assert conversation is not None
    assert conversation.messages == [Message(role="user", text="\ud83d")]


def test_a_dialect_without_a_prompt_gives_no_conversation() -> None:
    assert conversation_of("models", b"{}") is None
