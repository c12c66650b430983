"""Usage asked for in the client's place: what the provider gets, what the client gets, and what the log holds."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from cellmeter_proxy.log import Log, digest_of
from cellmeter_proxy.record import Attempt, Call
from cellmeter_proxy.server import Running
from cellmeter_proxy.testing import (
    EVENT_STREAM,
    LAST_CHUNK,
    LiteralClient,
    LiteralProvider,
    Step,
    chunk,
    close,
    json_answer,
)

Recorder = Callable[..., AbstractAsyncContextManager[Running]]
PATH = "/v1/chat/completions"
BODY = b'{ "model": "m","n":1.0, "stream" :true ,"messages":[{"role":"user","content":"hi \\u00e9"}]}\n'
ASKING = BODY.replace(b'"}]}', b'"}],"stream_options":{"include_usage":true}}')
TOKEN = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}],"usage":null}\n\n'
STOP = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM = [EVENT_STREAM, *map(chunk, (TOKEN, STOP, USAGE, DONE)), LAST_CHUNK]
PLAIN_STREAM = [EVENT_STREAM, *map(chunk, (TOKEN, STOP, DONE)), LAST_CHUNK]
REFUSAL = b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}'


def rows(path: Path) -> tuple[list[Call], list[Attempt]]:
    with Log.read(path) as log:
        return list(log.rows(Call)), list(log.rows(Attempt))


def body_of(answer: bytes) -> bytes:
    """The body of a chunked answer, without its framing."""
    _, _, framed = answer.partition(b"\r\n\r\n")
    body = bytearray()
    while (size := int(framed.partition(b"\r\n")[0], 16)) > 0:
        framed = framed.partition(b"\r\n")[2]
        body += framed[:size]
        framed = framed[size + 2 :]
    return bytes(body)


async def ask(proxy: Running, body: bytes = BODY, *headers: bytes) -> bytes:
    client = await LiteralClient.connect(proxy.url)
    await client.post(PATH, body, *headers)
    answer = await client.until(LAST_CHUNK)
    await client.close()
    return answer


async def test_a_stream_that_did_not_ask_is_counted_and_its_client_does_not_notice(
    recorder: Recorder, log_path: Path
) -> None:
    async with LiteralProvider(STREAM) as provider, recorder(provider) as proxy:
        answer = await ask(proxy, BODY, b"Accept-Encoding: gzip, br", b"x-odd: 1")
    head, _, sent = provider.received[0].partition(b"\r\n\r\n")
    assert sent == ASKING
    assert b"Accept-Encoding: identity" in head.split(b"\r\n")
    assert b"gzip" not in head
    assert body_of(answer) == TOKEN + STOP + DONE
    (call,), (attempt,) = rows(log_path)
    assert (call.outcome, call.prompt_tokens, call.completion_tokens, call.usage_source) == ("ok", 11, 2, "provider")
    assert (call.body_hash, call.sent_hash, call.request_bytes) == (digest_of(BODY), digest_of(ASKING), len(BODY))
    assert (attempt.n, attempt.status) == (1, 200)
    with Log.read(log_path) as log:
        assert log.blob(call.request_blob or "") == BODY
        assert log.blob(call.response_blob or "") == TOKEN + STOP + USAGE + DONE


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace(b'"n":1.0', b'"stream_options":{"include_usage":true}'),
        BODY.replace(b'"n":1.0', b'"stream_options":{"include_usage":false}'),
    ],
)
async def test_a_client_that_says_something_about_usage_is_taken_at_its_word(
    recorder: Recorder, log_path: Path, body: bytes
) -> None:
    async with LiteralProvider(STREAM) as provider, recorder(provider) as proxy:
        answer = await ask(proxy, body, b"Accept-Encoding: gzip")
    assert provider.received[0].endswith(b"\r\n\r\n" + body)
    assert b"Accept-Encoding: gzip\r\n" in provider.received[0]
    assert body_of(answer) == TOKEN + STOP + USAGE + DONE
    assert rows(log_path)[0][0].sent_hash is None


async def test_nobody_is_asked_where_that_is_switched_off(recorder: Recorder, log_path: Path) -> None:
    async with LiteralProvider(PLAIN_STREAM) as provider, recorder(provider, ask_usage=False) as proxy:
        await ask(proxy)
    assert provider.received[0].endswith(b"\r\n\r\n" + BODY)
    (call,), _ = rows(log_path)
    assert (call.sent_hash, call.usage_source, call.prompt_tokens) == (None, "estimated", None)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/messages", "/v1/other"])
async def test_only_chat_streams_are_asked(recorder: Recorder, path: str) -> None:
    async with LiteralProvider([json_answer(b"{}")]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(path, BODY)
        await client.until(b"{}")
        await client.close()
    assert provider.received[0].endswith(b"\r\n\r\n" + BODY)


async def test_an_announced_length_does_not_outlive_the_chunk_that_is_taken_out(recorder: Recorder) -> None:
    stream = TOKEN + STOP + USAGE + DONE
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(stream)
    async with LiteralProvider([head, stream]) as provider, recorder(provider) as proxy:
        answer = await ask(proxy)
    assert b"content-length" not in answer.partition(b"\r\n\r\n")[0].lower()
    assert body_of(answer) == TOKEN + STOP + DONE


async def test_a_provider_that_refuses_the_field_is_asked_again_without_it_and_remembered(
    recorder: Recorder, log_path: Path
) -> None:
    scripts = [[json_answer(REFUSAL, b"400 Bad Request")], PLAIN_STREAM, PLAIN_STREAM, STREAM]
    async with LiteralProvider(*scripts) as provider, recorder(provider) as proxy:
        assert body_of(await ask(proxy, BODY, b"Accept-Encoding: br")) == TOKEN + STOP + DONE
        await ask(proxy)
        await ask(proxy, BODY.replace(b'"m"', b'"m2"'))
    first, second, third, fourth = (request.partition(b"\r\n\r\n") for request in provider.received)
    assert (first[2], second[2], third[2]) == (ASKING, BODY, BODY)
    assert b"Accept-Encoding: br" in second[0]
    assert b"include_usage" in fourth[2]
    calls, attempts = rows(log_path)
    assert [call.sent_hash is None for call in calls] == [True, True, False]
    assert [(call.outcome, call.status) for call in calls] == [("ok", 200)] * 3
    refused, served = (attempt for attempt in attempts if attempt.call_id == calls[0].call_id)
    assert (refused.n, refused.status, served.n, served.status) == (1, 400, 2, 200)
    assert "refuses stream_options" in (refused.error or "")


async def test_an_error_about_something_else_is_the_clients_own(recorder: Recorder, log_path: Path) -> None:
    error = b'{"error":{"message":"no such model"}}'
    scripts = [[json_answer(error, b"400 Bad Request")], STREAM]
    async with LiteralProvider(*scripts) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY)
        answer = await client.until(error)
        assert answer.startswith(b"HTTP/1.1 400 ")
        await client.post(PATH, BODY)
        await client.until(LAST_CHUNK)
        await client.close()
    assert len(provider.received) == 2
    calls, attempts = rows(log_path)
    assert [(call.status, call.sent_hash) for call in calls] == [(400, digest_of(ASKING)), (200, digest_of(ASKING))]
    assert [attempt.error for attempt in attempts] == [None, None]


async def test_a_refusal_that_does_not_go_away_without_the_field_is_not_held_against_it(recorder: Recorder) -> None:
    refusal = [json_answer(REFUSAL, b"422 Unprocessable Content")]
    async with LiteralProvider(refusal, refusal, STREAM) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY)
        assert (await client.until(REFUSAL)).startswith(b"HTTP/1.1 422 ")
        await client.post(PATH, BODY)
        await client.until(LAST_CHUNK)
        await client.close()
    assert [b"include_usage" in request for request in provider.received] == [True, False, True]


async def test_an_error_that_breaks_off_while_it_is_looked_at_breaks_the_client_off(
    recorder: Recorder, log_path: Path
) -> None:
    cut = json_answer(REFUSAL, b"400 Bad Request")[:-40]
    async with LiteralProvider([cut, close]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY)
        rest, _ = await client.rest()
    assert REFUSAL not in rest
    (call,), attempts = rows(log_path)
    assert (call.state, call.outcome, call.status, len(attempts)) == ("closed", "http_error", 400, 1)


async def test_frames_still_arrive_one_by_one_and_usage_waits_for_none_of_them(recorder: Recorder) -> None:
    gate = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), gate.wait, chunk(STOP + USAGE + DONE), LAST_CHUNK]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY)
        await client.until(TOKEN)
        gate.set()
        rest = await client.until(LAST_CHUNK)
        await client.close()
    assert STOP in rest
    assert b'"prompt_tokens"' not in rest
    assert json.loads(ASKING)["stream_options"] == {"include_usage": True}
