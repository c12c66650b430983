"""Back to the client: one answer, released as it arrives, its last bytes only once the row is committed.

Invariant: bytes are released in the order they came; those that complete the answer after the row is closed. Where the
client has gone, the answer is still read for the record, within bounds. Where the provider breaks off, so does the
client's connection, for otherwise half an answer would pass for a whole one. What the provider does after the bytes
that complete its answer changes nothing of the answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import aiohttp
from msgspec.structs import replace

from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.headers import answer_headers, printable
from cellmeter_proxy.http_message import Response
from cellmeter_proxy.late import Envelope
from cellmeter_proxy.outcome import Broken, Head, Limits, broke_off
from cellmeter_proxy.record import now_us
from cellmeter_proxy.recording import Answer
from cellmeter_proxy.sending import Incoming, request_id
from cellmeter_proxy.watch import Watcher, content_length, relabelled, watch

Close = Callable[[Exchange, Answer], Awaitable[None]]
"""Closes the row from the answer as far as it has come, and returns after the commit."""

_LOOK_S: Final = 0.5


class Drain(NamedTuple):
    """How much is still read once nobody waits for it: the client has gone, or has the terminal event."""

    seconds: float
    size: int


class Passage:
    """Passes one answer on."""

    def __init__(self, exchange: Exchange, incoming: Incoming, limits: Limits, drain: Drain, close: Close) -> None:
        upstream = incoming.response
        headers = upstream.headers
        head = Head(
            upstream.status,
            exchange.ms(),
            headers.get("Content-Type"),
            headers.get("Content-Encoding"),
            exchange.attempts[-1].request_id if exchange.attempts else request_id(headers),
            told_late=exchange.early is not None,
        )
        self._watcher = watch(exchange.call.dialect, headers, strip_usage=incoming.asked)
        self._answer = exchange.answer = Answer(head, self._watcher)
        self._response = exchange.early or Response(
            upstream.status,
            answer_headers(upstream.raw_headers, shortened=self._watcher.strips),
            printable(upstream.reason),
        )
        self._envelope: Envelope | None = None
        if exchange.early is not None:
            streamed = self._watcher.frames is not None
            self._envelope = Envelope(exchange.early, streamed=streamed, encoding=head.content_encoding)
        self._exchange = exchange
        self._incoming = incoming
        self._limits = limits
        self._drain = drain
        self._close = close
        self._released = 0
        self._recognised = self._envelope is not None  # whose form was chosen already
        self._answered = False  # the client has been given all that completes the answer
        self._deaf = False  # it has gone since
        self._backlog = b""  # what could not be passed on the moment it came
        self._drained = 0  # bytes that nobody waited for
        self._looking: asyncio.TimerHandle | None = None

    def run(self) -> Awaitable[Response]:
        """Pass the answer on to its end, and close the row on the way."""
        return self._pass_whole() if self._incoming.is_whole and self._envelope is None else self._pass_on()

    async def _pass_on(self) -> Response:
        """Pass on an answer that is still to come, or whose client has its head already."""
        exchange = self._exchange
        await self._release_head()
        broken = await self._pass_body()
        held = self._watcher.finish()
        if broken is None or exchange.closed:
            await self._complete(held)
            if self._envelope is not None and self._answered:
                await self._write(self._envelope.end())
        else:
            await self._close(exchange, replace(self._answer, broken=broken))
        if broken is not None and not (self._answered and not self._response.has_length):
            exchange.request.break_off()
        return self._response

    async def _pass_whole(self) -> Response:
        """Pass on an answer that is there already: the row first, then all of it at once."""
        exchange, response = self._exchange, self._response
        data = self._incoming.take_all()
        out = self._feed(data) if data else b""
        out += self._watcher.finish()
        await self._close(exchange, self._answer)
        response.begin(exchange.request)
        if exchange.client_gone_at is None:
            exchange.response = response
            try:
                if not response.end(out):
                    await response.drain()
            except ConnectionError:
                exchange.client_gone_at = now_us()
                await self._close(exchange, self._answer)
        return response

    async def _pass_body(self) -> Broken | None:
        """Pass the body on as it arrives; return why it broke off, or None where it ended."""
        exchange = self._exchange
        patience = asyncio.timeout(None)
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look, patience)
        try:
            async with patience:
                async for _ in self._incoming.each(self._pass_at_once):
                    await self._go_on()
                    if exchange.awaited and not exchange.closed:
                        patience.reschedule(None)
                        continue
                    self._bound(patience)
                    if self._drained > self._drain.size:
                        return _too_much(f"{self._drained} further bytes")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if patience.expired():
                return _too_much(f"{self._drain.seconds:g} s")
            return broke_off(error, self._limits)
        finally:
            # The handle and what it calls would keep each other, and all of the call.
            self._looking.cancel()
            self._looking = None
        return None

    def _pass_at_once(self, chunk: bytes) -> bool:
        """Pass a piece on the moment it comes; False where there is more to do than that."""
        exchange = self._exchange
        out = self._watcher.feed(chunk, exchange.ms()) if self._recognised else self._feed(chunk)
        if exchange.client_gone_at is None and not exchange.closed:
            if self._envelope is None and not self._watcher.terminal:
                try:
                    return self._response.put(out)
                except ConnectionError:
                    exchange.client_gone_at = now_us()
                    return False
        elif exchange.closed or not exchange.followers:
            self._drained += len(chunk)
        self._backlog += out
        return False

    async def _go_on(self) -> None:
        """Do for the latest piece what takes waiting: for a slow client, or for the commit before the end."""
        backlog, self._backlog = self._backlog, b""
        await self._release(backlog)
        if not self._deaf and self._exchange.client_gone_at is None and self._response.begun:
            try:
                await self._response.drain()
            except ConnectionError:
                self._exchange.client_gone_at = now_us()
        if self._watcher.terminal and not self._exchange.closed:
            await self._complete(self._watcher.take_held())

    def _bound(self, patience: asyncio.Timeout) -> None:
        if patience.when() is None:
            patience.reschedule(asyncio.get_running_loop().time() + self._drain.seconds)

    def _look(self, patience: asyncio.Timeout) -> None:
        """Notice a client that goes away while the provider is silent: no write tells then."""
        exchange = self._exchange
        if not exchange.request.has_client and not self._answered and exchange.client_gone_at is None:
            exchange.client_gone_at = now_us()
        if not exchange.awaited:
            self._bound(patience)
        elif not exchange.closed and not patience.expired():
            patience.reschedule(None)
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look, patience)

    def _feed(self, chunk: bytes) -> bytes:
        """What may go to the client now; the first bytes may show that the answer is not what its headers say."""
        exchange = self._exchange
        out = self._watcher.feed(chunk, exchange.ms())
        if not self._recognised:
            found = relabelled(
                self._watcher,
                exchange.call.dialect,
                self._incoming.response.headers,
                strip_usage=self._incoming.asked,
            )
            self._recognised = found is not None
            if found is not None and found is not self._watcher:
                out = self._begin_again(found)
            self._released += len(out)
        return out

    def _begin_again(self, watcher: Watcher) -> bytes:
        """Have another watcher in place of the first; what it lets through now, less what the client has."""
        out = bytearray()
        received, at = self._watcher.received, 0
        for time, size in self._watcher.timeline:
            out += watcher.feed(received[at : at + size], time)
            at += size
        self._watcher = watcher
        self._answer = self._exchange.answer = replace(self._answer, watcher=watcher)
        return bytes(out[self._released :])

    async def _complete(self, held: bytes) -> None:
        """Commit the row, then let go of the bytes that complete the answer."""
        if held or not self._exchange.closed:
            await self._close(self._exchange, self._answer)
        if not await self._release(held):
            await self._close(self._exchange, self._answer)
        self._answered = self._exchange.client_gone_at is None

    async def _release_head(self) -> None:
        """Let the head go ahead of a body that is still to come."""
        exchange = self._exchange
        if exchange.early is not None:
            return
        is_all = _is_all_head(exchange.request.method, self._incoming)
        if is_all:
            await self._close(exchange, self._answer)
        self._response.begin(exchange.request)
        exchange.response = self._response
        try:
            await self._response.flush()
        except ConnectionError:
            exchange.client_gone_at = now_us()
            if exchange.closed:
                await self._close(exchange, self._answer)

    async def _release(self, data: bytes) -> bool:
        """Let bytes go to the client; False where it has just been found gone before it had its answer."""
        return await self._write(data if self._envelope is None else self._envelope.put(data))

    async def _write(self, data: bytes) -> bool:
        if not data or self._deaf or self._exchange.client_gone_at is not None:
            return True
        self._exchange.response = self._response
        try:
            await self._response.write(data)
        except ConnectionError:
            self._deaf = True
            if not self._answered:
                self._exchange.client_gone_at = now_us()
            return self._answered
        return True


def _is_all_head(method: str, incoming: Incoming) -> bool:
    """Whether the head is the whole answer, so that whoever has it has everything (RFC 9110 §6.4.1)."""
    response = incoming.response
    return method == "HEAD" or response.status in {204, 304} or content_length(response.headers) == 0


def _too_much(what: str) -> Broken:
    return Broken("client_gone", f"the client had gone, and the answer did not end within {what}")
