"""What a request says, in every dialect."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.canonical import prefix_chain
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.wire import RequestFacts, StreamWatcher, read_answer, read_request

DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


def read(dialect: Dialect, **body: Any) -> RequestFacts:
    return read_request(dialect, "/v1/x", json.dumps(body).encode())


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_chat_request_gives_its_facts() -> None:
    messages = [{"role": "system", "content": "be"}, user("hi")]
    assert read("chat.completions", model="m", messages=messages, stream=True) == RequestFacts(
        dialect="chat.completions",
        endpoint="/v1/x",
        model="m",
        stream=True,
        message_count=2,
        prefix=prefix_chain(messages),
    )


@pytest.mark.parametrize(
    ("options", "asks"),
    [({"include_usage": True}, True), ({"include_usage": False}, False), (None, False), ([], False)],
)
def test_whether_a_stream_asks_for_usage_is_told(options: object, *, asks: bool) -> None:
    assert read("chat.completions", messages=[], stream_options=options).asks_usage is asks


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b'{"model"', b"\xff", b"null"])
def test_of_a_body_that_cannot_be_read_nothing_is_claimed(body: bytes) -> None:
    assert read_request("chat.completions", "/e", body) == RequestFacts(dialect="chat.completions", endpoint="/e")


def test_a_field_of_the_wrong_type_does_not_cost_the_others() -> None:
    facts = read("chat.completions", model=5, messages={"a": 1}, stream=1, tools="x", stream_options=3)
    assert facts == RequestFacts(dialect="chat.completions", endpoint="/v1/x", stream=False)
    assert read("responses", model="m", input=None).model == "m"


def test_the_input_of_a_response_is_its_history() -> None:
    assert read("responses", input="hi").prefix == prefix_chain(["hi"])
    items = [{"type": "message", "role": "user", "content": []}, {"type": "reasoning"}]
    assert read("responses", input=items).message_count == 2
    assert read("completions", prompt="x").message_count is None
    assert read("count_tokens", messages=[user("x")]).message_count == 1


def test_a_history_that_is_resent_with_other_cache_marks_is_the_same() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    first = read("messages", messages=[user([{"type": "text", "text": "a", **mark}])])
    again = read("messages", messages=[user("a"), {"role": "assistant", "content": "b"}, user("c") | mark])
    assert again.prefix[:1] == first.prefix
    assert read("messages", messages=[user([{"type": "text", "text": "a", "citations": []}])]).prefix != first.prefix
    assert read("messages", messages=[user([{"type": "text", "text": "x"}])]).prefix != first.prefix


@pytest.mark.parametrize(
    ("dialect", "body", "tools"),
    [
        ("chat.completions", {"tools": [{"type": "function"}, {"type": "custom"}]}, []),
        ("chat.completions", {"web_search_options": {}}, ["web_search"]),
        ("chat.completions", {"web_search_options": None, "enable_search": False}, []),
        ("chat.completions", {"search_parameters": {"mode": "auto"}}, ["live_search"]),
        ("chat.completions", {"plugins": [{"id": "web"}, {}]}, ["plugin:web", "plugin:unnamed"]),
        (
            "chat.completions",
            {
                "messages": [
                    user(
                        [
                            {"type": "image_url", "image_url": {"url": "https://u:p@h.example:8443/a.png?sig=1#x"}},
                            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                            {"type": "text", "text": "see https://h.example/"},
                        ]
                    ),
                    {"role": "assistant", "annotations": [{"type": "url_citation", "url": "https://c.example"}]},
                ]
            },
            ["image_url:https://h.example:8443/a.png"],
        ),
        (
            "responses",
            {
                "tools": [
                    {"type": "web_search"},
                    {"type": "web_search"},
                    {"type": "code_interpreter", "container": {"type": "auto"}},
                    {"type": "mcp", "server_url": "https://mcp.example/sse?key=1"},
                    {"type": "mcp", "connector_id": "connector_gmail"},
                    {"type": "local_shell"},
                    {"type": "shell", "environment": {"type": "container_auto"}},
                    {"type": "namespace", "tools": [{"type": "function"}, {"type": "file_search"}]},
                    {"type": "brand_new"},
                    {"name": "untyped"},
                    "x",
                ],
                "input": [
                    user([{"type": "input_image", "image_url": "https://h.example/i.png"}]),
                    {
                        "type": "function_call_output",
                        "output": [{"type": "input_file", "file_url": "http://h.example/f"}],
                    },
                ],
            },
            [
                "web_search",
                "code_interpreter",
                "mcp:https://mcp.example/sse",
                "mcp:connector_gmail",
                "shell",
                "file_search",
                "brand_new",
                "image_url:https://h.example/i.png",
                "file_url:http://h.example/f",
            ],
        ),
        ("responses", {"tools": [{"type": "shell"}, {"type": "shell", "environment": {"type": "local"}}]}, []),
        (
            "messages",
            {
                "tools": [{"name": "f"}, {"type": "bash_20250124"}, {"type": "web_fetch_20250910"}],
                "mcp_servers": [{"type": "url", "url": "https://mcp.example"}],
                "messages": [
                    user(
                        [
                            {
                                "type": "tool_result",
                                "content": [{"type": "image", "source": {"type": "url", "url": "https://h.example/i"}}],
                            }
                        ]
                    )
                ],
            },
            ["web_fetch_20250910", "mcp:https://mcp.example", "image:https://h.example/i"],
        ),
        ("embeddings", {"tools": [{"type": "web_search"}]}, []),
        ("chat.completions", {"messages": [user([{"image_url": "http://[bad"}])]}, ["image_url:unreadable"]),
    ],
)
def test_what_the_provider_is_asked_to_run_or_fetch_is_named(
    dialect: Dialect, body: dict[str, Any], tools: list[str]
) -> None:
    assert read(dialect, **body).provider_tools == tools


NAMES = """id model choices index delta message tool_calls function_call finish_reason usage prompt_tokens error type
completion_tokens total_tokens prompt_tokens_details x_groq response output status content text item detail messages
input tools stream stream_options source url image_url plugins environment""".split()  # noqa: SIM905
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=25,
)


@given(st.sampled_from(DIALECTS), st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_anything_raise(dialect: Dialect, body: bytes) -> None:
    read_answer(dialect, body)
    read_request(dialect, "/v1/x", body)
    watcher = StreamWatcher(dialect)
    for event in (b"", b"event: response.completed\n", b"event: message_start\n"):
        watcher.feed(event + b"data: " + body + b"\n\n", 0)
    watcher.finish()
    watcher.facts()
    assert watcher.frames >= 2
