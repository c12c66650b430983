"""Each way a call can end badly: its own row, its own sentence, and what the client sees."""

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trustme

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
    reset,
)

Recorder = Callable[..., AbstractAsyncContextManager[Running]]
PATH = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAM_BODY = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
ANSWER = b'{"id":"c1","model":"m","choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}'
TOKEN = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def row(path: Path) -> tuple[Call, list[Attempt]]:
    with Log.read(path) as log:
        (call,) = log.rows(Call)
        return call, list(log.rows(Attempt))


async def answer_of(proxy: Running, body: bytes = BODY) -> bytes:
    """Everything that the client sees, to the end of its connection."""
    client = await LiteralClient.connect(proxy.url)
    await client.post(PATH, body, b"Connection: close")
    return (await client.rest())[0]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_a_refused_connection(recorder: Recorder, log_path: Path) -> None:
    async with recorder(f"http://127.0.0.1:{free_port()}/v1") as proxy:
        answer = await answer_of(proxy)
    assert answer.startswith(b"HTTP/1.1 502 ")
    call, (attempt,) = row(log_path)
    assert (call.state, call.outcome, call.status, call.headers_ms) == ("closed", "upstream_unreachable", 502, None)
    assert "cannot be reached: Connect" in (call.error or "")
    assert (attempt.status, attempt.error) == (None, call.error)
    assert f"x-request-id: {call.call_id}".encode() in answer
    assert b'"type":"upstream_error"' in answer


async def test_a_name_without_an_address(recorder: Recorder, log_path: Path) -> None:
    async with recorder("http://provider.invalid/v1") as proxy:
        assert (await answer_of(proxy)).startswith(b"HTTP/1.1 502 ")
    call, _ = row(log_path)
    assert call.outcome == "upstream_unreachable"
    assert "provider.invalid has no known address" in (call.error or "")


async def test_a_certificate_that_nobody_vouches_for(recorder: Recorder, log_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with LiteralProvider([json_answer(ANSWER)], tls=context) as provider, recorder(provider) as proxy:
        assert (await answer_of(proxy)).startswith(b"HTTP/1.1 502 ")
    assert provider.received == []
    call, _ = row(log_path)
    assert call.outcome == "upstream_unreachable"
    assert "has a certificate that cannot be trusted" in (call.error or "")


async def test_a_provider_that_speaks_no_tls(recorder: Recorder, log_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(json_answer(ANSWER))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with recorder(f"https://127.0.0.1:{port}/v1") as proxy:
            assert (await answer_of(proxy)).startswith(b"HTTP/1.1 502 ")
    call, _ = row(log_path)
    assert call.outcome == "upstream_unreachable"
    assert "gave no TLS connection" in (call.error or "")


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ([close], "closed the connection without an answer"),
        ([reset], "broke off the connection before it answered"),
        ([b"HTTP/1.1 200 OK\r\nContent-Ty", close], "closed the connection without an answer"),
        ([b"220 mail.example ESMTP\r\n", close], "answered with something that is not HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", close], "answered with something that is not HTTP"),
    ],
)
async def test_no_answer_at_all(recorder: Recorder, log_path: Path, script: list[Step], sentence: str) -> None:
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        assert (await answer_of(proxy)).startswith(b"HTTP/1.1 502 ")
    assert len(provider.received) == 1
    call, (attempt,) = row(log_path)
    assert (call.outcome, call.status) == ("upstream_unreachable", 502)
    assert sentence in (call.error or "")
    assert attempt.error == call.error


async def test_silence_before_the_head_is_a_timeout(recorder: Recorder, log_path: Path) -> None:
    never = asyncio.Event()
    async with LiteralProvider([never.wait]) as provider, recorder(provider, silence_s=0.1) as proxy:
        assert (await answer_of(proxy)).startswith(b"HTTP/1.1 504 ")
    call, _ = row(log_path)
    assert (call.outcome, call.status, call.headers_ms) == ("timeout", 504, None)
    assert "sent nothing for 0.1 s" in (call.error or "")


async def test_silence_between_two_bytes_is_a_timeout_with_the_providers_own_status(
    recorder: Recorder, log_path: Path
) -> None:
    never = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), never.wait]
    async with LiteralProvider(script) as provider, recorder(provider, silence_s=0.2) as proxy:
        answer = await answer_of(proxy, STREAM_BODY)
    assert TOKEN in answer
    assert LAST_CHUNK not in answer
    call, _ = row(log_path)
    assert (call.outcome, call.status) == ("timeout", 200)
    assert "fell silent in the middle of its answer for 0.2 s" in (call.error or "")


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ([TOKEN], "ended without its terminal event"),
        ([TOKEN, DONE], "said [DONE] before any choice had finished"),
        ([DONE], "said [DONE] before any choice had finished"),
        ([TOKEN, b'data: {"error":{"message":"overloaded","code":503}}\n\n', DONE], "503: overloaded"),
        ([b'event: error\ndata: {"error":{"message":"no"}}\n\n'], "no"),
    ],
)
async def test_a_stream_that_ends_in_order_and_is_no_answer(
    recorder: Recorder, log_path: Path, frames: list[bytes], sentence: str
) -> None:
    script = [EVENT_STREAM, *map(chunk, frames), LAST_CHUNK]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        answer = await answer_of(proxy, STREAM_BODY)
    assert answer.replace(b"\r\n", b"").endswith(b"0")
    call, _ = row(log_path)
    assert (call.state, call.outcome, call.status) == ("closed", "stream_error", 200)
    assert sentence in (call.error or "")


@pytest.mark.parametrize("frames", [[TOKEN, STOP], [TOKEN, STOP, DONE], [TOKEN, STOP, b"data: [DONE]"]])
async def test_a_stream_whose_choice_has_finished_needs_no_done(
    recorder: Recorder, log_path: Path, frames: list[bytes]
) -> None:
    script = [EVENT_STREAM, *map(chunk, frames), LAST_CHUNK]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        await answer_of(proxy, STREAM_BODY)
    call, _ = row(log_path)
    assert (call.outcome, call.finish_reason, call.error) == ("ok", "stop", None)


async def test_a_provider_that_breaks_off_after_the_terminal_event_has_answered(
    recorder: Recorder, log_path: Path
) -> None:
    go = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), chunk(STOP), chunk(DONE), go.wait, reset]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY)
        await client.until(DONE)
        go.set()
        await client.until(LAST_CHUNK)
        await client.close()
    call, _ = row(log_path)
    assert (call.outcome, call.finish_reason, call.error) == ("ok", "stop", None)


async def test_a_provider_that_does_not_end_after_the_terminal_event_is_waited_for_within_bounds(
    recorder: Recorder, log_path: Path
) -> None:
    never = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), chunk(STOP), chunk(DONE), never.wait]
    async with LiteralProvider(script) as provider, recorder(provider, drain_s=0.1) as proxy:
        answer = await answer_of(proxy, STREAM_BODY)
    assert DONE in answer
    assert row(log_path)[0].outcome == "ok"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (json_answer(b'{"error":{"message":"quota","type":"insufficient_quota"}}'), "insufficient_quota: quota"),
        (json_answer(ANSWER[:-5]), "not a whole JSON object"),
        (json_answer(b"<html>gateway</html>"), "not a whole JSON object"),
        (json_answer(b""), "not a whole JSON object"),
        (json_answer(ANSWER[:20], b"200 OK", b"Content-Encoding: gzip"), "damaged encoded data"),
    ],
)
async def test_a_200_that_is_no_answer(recorder: Recorder, log_path: Path, answer: bytes, sentence: str) -> None:
    async with LiteralProvider([answer]) as provider, recorder(provider) as proxy:
        assert (await answer_of(proxy)).startswith(b"HTTP/1.1 200 ")
    call, _ = row(log_path)
    assert (call.outcome, call.status, call.prompt_tokens) == ("stream_error", 200, None)
    assert sentence in (call.error or "")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 204 No Content\r\nContent-Type: text/event-stream\r\n\r\n", 204),
        (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", 205),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", 304),
        (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 307),
    ],
)
@pytest.mark.parametrize("body", [BODY, STREAM_BODY])
async def test_a_status_that_carries_no_answer_is_an_error_of_http_and_nothing_is_estimated(
    recorder: Recorder, log_path: Path, head: bytes, status: int, body: bytes
) -> None:
    async with LiteralProvider([head]) as provider, recorder(provider) as proxy:
        assert (await answer_of(proxy, body)).startswith(head.partition(b"\r\n")[0])
    call, (attempt,) = row(log_path)
    assert (call.state, call.outcome, call.status, attempt.status) == ("closed", "http_error", status, status)
    assert call.error == f"HTTP {status} carries no answer of a model"
    assert (call.usage_source, call.estimated_prompt_tokens, call.completion_tokens) == ("none", None, None)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_to_a_call_of_no_model_it_is_an_answer(recorder: Recorder, log_path: Path, status: bytes) -> None:
    async with LiteralProvider([b"HTTP/1.1 " + status + b"\r\n\r\n"]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.send(b"GET /v1/models HTTP/1.1\r\nHost: p\r\nIf-None-Match: x\r\nConnection: close\r\n\r\n")
        assert (await client.rest())[0].startswith(b"HTTP/1.1 " + status)
    assert row(log_path)[0].outcome == "ok"


async def test_a_coding_that_nobody_here_knows_is_not_held_against_the_provider(
    recorder: Recorder, log_path: Path
) -> None:
    answer = json_answer(b"\x01\x02\x03", b"200 OK", b"Content-Encoding: rot13")
    async with LiteralProvider([answer]) as provider, recorder(provider) as proxy:
        assert (await answer_of(proxy)).endswith(b"\x01\x02\x03")
    call, _ = row(log_path)
    assert (call.outcome, call.response_encoding, call.usage_source) == ("ok", "rot13", "estimated")


async def test_an_error_keeps_its_status_and_says_what_the_provider_said(recorder: Recorder, log_path: Path) -> None:
    error = json_answer(b'{"error":{"message":"try later"}}', b"503 Service Unavailable")
    async with LiteralProvider([error]) as provider, recorder(provider) as proxy:
        assert (await answer_of(proxy)).startswith(b"HTTP/1.1 503 ")
    call, _ = row(log_path)
    assert (call.outcome, call.status, call.error) == ("http_error", 503, "try later")


async def test_a_client_that_goes_away_during_its_upload_leaves_a_row(recorder: Recorder, log_path: Path) -> None:
    async with LiteralProvider() as provider, recorder(provider) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        writer.write(b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: p\r\nContent-Length: 1000\r\n\r\n" + BODY)
        await writer.drain()
        while not proxy.open_calls():
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while proxy.open_calls():
            await asyncio.sleep(0.01)
        del reader
    assert provider.received == []
    call, attempts = row(log_path)
    assert (call.state, call.outcome, call.status, attempts) == ("closed", "client_gone", None, [])
    assert call.error == "the client went away during its upload"
    assert call.client_gone_at is not None
    assert call.request_bytes == len(BODY)


@pytest.mark.parametrize(("rest", "status"), [(b"", 408), (b"zz\r\n", 400), (b"1\r\n{zz", 400)])
async def test_an_upload_that_does_not_go_on_as_http_is_rejected_with_a_row(
    recorder: Recorder, log_path: Path, rest: bytes, status: int
) -> None:
    async with LiteralProvider() as provider, recorder(provider, upload_s=0.1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        head = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"2\r\n{}\r\n")
        while not proxy.open_calls():
            await asyncio.sleep(0.01)
        writer.write(rest)
        answer = await reader.readuntil(b"\r\n")
        writer.close()
    assert provider.received == []
    call, _ = row(log_path)
    assert (call.state, call.outcome, call.status) == ("closed", "rejected", status)
    assert answer.startswith(b"HTTP/1.1 %d " % status)


async def test_a_proxy_that_stops_during_an_upload_says_so(recorder: Recorder, log_path: Path) -> None:
    async with LiteralProvider() as provider:
        async with recorder(provider, shutdown_s=0.1) as proxy:
            _, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
            writer.write(b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: p\r\nContent-Length: 1000\r\n\r\n" + BODY)
            while not proxy.open_calls():
                await asyncio.sleep(0.01)
        writer.close()
    call, _ = row(log_path)
    assert (call.state, call.outcome) == ("interrupted", "interrupted")


async def test_a_proxy_that_stops_while_its_log_cannot_be_written_stops_without_a_word_of_it(
    recorder: Recorder, log_path: Path
) -> None:
    trouble: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    away = log_path.with_name("away.db")
    async with LiteralProvider([EVENT_STREAM, chunk(TOKEN), asyncio.Event().wait]) as provider:
        async with recorder(provider, shutdown_s=0.1) as proxy:
            client = await LiteralClient.connect(proxy.url)
            await client.post(PATH, STREAM_BODY)
            await client.until(TOKEN)
            log_path.rename(away)
        await client.close()
    gc.collect()
    assert trouble == []
    away.rename(log_path)
    assert row(log_path)[0].outcome is None


async def test_a_client_of_http_1_0_sees_the_break_too(recorder: Recorder, log_path: Path) -> None:
    go = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), go.wait, reset]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        head = b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (PATH.encode(), len(STREAM_BODY))
        writer.write(head + STREAM_BODY)
        await reader.readuntil(TOKEN)
        go.set()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    assert row(log_path)[0].outcome == "stream_error"


@pytest.mark.parametrize("start", [b"CONNECT api.example:443 HTTP/1.1", b"OPTIONS * HTTP/1.1"])
async def test_the_proxy_is_no_forward_proxy(recorder: Recorder, start: bytes) -> None:
    async with LiteralProvider() as provider, recorder(provider) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        writer.write(start + b"\r\nHost: api.example\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        writer.close()
    assert provider.received == []


@pytest.mark.parametrize(
    "answer", [[json_answer(ANSWER)], [EVENT_STREAM, chunk(TOKEN), chunk(STOP), chunk(DONE), LAST_CHUNK]]
)
async def test_a_client_that_goes_away_while_the_provider_thinks_loses_nothing(
    recorder: Recorder, log_path: Path, answer: list[bytes]
) -> None:
    go = asyncio.Event()
    script: list[Step] = [go.wait, *answer]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY if len(answer) == 1 else STREAM_BODY)
        while not provider.received:
            await asyncio.sleep(0.01)
        await client.close()
        for _ in range(10):
            await asyncio.sleep(0)
        go.set()
        while proxy.open_calls():
            await asyncio.sleep(0.01)
    call, _ = row(log_path)
    assert (call.state, call.outcome, call.finish_reason) == ("closed", "client_gone", "stop")
    assert call.client_gone_at is not None


async def test_a_switch_of_protocols_is_no_answer(recorder: Recorder, log_path: Path) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    async with LiteralProvider([switch, close]) as provider, recorder(provider) as proxy:
        assert (await answer_of(proxy)).startswith(b"HTTP/1.1 502 ")
    call, _ = row(log_path)
    assert (call.state, call.outcome, call.status) == ("closed", "upstream_unreachable", 502)
