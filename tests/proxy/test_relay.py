"""The relay, seen from both ends and from the log: literal bytes in, literal bytes and exact rows out."""

import asyncio
import gzip
import json
import sqlite3
import zlib
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
    reset,
)

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi \\u00e9"}],"n":1.0,"temperature":0}'
STREAM_BODY = (
    b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}'
)
KEY = b"Authorization: Bearer sk-test-0123456789abcdefghijkl"
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","model":"m-2026","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"hello"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13}}'
)
ROLE = b'data: {"id":"c1","model":"m-2026","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13}}\n\n'
DONE = b"data: [DONE]\n\n"
PATH = "/v1/chat/completions"
Recorder = Callable[..., AbstractAsyncContextManager[Running]]


def calls(path: Path) -> list[Call]:
    with Log.read(path) as log:
        return list(log.rows(Call))


def states(path: Path) -> list[tuple[object, ...]]:
    """The rows as another process finds them, at this moment."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT state, outcome FROM calls ORDER BY rowid").fetchall()
    finally:
        connection.close()


async def test_an_answer_is_passed_on_byte_for_byte_and_its_row_is_exact(recorder: Recorder, log_path: Path) -> None:
    answer = json_answer(ANSWER, b"200 OK", b"X-Request-ID: r-7")
    async with LiteralProvider([answer]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, KEY, b"Content-Type: application/json", b"User-Agent: t/1")
        received = await client.until(ANSWER)
        await client.close()
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert provider.received[0].endswith(b"\r\n\r\n" + BODY)
    (call,) = calls(log_path)
    assert call.session.startswith("fp:")
    assert (call.seq, call.state, call.outcome, call.status) == (1, "closed", "ok", 200)
    assert (call.dialect, call.endpoint, call.stream) == ("chat.completions", PATH, False)
    assert (call.request_model, call.response_model) == ("m", "m-2026")
    assert (call.prompt_tokens, call.completion_tokens, call.usage_source) == (11, 2, "provider")
    assert call.usage is not None
    assert json.loads(call.usage) == {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}
    assert (call.finish_reason, call.tool_calls, call.ttft_ms) == ("stop", 0, None)
    assert call.body_hash == digest_of(BODY)
    assert (call.request_bytes, call.response_bytes) == (len(BODY), len(ANSWER))
    assert (call.request_id, call.user_agent, call.response_id) == ("r-7", "t/1", "chatcmpl-1")
    assert call.latency_ms is not None
    assert call.headers_ms is not None
    assert 0 < call.headers_ms <= call.latency_ms
    with Log.read(log_path) as log:
        assert call.request_blob is not None
        assert call.response_blob is not None
        assert log.blob(call.request_blob) == BODY
        assert log.blob(call.response_blob) == ANSWER
        (attempt,) = log.rows(Attempt)
    assert (attempt.call_id, attempt.n, attempt.status, attempt.error) == (call.call_id, 1, 200, None)


async def test_headers_reach_the_provider_as_the_agent_sent_them(recorder: Recorder) -> None:
    async with LiteralProvider([json_answer(ANSWER)]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post("/v1/chat/completions?b=%2F&a=1", BODY, KEY, b"X-Stainless-OS: Linux", b"x-odd-Case: 1")
        await client.until(ANSWER)
        await client.close()
    head = provider.received[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST /v1/chat/completions?b=%2F&a=1 HTTP/1.1"
    assert {KEY, b"X-Stainless-OS: Linux", b"x-odd-Case: 1"} <= set(head)
    assert not any(line.lower().startswith((b"user-agent", b"accept", b"content-type")) for line in head)


async def test_the_row_is_open_before_the_first_byte_and_closed_before_the_last(
    recorder: Recorder, log_path: Path
) -> None:
    go = asyncio.Event()
    script: list[Step] = [
        EVENT_STREAM,
        chunk(ROLE),
        chunk(TOKEN),
        go.wait,
        chunk(STOP),
        chunk(USAGE),
        chunk(DONE),
        LAST_CHUNK,
    ]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY, KEY)
        await client.until(b"\r\n\r\n")
        assert states(log_path) == [("open", None)]
        await client.until(TOKEN)
        assert states(log_path) == [("open", None)]
        go.set()
        await client.until(DONE)
        assert states(log_path) == [("closed", "ok")]
        await client.close()


async def test_a_stream_arrives_frame_by_frame_and_unchanged(recorder: Recorder, log_path: Path) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    keep_alive = b": keep-alive\n\n"
    script: list[Step] = [
        EVENT_STREAM,
        chunk(keep_alive),
        gates[0].wait,
        chunk(ROLE),
        gates[1].wait,
        chunk(TOKEN),
        gates[2].wait,
    ]
    script += [chunk(STOP + USAGE + DONE), LAST_CHUNK]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY, KEY)
        for part, gate in zip((keep_alive, ROLE, TOKEN), gates, strict=True):
            assert (await client.until(part)).endswith(part)
            gate.set()
        assert (await client.until(LAST_CHUNK)).replace(b"\r\n", b"").endswith(b"0")
        await client.close()
    (call,) = calls(log_path)
    assert (call.outcome, call.finish_reason, call.prompt_tokens, call.completion_tokens) == ("ok", "stop", 11, 2)
    assert call.stream is True
    assert call.ttft_ms is not None
    assert call.headers_ms is not None
    assert call.headers_ms <= call.ttft_ms
    with Log.read(log_path) as log:
        assert call.response_blob is not None
        assert log.blob(call.response_blob) == keep_alive + ROLE + TOKEN + STOP + USAGE + DONE


async def test_a_provider_that_breaks_off_breaks_the_client_off_too(recorder: Recorder, log_path: Path) -> None:
    go = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(ROLE), chunk(TOKEN), go.wait, reset]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY, KEY)
        await client.until(TOKEN)
        go.set()
        rest, _ = await client.rest()
        assert LAST_CHUNK not in rest
    (call,) = calls(log_path)
    assert (call.state, call.outcome, call.usage_source, call.prompt_tokens) == (
        "closed",
        "stream_error",
        "estimated",
        None,
    )
    assert "broke off" in (call.error or "")


async def test_a_short_answer_is_never_passed_off_as_whole(recorder: Recorder, log_path: Path) -> None:
    short = json_answer(ANSWER).removesuffix(b'"total_tokens":13}}')
    async with LiteralProvider([short, close]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, KEY)
        rest, _ = await client.rest()
        assert ANSWER not in rest
    assert calls(log_path)[0].outcome == "stream_error"


async def test_a_stream_that_ends_without_its_terminal_event_is_no_success(recorder: Recorder, log_path: Path) -> None:
    async with (
        LiteralProvider([EVENT_STREAM, chunk(ROLE), chunk(TOKEN), LAST_CHUNK]) as provider,
        recorder(provider) as proxy,
    ):
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY, KEY)
        await client.until(LAST_CHUNK)
        await client.close()
    (call,) = calls(log_path)
    assert (call.outcome, call.error) == ("stream_error", "the stream ended without its terminal event")


async def test_an_unreachable_provider_is_a_row_and_a_sentence(recorder: Recorder, log_path: Path) -> None:
    async with LiteralProvider() as provider:
        pass
    async with recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, KEY)
        head = await client.until(b"\r\n\r\n")
        await client.close()
    assert head.startswith(b"HTTP/1.1 502 ")
    (call,) = calls(log_path)
    assert (call.status, call.outcome, call.prompt_tokens) == (502, "upstream_unreachable", None)
    assert "cannot be reached" in (call.error or "")


async def test_a_provider_that_is_silent_too_long_is_a_timeout(recorder: Recorder, log_path: Path) -> None:
    never = asyncio.Event()
    async with LiteralProvider([never.wait]) as provider, recorder(provider, silence_s=0.1) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, KEY)
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 504 ")
        await client.close()
    assert (calls(log_path)[0].status, calls(log_path)[0].outcome) == (504, "timeout")


async def test_an_error_passes_on_with_its_retry_after_and_is_an_attempt(recorder: Recorder, log_path: Path) -> None:
    error = b'{"error":{"message":"slow down","type":"rate_limit_error"}}'
    throttled = json_answer(error, b"429 Too Many Requests", b"Retry-After: 1.5", b"x-ratelimit-remaining-requests: 0")
    async with LiteralProvider([throttled]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, KEY, b"x-stainless-retry-count: 2")
        answer = await client.until(error)
        await client.close()
    assert b"Retry-After: 1.5\r\n" in answer
    (call,) = calls(log_path)
    assert (call.status, call.outcome, call.retry_number, call.prompt_tokens) == (429, "http_error", 2, None)
    with Log.read(log_path) as log:
        (attempt,) = log.rows(Attempt)
    assert (attempt.status, attempt.retry_after_ms) == (429, 1500.0)
    assert "x-ratelimit-remaining-requests" in (attempt.ratelimit or "")


async def test_a_client_that_goes_away_loses_no_usage(recorder: Recorder, log_path: Path) -> None:
    gone = asyncio.Event()
    filler: list[Step] = [chunk(TOKEN)] * 50
    script: list[Step] = [
        EVENT_STREAM,
        chunk(ROLE),
        chunk(TOKEN),
        gone.wait,
        *filler,
        chunk(STOP),
        chunk(USAGE),
        chunk(DONE),
        LAST_CHUNK,
    ]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY, KEY)
        await client.until(TOKEN)
        client.abort()
        await asyncio.sleep(0.05)
        gone.set()
        while states(log_path) == [("open", None)]:
            await asyncio.sleep(0.01)
    (call,) = calls(log_path)
    assert (call.outcome, call.prompt_tokens, call.completion_tokens) == ("client_gone", 11, 2)
    assert call.client_gone_at is not None
    assert call.ended_at is not None
    assert call.client_gone_at <= call.ended_at


async def test_reading_on_for_a_client_that_went_away_is_bounded(recorder: Recorder, log_path: Path) -> None:
    gone, never = asyncio.Event(), asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), gone.wait, *[chunk(TOKEN)] * 20, never.wait]
    async with LiteralProvider(script) as provider, recorder(provider, drain_s=0.1) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY, KEY)
        await client.until(TOKEN)
        client.abort()
        await asyncio.sleep(0.05)
        gone.set()
        while states(log_path) == [("open", None)]:
            await asyncio.sleep(0.01)
    (call,) = calls(log_path)
    assert (call.outcome, call.usage_source) == ("client_gone", "estimated")
    assert "did not end within" in (call.error or "")


async def test_a_client_that_closes_after_the_terminal_event_has_a_complete_answer(
    recorder: Recorder, log_path: Path
) -> None:
    hang_up = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), chunk(STOP), chunk(USAGE), chunk(DONE), hang_up.wait, LAST_CHUNK]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY, KEY)
        await client.until(DONE)
        client.abort()
        await asyncio.sleep(0.05)
        hang_up.set()
        await asyncio.sleep(0.05)
    (call,) = calls(log_path)
    assert (call.state, call.outcome, call.prompt_tokens) == ("closed", "ok", 11)


async def test_stopping_the_proxy_marks_what_is_in_flight(recorder: Recorder, log_path: Path) -> None:
    never = asyncio.Event()
    async with LiteralProvider([EVENT_STREAM, chunk(TOKEN), never.wait]) as provider:
        async with recorder(provider, shutdown_s=0.1) as proxy:
            client = await LiteralClient.connect(proxy.url)
            await client.post(PATH, STREAM_BODY, KEY)
            await client.until(TOKEN)
        rest, _ = await client.rest()
        assert LAST_CHUNK not in rest
    (call,) = calls(log_path)
    assert (call.state, call.outcome, call.error) == ("interrupted", "interrupted", "the proxy was stopped")
    assert call.response_bytes == len(TOKEN)
    assert call.status == 200


async def test_stopping_the_proxy_marks_a_call_whose_row_still_waits_for_the_disk(
    recorder: Recorder, log_path: Path
) -> None:
    async with LiteralProvider([json_answer(ANSWER)]) as provider:
        async with recorder(provider, shutdown_s=0.1) as proxy:
            other = sqlite3.connect(log_path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            client = await LiteralClient.connect(proxy.url)
            await client.post(PATH, BODY, KEY)
            while not provider.received:
                await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.5, other.close)
        rest, _ = await client.rest()
        assert ANSWER not in rest
    assert states(log_path) == [("interrupted", "interrupted")]


@pytest.mark.parametrize(("rest", "outcome"), [(True, "client_gone"), (False, "interrupted")])
async def test_stopping_the_proxy_waits_within_bounds_for_what_is_read_on_for_a_client_that_has_gone(
    recorder: Recorder, log_path: Path, rest: bool, outcome: str
) -> None:
    gone, never = asyncio.Event(), asyncio.Event()
    filler: list[Step] = [chunk(TOKEN)] * 50
    tail: list[Step] = [chunk(STOP), chunk(USAGE), chunk(DONE), LAST_CHUNK] if rest else [never.wait]
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), gone.wait, *filler, *tail]
    async with LiteralProvider(script) as provider, recorder(provider, shutdown_s=0.3) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY, KEY)
        await client.until(TOKEN)
        client.abort()
        asyncio.get_running_loop().call_later(0.1, gone.set)
    assert states(log_path) == [("closed" if rest else "interrupted", outcome)]


async def test_what_cannot_be_recorded_is_not_served_and_has_a_row_once_there_is_a_log(
    recorder: Recorder, log_path: Path, tmp_path: Path
) -> None:
    async with LiteralProvider([json_answer(ANSWER)], [json_answer(ANSWER)]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        log_path.rename(tmp_path / "away.db")
        await client.post(PATH, BODY, KEY)
        answer = await client.until(b"}}")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"cannot be recorded" in answer
        assert b"hello" not in answer
        (tmp_path / "away.db").rename(log_path)
        await client.post(PATH, BODY, KEY)
        await client.until(ANSWER)
        await client.close()
    # The provider was asked twice, for the trouble was not known before.
    assert sorted(states(log_path)) == [("closed", "ok"), ("interrupted", "interrupted")]
    refused = next(call for call in calls(log_path) if call.state == "interrupted")
    assert (refused.status, refused.error) == (503, "the log could not be written at its beginning")
    assert refused.body_hash == digest_of(BODY)


async def test_an_answer_is_withheld_when_its_row_cannot_be_closed(
    recorder: Recorder, log_path: Path, tmp_path: Path
) -> None:
    go = asyncio.Event()
    script: list[Step] = [
        EVENT_STREAM,
        chunk(ROLE),
        chunk(TOKEN),
        go.wait,
        chunk(STOP),
        chunk(USAGE),
        chunk(DONE),
        LAST_CHUNK,
    ]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY, KEY)
        await client.until(TOKEN)
        log_path.rename(tmp_path / "away.db")
        go.set()
        rest, _ = await client.rest()
        assert DONE not in rest
        assert LAST_CHUNK not in rest
        assert proxy.writer.failing
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, KEY)
        assert (await client.until(b"}}")).startswith(b"HTTP/1.1 503 ")
        await client.close()
        assert len(provider.received) == 1
        (tmp_path / "away.db").rename(log_path)
    call, refused = calls(log_path)
    assert (call.state, call.outcome, call.prompt_tokens) == ("interrupted", "interrupted", 11)
    assert call.error == "the log could not be written at its end"
    assert refused.error == "the log could not be written at its beginning"


async def test_an_answer_is_withheld_when_its_row_could_not_be_opened_and_its_end_could_be_written(
    recorder: Recorder, log_path: Path
) -> None:
    """The answer is whole when it comes, and decodes to so much that its end is written by itself."""
    packed = gzip.compress(ANSWER.replace(b"hello", b"hello" * 100_000))
    answer = json_answer(packed, b"200 OK", b"Content-Encoding: gzip")
    async with LiteralProvider([answer]) as provider, recorder(provider) as proxy:
        with sqlite3.connect(log_path) as conn:
            conn.execute("CREATE TRIGGER no_room BEFORE INSERT ON calls BEGIN SELECT RAISE(ABORT, 'no room'); END")
        conn.close()
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, KEY, b"Connection: close")
        received, _ = await client.rest()
    assert received.startswith(b"HTTP/1.1 503 ")
    assert packed not in received
    assert calls(log_path) == []


async def test_a_cell_only_proxy_refuses_and_records_what_has_no_key(recorder: Recorder, log_path: Path) -> None:
    options = {"cells_only": True, "upstream_key": "sk-provider-0123456789abcdef"}
    async with LiteralProvider([json_answer(ANSWER)]) as provider, recorder(provider, **options) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, KEY)
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
        await client.close()
        key = proxy.keys.issue("sweep/agent/m/c/t#run1")
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, BODY, b"Authorization: Bearer " + key.encode())
        await client.until(ANSWER)
        await client.close()
    assert len(provider.received) == 1
    assert b"Bearer sk-provider-0123456789abcdef" in provider.received[0]
    refused, served = calls(log_path)
    assert (refused.outcome, refused.status, refused.cell_id) == ("rejected", 401, None)
    assert (served.outcome, served.cell_id, served.cell_attempt) == ("ok", "sweep/agent/m/c/t#run1", 1)


async def test_no_secret_reaches_the_disk(recorder: Recorder, log_path: Path) -> None:
    secret = b"sk-test-0123456789abcdefghijkl"
    echo = ANSWER.replace(b"hello", secret)
    request = BODY.replace(b"hi", b"my key is " + secret)
    async with LiteralProvider([json_answer(echo)]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, request, KEY)
        assert secret in await client.until(echo)
        await client.close()
    assert secret in provider.received[0]
    (call,) = calls(log_path)
    assert call.redactions == 2
    assert call.body_hash == digest_of(request)
    with Log.read(log_path) as log:
        stored = [log.blob(digest) for digest in (call.request_blob, call.response_blob) if digest]
    assert len(stored) == 2
    assert not any(secret in body for body in stored)
    assert secret not in b"".join(path.read_bytes() for path in log_path.parent.glob("calls.db*"))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_compressed_bodies_go_on_as_they_came_and_are_read_for_the_record(
    recorder: Recorder, log_path: Path, coding: str
) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    packed, answer = pack(BODY), pack(ANSWER)
    script = json_answer(answer, b"200 OK", b"content-encoding: " + coding.encode())
    async with LiteralProvider([script]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, packed, KEY, b"Content-Encoding: " + coding.encode(), b"Accept-Encoding: gzip, deflate")
        await client.until(answer)
        await client.close()
    assert provider.received[0].endswith(packed)
    assert b"Accept-Encoding: gzip, deflate" in provider.received[0]
    (call,) = calls(log_path)
    assert (call.request_model, call.prompt_tokens, call.body_hash) == ("m", 11, digest_of(packed))


async def test_megabytes_pass_both_ways(recorder: Recorder, log_path: Path) -> None:
    big = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 20_000_000}]}).encode()
    answer = ANSWER.replace(b"hello", b"y" * 5_000_000)
    async with LiteralProvider([json_answer(answer)]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, big, KEY)
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await client.exactly(len(answer))
        await client.close()
    assert provider.received[0].endswith(big)
    assert (calls(log_path)[0].request_bytes, calls(log_path)[0].response_bytes) == (len(big), len(answer))


async def test_an_unknown_path_is_passed_through_and_recorded_as_unknown(recorder: Recorder, log_path: Path) -> None:
    async with LiteralProvider([json_answer(b'{"ok":true}')]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post("/v1/datalake/events", b"\x00\xff", KEY)
        await client.until(b'{"ok":true}')
        await client.close()
    (call,) = calls(log_path)
    assert (call.dialect, call.endpoint, call.outcome) == ("unknown", "/v1/datalake/events", "ok")
    assert (call.prompt_tokens, call.usage_source, call.body_hash) == (None, "none", digest_of(b"\x00\xff"))


async def test_calls_at_once_on_one_proxy_all_get_their_own_rows(recorder: Recorder, log_path: Path) -> None:
    count = 60
    async with LiteralProvider(*([json_answer(ANSWER)] for _ in range(count))) as provider, recorder(provider) as proxy:

        async def one() -> None:
            client = await LiteralClient.connect(proxy.url)
            await client.post(f"/s/crowd{PATH}", BODY, KEY)
            await client.until(ANSWER)
            await client.close()

        await asyncio.gather(*(one() for _ in range(count)))
    rows = calls(log_path)
    assert sorted(row.seq or 0 for row in rows) == list(range(1, count + 1))
    assert {(row.session, row.outcome) for row in rows} == {("crowd", "ok")}


async def test_stopping_the_proxy_marks_a_call_whose_client_has_gone(recorder: Recorder, log_path: Path) -> None:
    never = asyncio.Event()
    async with LiteralProvider([EVENT_STREAM, chunk(TOKEN), never.wait]) as provider:
        async with recorder(provider, shutdown_s=0.1) as proxy:
            client = await LiteralClient.connect(proxy.url)
            await client.post(PATH, STREAM_BODY, KEY)
            await client.until(TOKEN)
            client.abort()
            await asyncio.sleep(0.05)
            assert proxy.open_calls() == 1
        assert states(log_path) == [("interrupted", "interrupted")]
        assert proxy.open_calls() == 0
