"""How an answer passes: what of it is released before the row is closed, and what its end changes."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.server import Running
from cellmeter_proxy.testing import (
    EVENT_STREAM,
    LAST_CHUNK,
    LiteralClient,
    LiteralProvider,
    Step,
    chunk,
    json_answer,
)

Recorder = Callable[..., AbstractAsyncContextManager[Running]]
PATH = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'
STREAM_BODY = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
TOKEN = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"


def states(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT state, outcome FROM calls ORDER BY rowid").fetchall()
    finally:
        connection.close()


def only(path: Path) -> Call:
    with Log.read(path) as log:
        (call,) = log.rows(Call)
        return call


async def until_over(proxy: Running) -> None:
    async with asyncio.timeout(10):
        while proxy.open_calls():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("content_type", [b"application/json", b"text/event-stream"])
async def test_nothing_of_an_answer_that_is_there_whole_is_released_while_its_row_cannot_be_committed(
    recorder: Recorder, log_path: Path, content_type: bytes
) -> None:
    pieces = [TOKEN, STOP, DONE] if content_type == b"text/event-stream" else [b'{"id":', b'"c1"', b"}"]
    whole = CHUNKED % content_type + b"".join(map(chunk, pieces)) + LAST_CHUNK
    async with LiteralProvider([whole]) as provider, recorder(provider) as proxy:
        other = sqlite3.connect(log_path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.exactly(1)
        other.close()
        assert (await client.until(LAST_CHUNK)).count(pieces[0]) == 1
        assert [state for state, _ in states(log_path)] == ["closed"]
        await client.close()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_where_the_head_is_the_answer_the_row_is_closed_before_it(
    recorder: Recorder, log_path: Path, head: bytes
) -> None:
    async with LiteralProvider([head]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY)
        received = await client.exactly(12)
        assert [state for state, _ in states(log_path)] == ["closed"]
        received += await client.until(b"\r\n\r\n")
        await client.close()
    assert received.startswith(head[:12])
    assert not any(name in received for name in (b"Server:", b"Date:", b"Content-Type:"))


@pytest.mark.parametrize(
    ("content_type", "pieces"),
    [
        (b"application/json", [TOKEN, STOP, DONE]),
        (b"text/plain", [b": ping\n\n", TOKEN + STOP, DONE]),
        (b"text/event-stream", [b" \n", b'{"choices":[{"finish_reason":"stop","mess', b'age":{}}]}', b"\n"]),
    ],
)
async def test_an_answer_under_a_wrong_label_is_held_back_all_the_same(
    recorder: Recorder, log_path: Path, content_type: bytes, pieces: list[bytes]
) -> None:
    go = asyncio.Event()
    script: list[Step] = [CHUNKED % content_type, *map(chunk, pieces[:-1]), go.wait, chunk(pieces[-1]), LAST_CHUNK]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY)
        head = await client.until(b"\r\n\r\n")
        assert states(log_path) == [("open", None)]
        go.set()
        received = await client.until(LAST_CHUNK)
        await client.close()
    assert content_type in head
    call = only(log_path)
    assert (call.outcome, call.finish_reason) == ("ok", "stop")
    assert call.response_bytes == sum(map(len, pieces))
    assert pieces[0] in received


async def test_a_client_that_leaves_at_the_terminal_event_had_its_answer_whatever_comes_later(
    recorder: Recorder, log_path: Path
) -> None:
    go = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN + STOP), chunk(DONE), go.wait, chunk(b"\n"), LAST_CHUNK]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY)
        await client.until(DONE)
        client.abort()
        await asyncio.sleep(0.6)  # longer than it takes the proxy to look
        go.set()
        await until_over(proxy)
    call = only(log_path)
    assert (call.outcome, call.client_gone_at) == ("ok", None)


async def test_a_client_that_leaves_while_the_provider_is_silent_is_noticed(recorder: Recorder, log_path: Path) -> None:
    never = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), never.wait]
    async with LiteralProvider(script) as provider, recorder(provider, drain_s=0.1) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY)
        await client.until(TOKEN)
        client.abort()
        await until_over(proxy)
    call = only(log_path)
    assert call.outcome == "client_gone"
    assert "did not end within 0.1 s" in (call.error or "")


async def test_an_error_in_a_chat_stream_holds_nothing_back(recorder: Recorder, log_path: Path) -> None:
    go = asyncio.Event()
    error = b'event: error\ndata: {"error":{"message":"slow"}}\n\n'
    script: list[Step] = [EVENT_STREAM, chunk(error), chunk(TOKEN), go.wait, chunk(STOP), chunk(DONE), LAST_CHUNK]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY)
        async with asyncio.timeout(10):
            await client.until(TOKEN)
        assert states(log_path) == [("open", None)]
        go.set()
        await client.until(LAST_CHUNK)
        await client.close()


async def test_headers_go_on_as_they_came_in_order_case_and_bytes(recorder: Recorder) -> None:
    async with LiteralProvider([json_answer(b"{}")]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, b"X-A: 1", b"x-a: \xff\xe9", b"X-a: 3")
        await client.until(b"{}")
        await client.close()
    assert b"\r\nX-A: 1\r\nx-a: \xff\xe9\r\nX-a: 3\r\n" in provider.received[0]
