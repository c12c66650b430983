"""A client that drops its call and makes it again: one call upstream, two rows, one of them with the usage."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

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
    json_answer,
    reset,
)

Recorder = Callable[..., AbstractAsyncContextManager[Running]]
PATH = "/v1/chat/completions"
STREAM_BODY = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
SAME_BODY = b'{"stream":true,"model":"m","messages":[],"stream_options":{"include_usage":true}}'
TOKEN = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13}}\n\n'
DONE = b"data: [DONE]\n\n"
ALL = TOKEN + STOP + USAGE + DONE


def gated(go: asyncio.Event) -> list[Step]:
    """An answer whose first token comes at once, and the rest when it may."""
    return [EVENT_STREAM, chunk(TOKEN), go.wait, chunk(STOP), chunk(USAGE), chunk(DONE), LAST_CHUNK]


def rows(path: Path) -> tuple[list[Call], list[Attempt]]:
    with Log.read(path) as log:
        return sorted(log.rows(Call), key=lambda call: call.seq or 0), list(log.rows(Attempt))


def text_of(answer: bytes) -> bytes:
    """The body of a chunked answer."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


async def until_received(provider: LiteralProvider, count: int) -> None:
    async with asyncio.timeout(5):
        while len(provider.received) < count:
            await asyncio.sleep(0.01)


async def ask(proxy: Running, body: bytes = STREAM_BODY) -> LiteralClient:
    client = await LiteralClient.connect(proxy.url)
    await client.post(PATH, body, b"Connection: close", b"Authorization: Bearer k")
    return client


async def test_a_stream_that_is_under_way_is_given_to_the_client_that_comes_back(
    recorder: Recorder, log_path: Path
) -> None:
    go = asyncio.Event()
    async with LiteralProvider(gated(go), gated(go)) as provider, recorder(provider, on_429="absorb") as proxy:
        first = await ask(proxy)
        await first.until(TOKEN)
        first.abort()
        second = await ask(proxy, SAME_BODY)
        received = await second.until(TOKEN)
        go.set()
        received += (await second.rest())[0]
    assert text_of(received) == ALL
    assert len(provider.received) == 1
    (paid, joined), attempts = rows(log_path)
    assert paid.outcome == "client_gone"
    assert (paid.attached_to, paid.prompt_tokens, paid.usage_source) == (None, 11, "provider")
    assert (joined.outcome, joined.status, joined.finish_reason) == ("ok", 200, "stop")
    assert joined.attached_to == paid.call_id
    assert (joined.prompt_tokens, joined.completion_tokens, joined.usage, joined.usage_source) == (
        None,
        None,
        None,
        "none",
    )
    assert joined.response_blob == paid.response_blob
    assert [attempt.call_id for attempt in attempts] == [paid.call_id]


async def test_a_call_that_waits_for_its_answer_is_joined(recorder: Recorder, log_path: Path) -> None:
    go = asyncio.Event()
    script: list[Step] = [go.wait, json_answer(b'{"id":"c1","choices":[]}')]
    async with LiteralProvider(script) as provider, recorder(provider, on_429="absorb") as proxy:
        first = await ask(proxy)
        await until_received(provider, 1)
        first.abort()
        second = await ask(proxy)
        asking = asyncio.create_task(second.rest())
        await asyncio.wait({asking}, timeout=0.1)
        go.set()
        assert (await asking)[0].endswith(b'{"id":"c1","choices":[]}')
    assert len(provider.received) == 1


async def test_a_call_that_waits_to_be_tried_again_goes_on_for_the_client_that_comes_back(
    recorder: Recorder, log_path: Path
) -> None:
    refusal = json_answer(b"{}", b"429 Slow", b"retry-after-ms: 600")
    go = asyncio.Event()
    go.set()
    patience = Patience(quiet_s=30)
    async with (
        LiteralProvider([refusal], gated(go), gated(go)) as provider,
        recorder(provider, on_429="absorb", patience=patience) as proxy,
    ):
        first = await ask(proxy)
        await until_received(provider, 1)
        first.abort()
        answer = (await (await ask(proxy)).rest())[0]
    assert text_of(answer) == ALL
    (paid, joined), attempts = rows(log_path)
    if joined.attached_to is None:
        # The first was let go before the second came: then nothing of it was asked for again.
        assert (paid.outcome, paid.prompt_tokens) == ("client_gone", None)
    assert [attempt.status for attempt in attempts] == [429, 200]
    assert len(provider.received) == 2


async def test_two_equal_requests_whose_clients_are_there_are_two_calls(recorder: Recorder, log_path: Path) -> None:
    go = asyncio.Event()
    async with LiteralProvider(gated(go), gated(go)) as provider, recorder(provider, on_429="absorb") as proxy:
        clients = [await ask(proxy), await ask(proxy)]
        await until_received(provider, 2)
        go.set()
        for client in clients:
            assert text_of((await client.rest())[0]) == ALL
    assert len(provider.received) == 2
    assert all(call.attached_to is None for call in rows(log_path)[0])


async def test_another_request_is_another_call_and_so_is_one_that_is_only_observed(
    recorder: Recorder, log_path: Path
) -> None:
    for mode, body in (("absorb", STREAM_BODY.replace(b'"m"', b'"n"')), ("observe", STREAM_BODY)):
        go = asyncio.Event()
        async with LiteralProvider(gated(go), gated(go)) as provider, recorder(provider, on_429=mode) as proxy:
            first = await ask(proxy)
            await first.until(TOKEN)
            first.abort()
            second = await ask(proxy, body)
            await until_received(provider, 2)
            go.set()
            assert text_of((await second.rest())[0]) == ALL


async def test_an_answer_that_breaks_off_breaks_off_for_the_one_who_joined(recorder: Recorder, log_path: Path) -> None:
    go = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), go.wait, reset]
    async with LiteralProvider(script) as provider, recorder(provider, on_429="absorb") as proxy:
        first = await ask(proxy)
        await first.until(TOKEN)
        first.abort()
        second = await ask(proxy)
        await second.until(TOKEN)
        go.set()
        rest, _ = await second.rest()
    assert LAST_CHUNK not in rest
    (_, joined), _ = rows(log_path)
    assert joined.outcome == "stream_error"
    assert joined.attached_to is not None
