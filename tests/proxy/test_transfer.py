"""Transfer codings below ``chunked``: a client gets what the provider meant, or is told that nobody can tell."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.server import Running
from cellmeter_proxy.testing import LAST_CHUNK, LiteralClient, LiteralProvider, Step, chunk, close

Recorder = Callable[..., AbstractAsyncContextManager[Running]]
PATH = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'
STREAM_BODY = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
USAGE = b'"usage":{"prompt_tokens":1,"completion_tokens":2}'
ANSWER = b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}],%b}' % USAGE
TOKEN = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],%b}\n\n' % USAGE
DONE = b"data: [DONE]\n\n"


def head(*codings: bytes, content_type: bytes = b"application/json") -> bytes:
    lines = b"".join([b"Transfer-Encoding: %b\r\n" % coding for coding in codings])
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n" % (content_type, lines)


def only(path: Path) -> Call:
    with Log.read(path) as log:
        (call,) = log.rows(Call)
        return call


async def answer_of(proxy: Running, body: bytes = BODY) -> tuple[bytes, bytes, bool]:
    """The head and the rest of what the client sees, and whether its chunks end."""
    client = await LiteralClient.connect(proxy.url)
    await client.post(PATH, body, b"Connection: close")
    seen, _, rest = (await client.rest())[0].partition(b"\r\n\r\n")
    return seen, rest, rest.endswith(LAST_CHUNK)


@pytest.mark.parametrize(
    "script",
    [
        [head(b"gzip, chunked"), chunk(gzip.compress(ANSWER)), LAST_CHUNK],
        [head(b"gzip", b"chunked"), chunk(gzip.compress(ANSWER)), LAST_CHUNK],
        [head(b"X-GZIP ,\tChunked"), *(chunk(bytes([byte])) for byte in gzip.compress(ANSWER)), LAST_CHUNK],
        [head(b"deflate, gzip, chunked"), chunk(gzip.compress(zlib.compress(ANSWER))), LAST_CHUNK],
        [head(b"gzip"), gzip.compress(ANSWER), close],
        [head(b"identity"), ANSWER, close],
        [head(b"chunked, chunked"), chunk(ANSWER), LAST_CHUNK],
        [head(b"chunked", b"chunked"), chunk(ANSWER), LAST_CHUNK],
    ],
)
async def test_an_answer_goes_on_without_the_coding_whose_label_does_not(
    recorder: Recorder, log_path: Path, script: list[Step]
) -> None:
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        seen, rest, ends = await answer_of(proxy)
    assert b"gzip" not in seen
    assert b"".join(piece for piece in rest.split(b"\r\n")[1::2]) == ANSWER
    assert ends
    call = only(log_path)
    assert (call.outcome, call.finish_reason, call.response_encoding) == ("ok", "stop", None)
    assert call.response_bytes == len(ANSWER)
    with Log.read(log_path) as log:
        assert log.blob(call.response_blob or "") == ANSWER


async def test_events_go_on_as_they_come(recorder: Recorder, log_path: Path) -> None:
    seen = asyncio.Event()
    coder = zlib.compressobj(wbits=31)
    token, *rest = [coder.compress(event) + coder.flush(zlib.Z_SYNC_FLUSH) for event in (TOKEN, STOP, DONE)]
    coded = head(b"gzip, chunked", content_type=b"text/event-stream")
    script: list[Step] = [coded, chunk(token), seen.wait, *map(chunk, rest), chunk(coder.flush()), LAST_CHUNK]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, STREAM_BODY)
        await client.until(chunk(TOKEN))
        seen.set()
        assert (await client.until(LAST_CHUNK)).endswith(DONE + b"\r\n" + LAST_CHUNK)
        await client.close()
    assert (only(log_path).outcome, only(log_path).frames) == ("ok", 3)


@pytest.mark.parametrize(
    "script",
    [
        [head(b"gzip, chunked"), chunk(gzip.compress(ANSWER)[:-9]), LAST_CHUNK],
        [head(b"gzip, chunked"), chunk(ANSWER), LAST_CHUNK],
        [head(b"gzip"), gzip.compress(ANSWER)[:-1], close],
    ],
)
async def test_a_coding_that_is_damaged_or_cut_off_breaks_the_answer_off(
    recorder: Recorder, log_path: Path, script: list[Step]
) -> None:
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        _, _, ends = await answer_of(proxy)
    assert not ends
    call = only(log_path)
    assert (call.state, call.outcome) == ("closed", "stream_error")
    assert "in its transfer coding" in (call.error or "")


@pytest.mark.parametrize("codings", [b"rot13, chunked", b"chunked, gzip", b"chunked;q=1", b"br2"])
async def test_of_an_answer_in_an_unknown_coding_nothing_goes_on(
    recorder: Recorder, log_path: Path, codings: bytes
) -> None:
    script: list[Step] = [head(codings), chunk(ANSWER), LAST_CHUNK, close]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        seen, rest, _ = await answer_of(proxy)
    assert seen.startswith(b"HTTP/1.1 502 ")
    assert ANSWER not in rest
    call = only(log_path)
    assert (call.outcome, call.status) == ("upstream_unreachable", 502)
    assert "its transfer coding is not known here" in (call.error or "")


async def test_a_request_in_such_a_coding_is_rejected(recorder: Recorder, log_path: Path) -> None:
    async with LiteralProvider() as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
            + chunk(gzip.compress(BODY))
            + LAST_CHUNK
        )
        assert (await client.until(b"}}")).startswith(b"HTTP/1.1 400 ")
        await client.close()
    assert provider.received == []
    call = only(log_path)
    assert (call.state, call.outcome, call.status) == ("closed", "rejected", 400)
    assert call.error == "the body of the request is not valid HTTP: its transfer coding is not known here: gzip"
