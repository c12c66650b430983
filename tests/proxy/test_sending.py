"""Tries upstream: what is repeated is what cannot have been processed, and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from cellmeter_proxy.headers import RequestHeaders
from cellmeter_proxy.http_client import ProviderClient
from cellmeter_proxy.http_wire import Wire
from cellmeter_proxy.outcome import Limits
from cellmeter_proxy.record import Attempt
from cellmeter_proxy.sending import NoAnswerError, Outgoing, Sender
from cellmeter_proxy.testing import LiteralProvider, close, json_answer


class Tampering(ProviderClient):
    """A client whose provider hangs up when the request is ready and nothing of it is sent yet."""

    def __init__(self, provider: LiteralProvider, at: set[int]) -> None:
        super().__init__(URL(provider.url), connect_s=1, silence_s=1)
        self.tries = 0
        self._provider = provider
        self._at = at

    async def connect(self) -> Wire:
        wire = await super().connect()
        self.tries += 1
        if self.tries in self._at:
            await self._provider.hang_up()
        return wire


@asynccontextmanager
async def sender_of(provider: LiteralProvider, hangs_up_at: set[int]) -> AsyncIterator[Sender]:
    async with Tampering(provider, hangs_up_at) as client:
        yield Sender(client, URL(provider.url), Limits(1, 1))


async def answer(sender: Sender, attempts: list[Attempt], body: bytes = b'{"model":"m"}') -> bytes:
    incoming = await sender.send(
        Outgoing("POST", "/v1/chat/completions", RequestHeaders([]), None, body), "c", attempts
    )
    return b"".join([part async for part in incoming.chunks()])


async def test_a_connection_that_was_closed_before_anything_was_sent_is_replaced_once() -> None:
    scripts = [[json_answer(b"{}")], [json_answer(b"[]")]]
    async with LiteralProvider(*scripts) as provider, sender_of(provider, {2}) as sender:
        attempts: list[Attempt] = []
        assert await answer(sender, []) == b"{}"
        assert await answer(sender, attempts) == b"[]"
    assert len(provider.received) == 2
    stale, served = attempts
    assert (stale.n, stale.status, served.n, served.status) == (1, None, 2, 200)
    assert "closed the kept-alive connection before anything of the request was sent" in (stale.error or "")


async def test_a_connection_that_is_closed_after_the_request_was_sent_is_an_error() -> None:
    async with LiteralProvider([json_answer(b"{}")], [close]) as provider, sender_of(provider, set()) as sender:
        attempts: list[Attempt] = []
        assert await answer(sender, []) == b"{}"
        with pytest.raises(NoAnswerError, match="closed the connection without an answer"):
            await answer(sender, attempts)
    assert len(provider.received) == 2
    assert [attempt.n for attempt in attempts] == [1]


async def test_a_second_dead_connection_is_the_end_of_it() -> None:
    async with LiteralProvider() as provider, sender_of(provider, {1, 2}) as sender:
        attempts: list[Attempt] = []
        with pytest.raises(NoAnswerError):
            await answer(sender, attempts)
    assert (len(attempts), provider.received) == (2, [])
