"""Tries upstream: what is repeated is what cannot have been processed, and nothing else."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import pytest
from yarl import URL

from cellmeter_proxy.outcome import Limits
from cellmeter_proxy.record import Attempt
from cellmeter_proxy.sending import NoAnswerError, Outgoing, Sender
from cellmeter_proxy.testing import LiteralProvider, close, json_answer

Hook = Callable[[], Awaitable[None]]


@asynccontextmanager
async def sender_of(provider: LiteralProvider, before_sending: Hook) -> AsyncIterator[Sender]:
    """A sender whose connections are tampered with when everything is ready and nothing is sent yet."""

    async def on_headers(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
        await before_sending()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(on_headers)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        yield Sender(session, URL(provider.url), Limits(1, 1))


def outgoing(provider: LiteralProvider, body: bytes = b'{"model":"m"}') -> Outgoing:
    return Outgoing("POST", URL(provider.url) / "chat/completions", [], None, body)


async def answer(sender: Sender, provider: LiteralProvider, attempts: list[Attempt]) -> bytes:
    incoming = await sender.send(outgoing(provider), "c", attempts)
    return b"".join([part async for part in incoming.chunks()])


async def test_a_connection_that_was_closed_before_anything_was_sent_is_replaced_once() -> None:
    tries = 0
    async with LiteralProvider([json_answer(b"{}")], [json_answer(b"[]")]) as provider:

        async def before_sending() -> None:
            nonlocal tries
            tries += 1
            if tries == 2:
                await provider.hang_up()

        async with sender_of(provider, before_sending) as sender:
            attempts: list[Attempt] = []
            assert await answer(sender, provider, []) == b"{}"
            assert await answer(sender, provider, attempts) == b"[]"
    assert len(provider.received) == 2
    stale, served = attempts
    assert (stale.n, stale.status, served.n, served.status) == (1, None, 2, 200)
    assert "closed the kept-alive connection before anything of the request was sent" in (stale.error or "")


async def test_a_connection_that_is_closed_after_the_request_was_sent_is_an_error() -> None:
    async with LiteralProvider([json_answer(b"{}")], [close]) as provider:

        async def nothing() -> None:
            return

        async with sender_of(provider, nothing) as sender:
            attempts: list[Attempt] = []
            assert await answer(sender, provider, []) == b"{}"
            with pytest.raises(NoAnswerError, match="closed the connection without an answer"):
                await answer(sender, provider, attempts)
    assert len(provider.received) == 2
    assert [attempt.n for attempt in attempts] == [1]


async def test_a_second_dead_connection_is_the_end_of_it() -> None:
    tries = 0
    async with LiteralProvider() as provider:

        async def before_sending() -> None:
            nonlocal tries
            tries += 1
            await provider.hang_up()

        async with sender_of(provider, before_sending) as sender:
            attempts: list[Attempt] = []
            with pytest.raises(NoAnswerError):
                await answer(sender, provider, attempts)
    assert (tries, len(attempts), provider.received) == (2, 2, [])
