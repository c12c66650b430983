"""Requests and answers on connections to a provider: aiohttp's connector and protocol, without its request objects.

aiohttp resolves names, makes TLS connections, goes through proxies, keeps idle connections and parses what comes; the
request is written, and the answer read, here: bytes of headers go as they came, and nothing is added, repeated,
followed or remembered.

Invariant: a request is written at once and whole, so that whoever fails before that has sent nothing.
"""

import asyncio
import functools
import select
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Self, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy
from yarl import URL

from cellmeter_proxy.headers import HEADER_LIMIT, RawHeaders
from cellmeter_proxy.http_flow import Flow, Protocol, Take

_KEEP_IDLE_S: Final = 30.0
_WITHOUT_A_LENGTH: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})
_JOIN_UP_TO: Final = 64 * 1024
_SWITCHING: Final = 101
_HANG_UP: Final = sum(getattr(select, name, 0) for name in ("POLLHUP", "POLLERR", "POLLRDHUP"))


class PeerHungUpError(aiohttp.ClientConnectionError):
    """The other side had closed the connection before anything of the request was written to it."""


class ProviderAnswer:
    """An answer whose head has come. Leaving its context closes the connection, unless the answer has ended."""

    __slots__ = ("_connection", "_message", "_protocol", "_silence_s", "content")

    def __init__(
        self, message: RawResponseMessage, content: StreamReader, connection: Connection, silence_s: float
    ) -> None:
        self.content = content
        """The body, as it comes."""
        self._message = message
        self._silence_s = silence_s
        # The connector makes no other.
        self._protocol = cast("Protocol", connection.protocol)
        self._connection: Connection | None = connection
        content.on_eof(self._release)

    @property
    def status(self) -> int:
        status: int = self._message.code
        return status

    @property
    def reason(self) -> str:
        """The phrase after the status."""
        reason: str = self._message.reason
        return reason

    @property
    def headers(self) -> "CIMultiDictProxy[str]":
        """By name in any case."""
        headers: CIMultiDictProxy[str] = self._message.headers
        return headers

    @property
    def raw_headers(self) -> RawHeaders:
        """As received."""
        headers: RawHeaders = self._message.raw_headers
        return headers

    @property
    def is_whole(self) -> bool:
        """Nothing of the body is still to come."""
        return self.content.is_eof()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece as it arrives.

        Raises:
            TimeoutError: the provider fell silent.
            aiohttp.ClientError: it broke off.

        """
        while chunk := await self.content.readany():
            yield chunk

    async def each(self, take: Take) -> AsyncIterator[None]:
        """Have the body taken piece by piece as it arrives; the iterator yields for each piece that ``take`` left.

        A token of a stream need not wait for a task to be woken: it is taken in the event loop's own callback. Nothing
        more is taken until the iterator is asked on.

        Raises:
            TimeoutError: the provider fell silent.
            aiohttp.ClientError: it broke off.

        """
        flow = Flow(self.content, self._protocol, take, self._silence_s)
        while await flow.left():
            yield

    def close(self) -> None:
        """Read no more of the answer."""
        connection, self._connection = self._connection, None
        if connection is not None:
            _drop(connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        """Leave the connection to the next request, unless this one has not gone out whole."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        transport = connection.transport
        if transport is None or transport.get_write_buffer_size() or self._message.code == _SWITCHING:
            _drop(connection)
        else:
            connection.release()


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory: Any = functools.partial(Protocol, loop=asyncio.get_running_loop())
        self._factory = factory

    def close_spent(self) -> None:
        """Close the kept connections that are good for nothing: what ended one of them has often ended others."""
        for kept in self._conns.values():
            for protocol, _ in kept:
                if _is_spent(protocol):
                    protocol.close()


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
        self._connector = _Connector(limit=0, keepalive_timeout=_KEEP_IDLE_S)
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
        self._hop = [b"Host: " + f"{upstream.host_port_subcomponent}".encode()]
        known = aiohttp.BasicAuth.from_url(URL(http_proxy)) if http_proxy and plain_proxy else None
        if known is not None:
            self._hop.append(b"Proxy-Authorization: " + known.encode().encode())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def request(self, method: str, target: str, headers: RawHeaders, body: bytes) -> ProviderAnswer:
        """Send a request, and wait for the head of its answer.

        Args:
            method: as the client gave it.
            target: path and query.
            headers: end to end ones; Host and Content-Length are added.
            body: whole.

        Raises:
            PeerHungUpError: a kept connection had ended before anything was written.
            TimeoutError: no connection, or no answer, in time.
            aiohttp.ClientError: no connection came about, or it was lost.
            aiohttp.http_exceptions.HttpProcessingError: what came is not HTTP.

        """
        head = self._head(method, target, headers, len(body))
        connection = await self.connect()
        try:
            message, content = await self._converse(connection, method, head, body)
        except BaseException:
            _drop(connection)
            raise
        return ProviderAnswer(message, content, connection, self._silence_s)

    async def connect(self) -> Connection:
        """A connection to the provider, kept from before or new.

        Raises:
            aiohttp.ClientError: none came about.

        """
        return await self._connector.connect(self._destination, [], self._timeout)

    def _head(self, method: str, target: str, headers: RawHeaders, size: int) -> bytes:
        path = self._prefix + target.encode("utf-8", "surrogateescape")
        lines = [b"%b %b HTTP/1.1" % (method.encode(), path), *self._hop]
        lines += [b"%b: %b" % header for header in headers]
        if size or method not in _WITHOUT_A_LENGTH:
            lines.append(b"Content-Length: %d" % size)
        lines.append(b"\r\n")
        return b"\r\n".join(lines)

    async def _converse(
        self, connection: Connection, method: str, head: bytes, body: bytes
    ) -> tuple[RawResponseMessage, StreamReader]:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or _is_spent(protocol):
            self._connector.close_spent()
            raise PeerHungUpError
        protocol.set_response_params(
            skip_payload=method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._silence_s,
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
        )
        if len(body) <= _JOIN_UP_TO:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        protocol.start_timeout()
        return await _final_head(protocol)


def _drop(connection: Connection) -> None:
    """Close a connection; what of a request has not gone out is not wanted, and its provider may never take it."""
    transport = connection.transport
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()
    connection.close()


async def _final_head(protocol: ResponseHandler) -> tuple[RawResponseMessage, StreamReader]:
    """The head of the answer itself, after what a provider may say before it (RFC 9110 §15.2)."""
    while True:
        message, content = await protocol.read()
        if not 100 <= message.code < 200 or message.code == _SWITCHING:
            return message, content
        if not len(protocol):
            # The protocol takes it for the end of an answer, and listens no longer for silence.
            protocol.start_timeout()


def _is_spent(protocol: ResponseHandler) -> bool:
    """Whether a connection takes no request: it has ended, or something has come that answers none.

    Servers say 408 on an idle connection before they close it (https://www.rfc-editor.org/rfc/rfc9110#section-15.5.9).
    """
    return protocol.transport is None or protocol.should_close or has_hung_up(protocol.transport)


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the end of the connection has arrived, even where the event loop has not come to see it (poll(2))."""
    if transport.is_closing():
        return True
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _HANG_UP)
    return bool(poll.poll(0))
