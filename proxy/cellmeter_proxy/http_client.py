"""Requests to a provider, on connections of aiohttp's connector.

aiohttp resolves names, makes TLS connections and goes through proxies; the request is written here: bytes of headers go
as they came, and nothing is added, repeated, followed or remembered.

Invariant: a request is written at once and whole, so that whoever fails before that has sent nothing.
"""

import asyncio
import time
from collections import deque
from types import TracebackType
from typing import Final, Self

import aiohttp
from yarl import URL

from cellmeter_proxy.http_answer import ProviderAnswer
from cellmeter_proxy.http_wire import Wire

_KEEP_IDLE_S: Final = 30.0
_WITHOUT_A_LENGTH: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})
_JOIN_UP_TO: Final = 64 * 1024


class PeerHungUpError(aiohttp.ClientConnectionError):
    """The other side had closed the connection before anything of the request was written to it."""


class ProviderClient:
    """Sends requests to one provider.

    Args:
        upstream: its base address.
        connect_s: how long it may take to accept a connection.
        silence_s: how long it may be silent afterwards.
        http_proxy: by which it is reached.

    """

    def __init__(self, upstream: URL, *, connect_s: float, silence_s: float, http_proxy: str | None = None) -> None:
        self._silence_s = silence_s
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
        self._connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=self._connector, cookie_jar=aiohttp.DummyCookieJar())
        # What the connector asks of a request is where it goes.
        self._destination = aiohttp.ClientRequest(
            "GET",
            upstream.origin(),
            loop=asyncio.get_running_loop(),
            session=self._session,
            proxy=URL(http_proxy) if http_proxy else None,
        )
        plain_proxy = http_proxy is not None and upstream.scheme == "http"
        self._prefix = str(upstream.origin()).encode() if plain_proxy else b""
        self._hop = f" HTTP/1.1\r\nHost: {upstream.host_port_subcomponent}\r\n".encode()
        known = aiohttp.BasicAuth.from_url(URL(http_proxy)) if http_proxy and plain_proxy else None
        if known is not None:
            self._hop += f"Proxy-Authorization: {known.encode()}\r\n".encode()
        self._idle: deque[tuple[Wire, float]] = deque()
        """Connections that are kept, and since when; the one that was used last is at the end."""
        self._sweep: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        await self._session.close()

    async def request(self, method: str, target: str, headers: bytes, body: bytes) -> ProviderAnswer:
        """Send a request, and wait for the head of its answer.

        Args:
            method: as the client gave it.
            target: path and query.
            headers: the lines of the end to end ones; Host and Content-Length are added.
            body: whole.

        Raises:
            PeerHungUpError: a kept connection had ended before anything was written.
            TimeoutError: no connection, or no answer, in time.
            aiohttp.ClientError: no connection came about, or it was lost.
            aiohttp.http_exceptions.HttpProcessingError: what came is not HTTP.

        """
        path = target.encode("utf-8", "surrogateescape")
        length = b"Content-Length: %d\r\n" % len(body) if body or method not in _WITHOUT_A_LENGTH else b""
        head = b"%b %b%b%b%b%b\r\n" % (method.encode(), self._prefix, path, self._hop, headers, length)
        wire = await self.connect()
        try:
            if wire.is_spent():
                self._close_spent()
                raise PeerHungUpError
            if len(body) <= _JOIN_UP_TO:
                head, body = head + body, b""
            answer = wire.ask(head, body, bodiless=method == "HEAD")
            await answer.head
        except BaseException:
            wire.close()
            raise
        return answer

    async def connect(self) -> Wire:
        """A connection to the provider, kept from before or new.

        Raises:
            aiohttp.ClientError: none came about.

        """
        oldest = time.monotonic() - _KEEP_IDLE_S
        while self._idle:
            wire, since = self._idle.pop()
            if since >= oldest and wire.transport is not None:
                return wire
            wire.close()
        made = await self._connector.connect(self._destination, [], self._timeout)
        return Wire(made, self._silence_s, self.keep)

    def keep(self, wire: Wire) -> None:
        """Take a connection back that is good for another request."""
        self._idle.append((wire, time.monotonic()))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_KEEP_IDLE_S, self._close_old)

    def _close_old(self) -> None:
        """Close the connections that nobody has needed for a while."""
        oldest = time.monotonic() - _KEEP_IDLE_S
        while self._idle and (self._idle[0][1] < oldest or self._idle[0][0].spent):
            self._idle.popleft()[0].close()
        self._sweep = None
        if self._idle:
            self._sweep = asyncio.get_running_loop().call_later(_KEEP_IDLE_S, self._close_old)

    def _close_spent(self) -> None:
        """Close the kept connections that are good for nothing: what ended one of them has often ended others."""
        kept = list(self._idle)
        self._idle.clear()
        for wire, since in kept:
            if wire.is_spent():
                wire.close()
            else:
                self._idle.append((wire, since))
