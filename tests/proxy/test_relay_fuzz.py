"""Malformed HTTP and SSE from both sides: always an answer or a closed connection, always a row, never a dead proxy."""

import asyncio
import gzip
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random

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
    close,
    json_answer,
)
from cellmeter_scoring.verify import verify

Recorder = Callable[..., AbstractAsyncContextManager[Running]]
PATH = "/v1/chat/completions"
GOOD = b'{"id":"good","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}'
PATIENCE_S = 5.0
CASES = 80

BODIES = [
    b'{"model":"m","messages":[{"role":"user","content":"hi"}]}',
    b'{"model":"m","stream":true,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}',
    b'{"model":1e400,"stream":true,"stream_options":[],"messages":{"a":null},"x":"\\ud800","x":2}',
    b"\xff\xfe\x00",
    b"[" * 5000,
    b'"' + b"\\" * 999,
    gzip.compress(b'{"model":"m"}'),
    b"",
]
HEADERS = [
    b"Authorization: Bearer sk-fuzz-0123456789abcdefghij",
    b"Authorization: \xe9\xff\x80",
    b"User-Agent: \xff\xfe\x80agent",
    b"X-Session-Id: \xed\xa0\x80",
    b"x-stainless-retry-count: 99999999999999999999999999",
    b"x-stainless-retry-count: \xd9\xa3",
    b"Content-Encoding: gzip, br, zstd, deflate, gzip",
    b"Content-Encoding: \xff",
    b"Accept-Encoding: gzip",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Content-Length: 7",
    b"Content-Length: -1",
    b"Expect: 100-continue",
    b"Expect: something",
    b"Connection: close, x-odd",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    b"Upgrade: websocket",
    b"Host: two",
    b"Cookie: =;;=a; b",
    b"X-Long: " + b"y" * 20_000,
    b"No-Colon",
    b": nameless",
]
TARGETS = [
    PATH.encode(),
    b"/s/a/v1/chat/completions",
    b"/s/%FF/v1/messages?key=%ZZ&&=",
    b"//v1//responses//",
    b"/v1/\xff\xfe",
    b"/v1/chat/completions#fragment",
    b"http://other.example/v1/models",
    b"/..%2f/%00/../v1/completions?x=\x80",
    b"*",
    b"/" + b"a" * 9000,
]
METHODS = [
    b"POST",
    b"POST",
    b"POST",
    b"GET",
    b"HEAD",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"P\xd6ST",
    b"X-ODD",
]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTX/1.1"]

FRAMES = [
    b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n',
    b'data: {"choices":null,"usage":{"prompt_tokens":-1,"completion_tokens":1e999}}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2}}\r\n\r\n',
    b"data: [DONE]\n\n",
    b"data: [DO",
    b"event: error\rdata: \xff\r\r",
    b": comment\n\n",
    b"\xef\xbb\xbfdata: {}\n\n",
    b"data: " + b"[" * 3000 + b"\n\n",
    b'data: {"error":{"message":"\\ud800","code":[]}}\n\n',
    b"\n\n\r\r\n\n",
    b"\x00" * 50,
]
ANSWERS = [
    json_answer(GOOD),
    json_answer(b'{"error":"stream_options"}', b"400 Bad Request"),
    json_answer(b"\xff", b"599 \xff\xfe", b"X-Request-Id: \xff\xfe", b"Retry-After: \xd9\xa3", b"x-ratelimit-x: \x80"),
    json_answer(gzip.compress(GOOD), b"200 OK", b"Content-Encoding: gzip"),
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + json_answer(GOOD),
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + json_answer(GOOD),
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\x00\x01",
    b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n" + GOOD,
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(GOOD) + LAST_CHUNK,
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: br\r\n\r\n\xff\xff",
    b"HTTP/1.1 99999 X\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Long: " + b"z" * 100_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"",
]


def mutated(random: Random, data: bytes) -> bytes:
    """The bytes with a few of them changed, lost, repeated or cut off."""
    out = bytearray(data)
    for _ in range(random.choice((0, 0, 1, 1, 2, 5))):
        if not out:
            break
        at = random.randrange(len(out))
        match random.randrange(5):
            case 0:
                out[at] = random.randrange(256)
            case 1:
                del out[at : at + random.randrange(1, 40)]
            case 2:
                out[at:at] = out[at : at + random.randrange(1, 40)]
            case 3:
                out[at:at] = random.choice((b"\r\n", b"\n", b"\r", b"\0", b"\r\n\r\n", b":"))
            case _:
                del out[at:]
    return bytes(out)


def requests(random: Random) -> Iterator[bytes]:
    for _ in range(CASES):
        body = mutated(random, random.choice(BODIES))
        line = [
            odd if random.random() < 0.15 else odds[0]
            for odds in (METHODS, TARGETS, VERSIONS)
            for odd in (random.choice(odds),)
        ]
        head = [b" ".join(line), b"Host: p", b"Connection: close"]
        head += random.sample(HEADERS, random.choice((0, 1, 1, 2, 3)))
        if random.random() < 0.8:
            head.append(b"Content-Length: %d" % len(body))
        request = b"\r\n".join(head) + b"\r\n\r\n" + body
        yield mutated(random, request) if random.random() < 0.3 else request


def scripts(random: Random) -> Iterator[list[Step]]:
    for _ in range(CASES):
        if random.random() < 0.5:
            steps: list[Step] = [mutated(random, random.choice(ANSWERS))]
        else:
            frames = [mutated(random, frame) for frame in random.choices(FRAMES, k=random.randrange(1, 8))]
            steps = [mutated(random, EVENT_STREAM) if random.random() < 0.2 else EVENT_STREAM]
            steps += [chunk(frame) if random.random() < 0.97 else frame for frame in frames if frame]
            steps += [LAST_CHUNK] if random.random() < 0.7 else []
        yield [*steps, close]


async def closed(proxy: Running) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while proxy.open_calls():
            await asyncio.sleep(0.001)


async def answered(client: LiteralClient) -> None:
    """An answer and a closed connection, or the latter once it is clear that nothing more of the request will come."""
    try:
        async with asyncio.timeout(0.3):
            await client.rest()
    except TimeoutError:
        client.end()
        async with asyncio.timeout(PATIENCE_S):
            await client.rest()


async def good_call(proxy: Running) -> None:
    client = await LiteralClient.connect(proxy.url)
    await client.post(PATH, b"{}")
    await client.until(GOOD)
    await client.close()


def assert_every_row_is_closed(log_path: Path, caplog: pytest.LogCaptureFixture) -> list[Call]:
    assert [record.getMessage() for record in caplog.records if "could not be relayed" in record.getMessage()] == []
    with Log.read(log_path) as log:
        calls = list(log.rows(Call))
        assert list(verify(log)) == []
    assert {call.state for call in calls} == {"closed"}
    assert all(call.outcome is not None and call.outcome != "interrupted" for call in calls)
    assert all(call.error for call in calls if call.outcome not in {"ok", "http_error"})
    return calls


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_a_client_sends(
    recorder: Recorder, log_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.ERROR, "cellmeter")
    answers: list[list[Step]] = [[json_answer(GOOD)]] * (CASES * 3)
    async with LiteralProvider(*answers) as provider:
        async with recorder(provider, upload_s=0.2, durability="process") as proxy:
            for request in requests(Random(seed)):
                client = await LiteralClient.connect(proxy.url)
                await client.send(request)
                await answered(client)
            await closed(proxy)
            await good_call(proxy)
        assert_every_row_is_closed(log_path, caplog)
        assert len(provider.received) > CASES / 5


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_a_provider_answers(
    recorder: Recorder, log_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.ERROR, "cellmeter")
    random = Random(seed)
    answers = list(scripts(random))
    always: list[Step] = [json_answer(GOOD)]
    async with (
        LiteralProvider(*(script for case in answers for script in (case, always))) as provider,
        recorder(provider, ask_usage=seed != 0, durability="process") as proxy,
    ):
        asked = 0
        while len(provider.received) < 2 * CASES - 4:
            asked += 1
            client = await LiteralClient.connect(proxy.url)
            path = random.choice((PATH, PATH, "/v1/messages", "/v1/responses", "/v1/completions", "/v1/odd"))
            await client.post(path, random.choice(BODIES[:2]), b"Connection: close")
            async with asyncio.timeout(PATIENCE_S):
                answer, _ = await client.rest()
            assert answer.startswith(b"HTTP/1.1 ")
        await closed(proxy)
    calls = assert_every_row_is_closed(log_path, caplog)
    assert len(calls) == asked
    assert len({call.outcome for call in calls}) >= 3
