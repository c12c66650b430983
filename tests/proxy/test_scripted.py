"""The scripted provider over a real socket: literal bytes in, exact records in the ledger."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from cellmeter_proxy.record import Dialect, Usage
from cellmeter_proxy.scripted import (
    Asked,
    Fault,
    Match,
    Message,
    RateLimit,
    Script,
    ScriptedProvider,
    ToolCall,
    Turn,
)
from cellmeter_proxy.scripted.asked import read

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = ASK | {"stream": True}
WITH_USAGE = STREAM | {"stream_options": {"include_usage": True}}
# By the rule: "hi" is 1 token, 4 for its message, 3 for the reply; "Hello there" is 11 bytes, 3 tokens.
BILLED = Usage(prompt_tokens=8, completion_tokens=3)


def saying(turn: Turn, **provider: Any) -> ScriptedProvider:
    return ScriptedProvider([Script(name="s", turns=[turn])], **provider)


def hello(**fields: Any) -> Turn:
    return Turn(content="Hello there", piece=6, **fields)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def post(
    client: aiohttp.ClientSession, url: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    async with client.post(url, json=body, headers=headers) as response:
        return response.status, await response.read()


def chat_chunk(choices: str, tail: str = "") -> bytes:
    head = '"id":"chatcmpl-000000000000000000000001","object":"chat.completion.chunk","created":1767225600,"model":"m"'
    return f'data: {{{head},"choices":{choices}{tail}}}\n\n'.encode()


async def test_a_chat_stream_is_these_bytes(client: aiohttp.ClientSession) -> None:
    async with saying(hello(tool_calls=[ToolCall(name="run", arguments={"c": 1})])) as provider:
        _, body = await post(client, f"{provider.url}/chat/completions", WITH_USAGE)
    null = ',"usage":null'
    end = ',"logprobs":null,"finish_reason":null}]'
    assert body == b"".join(
        [
            chat_chunk('[{"index":0,"delta":{"role":"assistant","content":""}' + end, null),
            chat_chunk('[{"index":0,"delta":{"content":"Hello "}' + end, null),
            chat_chunk('[{"index":0,"delta":{"content":"there"}' + end, null),
            chat_chunk(
                '[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_000000000000000000000000","type":"function",'
                '"function":{"name":"run","arguments":""}}]}' + end,
                null,
            ),
            chat_chunk(
                '[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"c\\":1"}}]}' + end, null
            ),
            chat_chunk('[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}' + end, null),
            chat_chunk('[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}]', null),
            chat_chunk("[]", ',"usage":{"prompt_tokens":8,"completion_tokens":6,"total_tokens":14}'),
            b"data: [DONE]\n\n",
        ]
    )


async def test_the_ledger_holds_what_was_asked_and_billed(client: aiohttp.ClientSession) -> None:
    async with saying(hello(reasoning="hm")) as provider:
        headers = {"X-Stainless-Retry-Count": "2", "Authorization": "Bearer k"}
        _, body = await post(client, f"{provider.url}/chat/completions", ASK, headers)
    [row] = provider.ledger
    assert json.loads(row.body) == ASK
    assert (row.method, row.path, row.dialect) == ("POST", "/v1/chat/completions", "chat.completions")
    assert (row.model, row.stream, row.script, row.turn, row.retry_number) == ("m", False, "s", 0, 2)
    assert (row.status, row.outcome, row.finish_reason, row.reported) == (200, "complete", "stop", True)
    assert row.billed == Usage(prompt_tokens=8, completion_tokens=4, reasoning_tokens=1)
    assert row.header("AUTHORIZATION") == "Bearer k"
    answer = json.loads(body)
    assert answer["id"] == row.response_id
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}
    assert answer["choices"][0]["message"]["reasoning_content"] == "hm"


async def test_a_stream_reports_usage_only_if_it_was_asked_for(client: aiohttp.ClientSession) -> None:
    async with saying(hello()) as provider:
        _, body = await post(client, f"{provider.url}/chat/completions", STREAM)
        await post(client, f"{provider.url}/chat/completions", WITH_USAGE)
    assert b"usage" not in body
    assert [row.reported for row in provider.ledger] == [False, True]
    assert [row.billed for row in provider.ledger] == [BILLED, BILLED]


@pytest.mark.parametrize(
    ("show", "usages"),
    [
        ("always", [(8, 3)]),
        ("finish", [(8, 3)]),
        ("every", [(8, 0), (8, 1), (8, 2), (8, 3)]),
        ("null", []),
        ("absent", []),
    ],
)
async def test_usage_stands_where_the_script_puts_it(
    client: aiohttp.ClientSession, show: Any, usages: list[tuple[int, int]]
) -> None:
    async with saying(hello(show_usage=show)) as provider:
        _, body = await post(client, f"{provider.url}/chat/completions", STREAM)
    events = [json.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
    seen = [(u["prompt_tokens"], u["completion_tokens"]) for event in events if (u := event.get("usage"))]
    assert seen == usages
    assert provider.ledger[0].reported is bool(usages)
    assert any("usage" in event for event in events) is (show != "absent")


async def test_groq_usage_stands_under_its_own_key(client: aiohttp.ClientSession) -> None:
    async with saying(hello(show_usage="x_groq")) as provider:
        _, body = await post(client, f"{provider.url}/chat/completions", STREAM)
    finish = json.loads(body.split(b"\n\n")[-3][6:])
    assert finish["x_groq"]["usage"] == {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}


async def test_a_script_may_bill_what_it_likes(client: aiohttp.ClientSession) -> None:
    usage = Usage(prompt_tokens=100, cache_read_tokens=60, cache_write_tokens=10, completion_tokens=7)
    async with saying(hello(usage=usage)) as provider:
        _, chat = await post(client, f"{provider.url}/chat/completions", ASK)
        _, messages = await post(client, f"{provider.url}/messages", ASK)
    assert provider.ledger[0].billed == usage
    assert json.loads(chat)["usage"]["prompt_tokens_details"] == {"cached_tokens": 60, "cache_write_tokens": 10}
    assert json.loads(messages)["usage"] == {
        "input_tokens": 30,
        "cache_creation_input_tokens": 10,
        "cache_read_input_tokens": 60,
        "output_tokens": 7,
    }


async def test_turns_follow_the_conversation() -> None:
    turns = [Turn(content="one"), Turn(content="two"), Turn(content="three")]
    script = Script(name="s", match=Match(task="the task"), turns=turns)
    # As aider does: an example before the task, and the task's text in a file that is shown.
    example = [Message(role="user", text="a file with the task in it"), Message(role="assistant", text="Ok.")]
    task = [Message(role="user", text="Do the task")]
    said = [
        Message(role="assistant", text="a"),
        Message(role="assistant", text="b"),
        Message(role="tool", text="the task"),
    ]
    conversations = [example + task, example + task + said, example + task + said + said, task + said * 9]
    asked = [Asked(dialect="chat.completions", model="m", messages=messages) for messages in conversations]
    assert [script.turn_number(one, answered=0) for one in asked] == [0, 1, 2, 2]


async def test_the_first_script_that_fits_answers(client: aiohttp.ClientSession) -> None:
    scripts = [
        Script(name="model", match=Match(model="other"), turns=[hello()]),
        Script(name="tools", match=Match(tools=["bash"]), turns=[hello()]),
        Script(name="text", match=Match(texts=["be terse", "hi"]), turns=[hello()]),
        Script(name="dialect", match=Match(dialect="responses"), turns=[hello()]),
        Script(name="task", match=Match(task="hi"), turns=[hello()]),
    ]
    system = {"role": "system", "content": "be terse"}
    bodies = [
        ASK | {"model": "other"},
        ASK | {"tools": [{"type": "function", "function": {"name": "bash"}}]},
        ASK | {"messages": [system, *ASK["messages"]]},
        ASK,
        ASK | {"messages": [system]},
    ]
    async with ScriptedProvider(scripts) as provider:
        for body in bodies:
            await post(client, f"{provider.url}/chat/completions", body)
        status, error = await post(client, f"{provider.url}/chat/completions", bodies[-1])
    assert [row.script for row in provider.ledger] == ["model", "tools", "text", "task", None, None]
    assert (status, json.loads(error)["error"]["code"]) == (404, "model_not_found")


async def test_a_script_may_count_requests_instead(client: aiohttp.ClientSession) -> None:
    script = Script(name="s", turns=[Turn(content="one"), Turn(content="two")], turn_by="requests")
    async with ScriptedProvider([script]) as provider:
        answers = [await post(client, f"{provider.url}/completions", {"model": "m", "prompt": "x"}) for _ in range(3)]
    assert [json.loads(body)["choices"][0]["text"] for _, body in answers] == ["one", "two", "two"]


async def test_the_same_conversation_always_gets_the_same_words(client: aiohttp.ClientSession) -> None:
    async with saying(hello(tool_calls=[ToolCall(name="run")])) as provider:
        first, second = [await post(client, f"{provider.url}/chat/completions", STREAM) for _ in range(2)]
    assert first[1].replace(b"0001", b"0002") == second[1]


@pytest.mark.parametrize("retry_after", ["1", "0.5", "Fri, 20 Nov 2026 10:00:00 GMT"])
async def test_a_429_carries_its_headers_and_ends_after_so_many_tries(
    client: aiohttp.ClientSession, retry_after: str
) -> None:
    fault = Fault(status=429, retry_after=retry_after, headers={"x-ratelimit-remaining-tokens": "0"}, times=2)
    async with saying(hello(fault=fault)) as provider:
        async with client.post(f"{provider.url}/chat/completions", json=ASK) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, retry_after)
            assert response.headers["x-ratelimit-remaining-tokens"] == "0"
            assert response.headers["x-request-id"] == provider.ledger[0].request_id
            assert (await response.json())["error"]["type"] == "rate_limit_error"
        statuses = [(await post(client, f"{provider.url}/chat/completions", ASK))[0] for _ in range(2)]
    assert statuses == [429, 200]
    assert [row.outcome for row in provider.ledger] == ["refused", "refused", "complete"]
    assert [row.billed for row in provider.ledger] == [None, None, BILLED]


async def test_tries_may_be_told_by_the_agents_own_retry_number(client: aiohttp.ClientSession) -> None:
    async with saying(hello(fault=Fault(status=503, times=1, counted_by="retry_count"))) as provider:
        url = f"{provider.url}/chat/completions"
        statuses = [
            (await post(client, url, ASK, {"x-stainless-retry-count": number}))[0] for number in ("0", "0", "1")
        ]
    assert statuses == [503, 503, 200]


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("chat/completions", 401, "invalid_request_error"),
        ("chat/completions", 500, "server_error"),
        ("messages", 529, "overloaded_error"),
        ("messages", 401, "authentication_error"),
        ("messages", 500, "api_error"),
    ],
)
async def test_errors_have_the_shape_of_their_dialect(
    client: aiohttp.ClientSession, path: str, status: int, kind: str
) -> None:
    async with saying(hello(fault=Fault(status=status))) as provider:
        seen, body = await post(client, f"{provider.url}/{path}", ASK)
    assert (seen, json.loads(body)["error"]["type"]) == (status, kind)


async def read_until_broken(response: aiohttp.ClientResponse) -> bytes:
    received = b""
    try:
        async for chunk in response.content.iter_any():
            received += chunk
    except aiohttp.ClientPayloadError:
        return received
    pytest.fail("the answer ended cleanly")


@pytest.mark.parametrize("frames", [0, 1, 3])
async def test_a_cut_stream_breaks_after_exactly_so_many_frames(client: aiohttp.ClientSession, frames: int) -> None:
    async with saying(hello(fault=Fault(cut_after=frames, times=1))) as provider:
        async with client.post(f"{provider.url}/chat/completions", json=STREAM) as response:
            received = await read_until_broken(response)
        _, whole = await post(client, f"{provider.url}/chat/completions", STREAM)
    assert received.replace(b"0001", b"0002") == b"".join(f + b"\n\n" for f in whole.split(b"\n\n")[:frames])
    assert (provider.ledger[0].outcome, provider.ledger[0].frames) == ("cut", frames)
    assert provider.ledger[0].billed == BILLED


async def test_a_cut_unary_answer_is_half_of_its_body(client: aiohttp.ClientSession) -> None:
    async with (
        saying(hello(fault=Fault(cut_after=1, times=1))) as provider,
        client.post(f"{provider.url}/chat/completions", json=ASK) as response,
    ):
        received = await read_until_broken(response)
        promised = int(response.headers["Content-Length"])
    assert len(received) == promised // 2


async def test_a_truncated_answer_ends_cleanly_without_its_end(client: aiohttp.ClientSession) -> None:
    async with saying(hello(fault=Fault(truncate_after=2))) as provider:
        _, stream = await post(client, f"{provider.url}/chat/completions", STREAM)
        _, unary = await post(client, f"{provider.url}/chat/completions", ASK)
    assert b"Hello " in stream
    assert b"[DONE]" not in stream
    assert stream.count(b"data: ") == 2
    assert json.loads(unary)["choices"]
    assert [row.outcome for row in provider.ledger] == ["truncated", "truncated"]


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("chat/completions", b'data: {"error":{"message":"Boom","type":"server_error","param":null,"code":null}}\n\n'),
        ("responses", b'event: error\ndata: {"type":"error","code":"server_error","message":"Boom","param":null}\n\n'),
        ("messages", b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"Boom"}}\n\n'),
    ],
)
async def test_an_error_can_come_inside_a_200(client: aiohttp.ClientSession, path: str, event: bytes) -> None:
    async with saying(hello(fault=Fault(error_after=1, message="Boom"))) as provider:
        status, body = await post(client, f"{provider.url}/{path}", STREAM)
    assert status == 200
    assert body.endswith(event)
    assert body.count(b"\n\n") == 2
    assert provider.ledger[0].outcome == "stream_error"


async def test_a_hanging_answer_waits_for_its_client_to_leave(client: aiohttp.ClientSession) -> None:
    async with (
        saying(hello(fault=Fault(hang_after=2))) as provider,
        client.post(f"{provider.url}/chat/completions", json=STREAM) as response,
    ):
        received = b""
        while received.count(b"\n\n") < 2 and not response.content.at_eof():
            received += await response.content.readany()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.content.readany(), 0.05)
    assert (provider.ledger[0].outcome, provider.ledger[0].frames) == ("hung", 2)


async def test_a_client_that_leaves_early_is_noted(client: aiohttp.ClientSession) -> None:
    async with saying(hello(fault=Fault(frame_ms=60_000))) as provider:
        async with client.post(f"{provider.url}/chat/completions", json=STREAM) as response:
            await response.content.readany()
            response.close()
        # The answer to a later request comes after the loop has seen the earlier connection close.
        await client.head(provider.root)
    assert (provider.ledger[0].outcome, provider.ledger[0].frames) == ("client_gone", 1)


async def test_waits_are_as_long_as_the_script_says(client: aiohttp.ClientSession) -> None:
    loop = asyncio.get_running_loop()
    fault = Fault(first_byte_ms=60, frame_ms=20, headers_first=True)
    async with saying(hello(fault=fault)) as provider:
        start = loop.time()
        async with client.post(f"{provider.url}/chat/completions", json=STREAM) as response:
            headers = loop.time() - start
            await response.content.readany()
            first = loop.time() - start
            await response.read()
            last = loop.time() - start
    assert headers < first
    assert first >= 0.06
    assert last >= 0.06 + 4 * 0.02


async def test_a_key_is_asked_for_where_there_is_one(client: aiohttp.ClientSession) -> None:
    async with saying(hello(), key="sk-right") as provider:
        url = f"{provider.url}/chat/completions"
        given: list[dict[str, str]] = [
            {},
            {"Authorization": "Bearer sk-wrong"},
            {"Authorization": "Bearer sk-right"},
            {"x-api-key": "sk-right"},
        ]
        statuses = [(await post(client, url, ASK, headers))[0] for headers in given]
    assert statuses == [401, 401, 200, 200]


async def test_more_requests_than_the_limit_are_turned_away(client: aiohttp.ClientSession) -> None:
    async with saying(hello(), limit=RateLimit(requests=2)) as provider:
        seen = []
        for _ in range(3):
            async with client.post(f"{provider.url}/chat/completions", json=ASK) as response:
                remaining = response.headers["x-ratelimit-remaining-requests"]
                seen.append((response.status, remaining, response.headers.get("Retry-After")))
    assert seen == [(200, "1", None), (200, "0", None), (429, "0", "60")]


async def test_the_limit_takes_requests_again_once_its_window_has_passed(client: aiohttp.ClientSession) -> None:
    async with saying(hello(), limit=RateLimit(requests=1, window_s=0.2)) as provider, asyncio.timeout(20):
        for awaited in (429, 200):
            while (await post(client, f"{provider.url}/chat/completions", ASK))[0] != awaited:
                pass
    refused = [served.status for served in provider.ledger].count(429)
    assert len(provider.ledger) > refused > 0


async def test_paths_beside_the_model_are_answered_as_agents_expect(client: aiohttp.ClientSession) -> None:
    async with saying(hello(), models=["a/b"]) as provider:
        async with client.head(f"{provider.root}/") as head, client.get(f"{provider.url}/models") as models:
            assert (head.status, models.status) == (200, 200)
            assert [model["id"] for model in (await models.json())["data"]] == ["a/b"]
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
        gets = {"/v1/models/a/b": 200, "/v1/models/c": 404, "/v1/nothing": 404, "/v1/chat/completions": 405}
        for path, status in gets.items():
            async with client.get(provider.root + path) as response:
                assert response.status == status
        async with client.get(f"{provider.url}/responses", headers=upgrade) as response:
            assert response.status == 426
        assert (await post(client, f"{provider.url}/messages/count_tokens", ASK)) == (200, b'{"input_tokens":8}')


async def test_a_body_that_is_no_request_is_refused(client: aiohttp.ClientSession) -> None:
    async with saying(hello()) as provider:
        for body in (b"", b"{", b"[]", b'{"model": 3}', b"\xff", b"[" * 10_000):
            async with client.post(f"{provider.url}/chat/completions", data=body) as response:
                assert response.status == 400


async def test_verbatim_frames_go_out_as_they_are(client: aiohttp.ClientSession) -> None:
    frames = [b": ping\r\n\r\n", b"data: {\xc3", b"\xa9}\n\n"]
    async with saying(Turn(verbatim=frames)) as provider:
        _, body = await post(client, f"{provider.url}/chat/completions", STREAM)
    assert body == b"".join(frames)


async def test_a_messages_stream_is_these_events(client: aiohttp.ClientSession) -> None:
    turn = hello(reasoning="hm", tool_calls=[ToolCall(name="Bash", arguments={"command": "ls"})])
    async with saying(turn) as provider:
        _, body = await post(client, f"{provider.url}/messages?beta=true", STREAM)
    events = [json.loads(part.split(b"\ndata: ")[1]) for part in body.split(b"\n\n")[:-1]]
    assert [event["type"] for event in events] == [
        "message_start",
        "ping",
        *["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"],
        *["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"],
        *["content_block_start", *["content_block_delta"] * 3, "content_block_stop"],
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["usage"]["output_tokens"] == 1
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-2]["usage"]["output_tokens"] == provider.ledger[0].billed.completion_tokens  # type: ignore[union-attr]
    assert [event["delta"] for event in events if event.get("index") == 0 and "delta" in event] == [
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "signature_delta", "signature": "sig_000000000000000000000000"},
    ]


async def test_the_openai_client_reads_every_dialect() -> None:
    turn = hello(tool_calls=[ToolCall(name="run", arguments={"command": "ls"})])
    async with (
        saying(turn) as provider,
        AsyncOpenAI(base_url=provider.url, api_key="k", max_retries=0) as openai,
    ):
        stream = await openai.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        response = await openai.responses.create(model="m", input="hi")
        events = [event async for event in await openai.responses.create(model="m", input="hi", stream=True)]
        legacy = await openai.completions.create(model="m", prompt="hi")
        vectors = await openai.embeddings.create(model="m", input=["a", "b"], dimensions=3)
    billed = provider.ledger[0].billed
    assert billed is not None
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (billed.prompt_tokens, billed.completion_tokens)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there"
    assert response.output_text == "Hello there"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output == response.output
    assert events[-1].response.usage == response.usage
    assert legacy.choices[0].text == "Hello there"
    assert [len(item.embedding) for item in vectors.data] == [3, 3]
    assert provider.ledger[-1].billed == Usage(prompt_tokens=2)


KEYS = ["role", "type", "content", "messages", "input", "tools", "function", "name", "text", "stream_options", "prompt"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
DIALECTS: list[Dialect] = ["chat.completions", "completions", "responses", "messages", "embeddings", "count_tokens"]


@given(dialect=st.sampled_from(DIALECTS), body=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6))
def test_any_json_object_with_a_model_can_be_read(dialect: Dialect, body: dict[str, Any]) -> None:
    asked = read(dialect, json.dumps(body | {"model": "m"}).encode())
    assert asked.model == "m"
    assert asked.turns_since(None) >= 0
