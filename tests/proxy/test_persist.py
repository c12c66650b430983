"""The proxy tries again in its client's place: what the provider sees, what the client sees, what the log says."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from cellmeter_proxy.absorb import Patience
from cellmeter_proxy.log import Log
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
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAM_BODY = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
ANSWER = b'{"id":"c1","model":"m","choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}'
TOKEN = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM: list[Step] = [EVENT_STREAM, chunk(TOKEN), chunk(STOP), chunk(DONE), LAST_CHUNK]
REFUSAL = b'{"error":{"message":"slow\\ndown","type":"rate_limit_error"}}'
FAST = Patience(budget_s=20, first_s=0.02, ceiling_s=0.05)
"""Waits that a test can sit out; the client is not quiet long enough to be kept alive."""
KEPT = Patience(budget_s=20, first_s=0.02, ceiling_s=0.05, quiet_s=0.0, filler_s=0.02)
"""The client is kept alive from the first wait on."""
EVENT_HEAD = b"content-type: text/event-stream; charset=utf-8"


def refused(status: bytes = b"429 Too Many Requests", *headers: bytes) -> list[Step]:
    return [json_answer(REFUSAL, status, *headers)]


def row(path: Path) -> tuple[Call, list[Attempt]]:
    with Log.read(path) as log:
        (call,) = log.rows(Call)
        return call, sorted(log.rows(Attempt), key=lambda attempt: attempt.n)


async def answer_of(proxy: Running, body: bytes = BODY, path: str = PATH) -> bytes:
    client = await LiteralClient.connect(proxy.url)
    await client.post(path, body, b"Connection: close", b"Accept-Encoding: gzip")
    return (await client.rest())[0]


def text_of(answer: bytes) -> bytes:
    """The body of a chunked answer."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("status", [b"429 Slow", b"408 Late", b"409 Conflict", b"500 Oops", b"503 Busy", b"529 Over"])
async def test_a_refusal_that_passes_does_not_reach_the_client(
    recorder: Recorder, log_path: Path, status: bytes
) -> None:
    scripts: list[list[Step]] = [refused(status), refused(status, b"retry-after-ms: 30"), [json_answer(ANSWER)]]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="absorb", patience=FAST) as proxy:
        answer = await answer_of(proxy)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(ANSWER)
    assert len({request.partition(b"\r\n\r\n")[2] for request in provider.received}) == 1
    call, attempts = row(log_path)
    assert (call.outcome, call.status, call.error) == ("ok", 200, None)
    assert [attempt.status for attempt in attempts] == [int(status[:3]), int(status[:3]), 200]
    first, second, third = attempts
    assert first.waited_ms is None
    assert (second.waited_ms or 0) >= 10
    assert second.retry_after_ms == 30
    assert (third.waited_ms or 0) >= 30
    assert (call.latency_ms or 0) >= (second.waited_ms or 0) + (third.waited_ms or 0)


async def test_observe_passes_the_first_refusal_on(recorder: Recorder, log_path: Path) -> None:
    scripts: list[list[Step]] = [refused(b"429 Slow", b"Retry-After: 7"), [json_answer(ANSWER)]]
    async with LiteralProvider(*scripts) as provider, recorder(provider) as proxy:
        answer = await answer_of(proxy)
    assert answer.startswith(b"HTTP/1.1 429 Slow\r\n")
    assert b"\r\nRetry-After: 7\r\n" in answer
    assert len(provider.received) == 1


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ((b"429 Slow", b"Retry-After: 3600"), REFUSAL),
        ((b"503 Busy", b"x-should-retry: false"), REFUSAL),
        ((b"429 Slow",), b'{"error":{"message":"no money","code":"insufficient_quota"}}'),
        ((b"400 Bad",), REFUSAL),
    ],
)
async def test_what_will_not_pass_is_passed_on_at_once_and_unchanged(
    recorder: Recorder, log_path: Path, head: tuple[bytes, ...], body: bytes
) -> None:
    script = [json_answer(body, *head)]
    async with LiteralProvider(script) as provider, recorder(provider, on_429="absorb", patience=FAST) as proxy:
        answer = await answer_of(proxy)
    assert answer.startswith(b"HTTP/1.1 " + head[0])
    assert all(header in answer for header in head)
    assert answer.endswith(b"\r\n\r\n" + body)
    assert len(provider.received) == 1
    call, attempts = row(log_path)
    assert (call.outcome, call.status, len(attempts)) == ("http_error", int(head[0][:3]), 1)


async def test_the_budget_ends_the_tries_and_the_last_refusal_is_passed_on(recorder: Recorder, log_path: Path) -> None:
    patience = Patience(budget_s=0.3, first_s=0.02, ceiling_s=0.05)
    scripts: list[list[Step]] = [refused(b"503 Busy", b"x-n: %d" % n) for n in range(100)]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="absorb", patience=patience) as proxy:
        answer = await answer_of(proxy)
    count = len(provider.received)
    assert 3 <= count <= 20
    assert b"\r\nx-n: %d\r\n" % (count - 1) in answer
    call, attempts = row(log_path)
    assert (call.status, len(attempts)) == (503, count)
    assert sum(attempt.waited_ms or 0 for attempt in attempts) <= 350


async def test_a_refused_connection_is_tried_again_until_the_provider_is_there(
    recorder: Recorder, log_path: Path
) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    received = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        received.set()
        writer.write(json_answer(ANSWER))
        await writer.drain()
        writer.close()

    async with recorder(f"http://127.0.0.1:{port}/v1", on_429="absorb", patience=FAST) as proxy:
        asking = asyncio.create_task(answer_of(proxy))
        await asyncio.wait({asking}, timeout=0.1)
        assert not asking.done()
        async with await asyncio.start_server(serve, "127.0.0.1", port):
            assert (await asking).endswith(ANSWER)
    call, attempts = row(log_path)
    assert (call.outcome, attempts[-1].status, attempts[0].status) == ("ok", 200, None)
    assert "cannot be reached" in (attempts[0].error or "")


async def test_a_request_that_may_have_been_processed_is_not_made_again(recorder: Recorder, log_path: Path) -> None:
    scripts: list[list[Step]] = [[close], [json_answer(ANSWER)]]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="absorb", patience=FAST) as proxy:
        assert (await answer_of(proxy)).startswith(b"HTTP/1.1 502 ")
    assert len(provider.received) == 1


async def test_an_error_inside_a_stream_that_has_begun_is_not_absorbed(recorder: Recorder, log_path: Path) -> None:
    error = b'data: {"error":{"message":"overloaded","code":429}}\n\n'
    scripts: list[list[Step]] = [[EVENT_STREAM, chunk(TOKEN), chunk(error), LAST_CHUNK], STREAM]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="absorb", patience=FAST) as proxy:
        assert error in await answer_of(proxy, STREAM_BODY)
    assert len(provider.received) == 1


async def test_a_waiting_stream_is_kept_alive_with_comments(recorder: Recorder, log_path: Path) -> None:
    scripts: list[list[Step]] = [refused(b"429 Slow", b"retry-after-ms: 300"), STREAM]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="absorb", patience=KEPT) as proxy:
        answer = await answer_of(proxy, STREAM_BODY)
    assert EVENT_HEAD in answer.lower()
    body = text_of(answer)
    assert body.endswith(TOKEN + STOP + DONE)
    comments = body.removesuffix(TOKEN + STOP + DONE)
    assert comments.count(b": cellmeter is waiting for the provider\n\n") >= 3
    assert b"Accept-Encoding: gzip" in provider.received[0]
    assert b"Accept-Encoding: identity" in provider.received[1]
    call, _ = row(log_path)
    assert (call.outcome, call.finish_reason, call.error) == ("ok", "stop", None)
    assert f"x-request-id: {call.call_id}".encode() in answer


async def test_a_waiting_document_is_kept_alive_with_spaces(recorder: Recorder, log_path: Path) -> None:
    scripts: list[list[Step]] = [refused(b"429 Slow", b"retry-after-ms: 200"), [json_answer(ANSWER)]]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="absorb", patience=KEPT) as proxy:
        body = text_of(await answer_of(proxy))
    assert body.startswith(b"  ")
    assert json.loads(body) == json.loads(ANSWER)
    assert row(log_path)[0].outcome == "ok"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_clients_whom_no_filler_helps_are_sent_nothing(recorder: Recorder, log_path: Path, path: str) -> None:
    scripts: list[list[Step]] = [refused(b"429 Slow", b"retry-after-ms: 200"), refused(b"400 Bad")]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="absorb", patience=KEPT) as proxy:
        answer = await answer_of(proxy, STREAM_BODY, path)
    assert answer.startswith(b"HTTP/1.1 400 Bad\r\n")
    assert answer.endswith(b"\r\n\r\n" + REFUSAL)


async def test_a_final_refusal_after_the_head_is_an_event_and_the_row_says_so(
    recorder: Recorder, log_path: Path
) -> None:
    pretty = b'{\r\n  "error": {"message": "no", "type": "t"}\n}\n'
    scripts: list[list[Step]] = [refused(b"429 Slow", b"retry-after-ms: 100"), [json_answer(pretty, b"400 Bad")]]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="absorb", patience=KEPT) as proxy:
        answer = await answer_of(proxy, STREAM_BODY)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    event = text_of(answer).rpartition(b"data: ")[2]
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event) == {"error": {"message": "no", "type": "t"}}
    call, _ = row(log_path)
    assert (call.outcome, call.status) == ("http_error", 400)
    assert call.error == "t: no; the client was told inside a 200, whose head had gone out to keep it waiting"


@pytest.mark.parametrize("body", [BODY, STREAM_BODY])
async def test_a_provider_that_is_gone_in_the_end_is_told_inside_the_200(
    recorder: Recorder, log_path: Path, body: bytes
) -> None:
    scripts: list[list[Step]] = [refused(b"429 Slow", b"retry-after-ms: 100"), [close]]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="absorb", patience=KEPT) as proxy:
        answer = await answer_of(proxy, body)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    told = text_of(answer).rpartition(b"data: ")[2]
    assert json.loads(told)["error"]["type"] == "upstream_error"
    call, _ = row(log_path)
    assert (call.outcome, call.status) == ("upstream_unreachable", 502)
    assert "told inside a 200" in (call.error or "")


async def test_a_client_that_leaves_while_the_proxy_waits_ends_the_tries(recorder: Recorder, log_path: Path) -> None:
    asked = asyncio.Event()

    async def note() -> None:
        asked.set()

    script: list[Step] = [note, json_answer(REFUSAL, b"429 Slow", b"Retry-After: 15")]
    async with LiteralProvider(script) as provider, recorder(provider, on_429="absorb", patience=FAST) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY)
        await asked.wait()
        client.abort()
        async with asyncio.timeout(5):
            while proxy.open_calls():
                await asyncio.sleep(0.01)
    assert len(provider.received) == 1
    call, attempts = row(log_path)
    assert (call.state, call.outcome, call.status) == ("closed", "client_gone", None)
    assert call.client_gone_at is not None
    assert [attempt.status for attempt in attempts] == [429]
