"""The client of a call that is not answered yet: kept alive where its dialect has a way, and noticed when it leaves.

Agents give a silent connection up after two to five minutes and send the request again. A stream of chat completions
may open with comments (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation), a
JSON document with white space (RFC 8259 §2). Clients of ``/v1/responses`` and ``/v1/messages`` are sent nothing: their
timers run whatever filler comes, or from the head on.

Invariant: nothing is sent before the call's row is committed; and once a head was sent, its status is 200 for good.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from cellmeter_proxy.absorb import Patience
from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.http_message import Response
from cellmeter_proxy.record import Call, now_us

_GLANCE_S: Final = 0.25


class ClientGoneError(Exception):
    """The client has left a call that waited."""


class Filler(NamedTuple):
    """What a waiting client may be sent."""

    content_type: bytes
    data: bytes


EVENTS: Final = Filler(b"text/event-stream; charset=utf-8", b": cellmeter is waiting for the provider\n\n")
JSON: Final = Filler(b"application/json", b" ")


def filler_of(call: Call) -> Filler | None:
    """What the client of a call can be kept alive with, by what it asked for; None where nothing helps it."""
    match call.dialect:
        case "chat.completions" | "completions":
            return EVENTS if call.stream else JSON
        case "embeddings":
            return JSON
        case _:
            return None


def has_left(exchange: Exchange) -> bool:
    """Whether the client's connection is gone, and nobody else waits for the call."""
    if exchange.followers:
        return False
    return exchange.client_gone_at is not None or not exchange.request.has_client


async def pause(exchange: Exchange, seconds: float) -> None:
    """Sleep, for as long as the client stays.

    Raises:
        ClientGoneError: it has left.

    """
    await hold(exchange, asyncio.get_running_loop().create_future(), seconds)


async def hold(exchange: Exchange, turn: "asyncio.Future[None]", seconds: float | None = None) -> None:
    """Wait for a future, for as long as the client stays; at most so many seconds, if any number is given.

    Raises:
        ClientGoneError: it has left.

    """
    loop = asyncio.get_running_loop()
    end = None if seconds is None else loop.time() + seconds
    while not turn.done():
        left = _GLANCE_S if end is None else min(end - loop.time(), _GLANCE_S)
        if left <= 0:
            return
        if has_left(exchange):
            raise ClientGoneError
        # The loop's own look at the connection comes at most a glance after the client has closed it.
        await asyncio.wait({turn}, timeout=left)


@asynccontextmanager
async def kept_alive(exchange: Exchange, patience: Patience) -> AsyncIterator[None]:
    """Keep the client alive for as long as the context lasts."""
    stop = asyncio.Event()
    keeper = asyncio.create_task(_keep(exchange, patience, stop))
    try:
        yield
    finally:
        stop.set()
        await keeper


async def _keep(exchange: Exchange, patience: Patience, stop: asyncio.Event) -> None:
    if await _within(stop, patience.quiet_s - exchange.ms() / 1000):
        return
    filler = filler_of(await exchange.opened())
    if filler is None or not exchange.request.is_http_1_1:
        return
    try:
        await _send_head(exchange, filler)
        while exchange.response is not None:
            await exchange.response.write(filler.data)
            if await _within(stop, patience.filler_s):
                return
    except ConnectionError:
        exchange.client_gone_at = now_us()


async def _send_head(exchange: Exchange, filler: Filler) -> None:
    request_id = (b"x-request-id", exchange.call.call_id.encode())
    response = Response(200, [(b"Content-Type", filler.content_type), (b"Cache-Control", b"no-cache"), request_id])
    response.begin(exchange.request)
    exchange.response = exchange.early = response


async def _within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await stop.wait()
    except TimeoutError:
        return stop.is_set()
    return True
