"""A running proxy: the log's writer, the relay and the addresses it listens on, put together and taken apart.

Wiring only. Invariant: the log is closed last, after every call in flight has ended or was marked.
"""

import asyncio
import errno
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from yarl import URL

from cellmeter_proxy.absorb import On429, Patience
from cellmeter_proxy.attribution import Upstream
from cellmeter_proxy.budget import Budget, Ledger
from cellmeter_proxy.commons import Commons, alone
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.health import health
from cellmeter_proxy.http_client import ProviderClient
from cellmeter_proxy.http_message import Reply, Request, Response
from cellmeter_proxy.http_server import Handler, Server
from cellmeter_proxy.keys import KeyRing
from cellmeter_proxy.link import LinkLostError
from cellmeter_proxy.log import Log, writer_name
from cellmeter_proxy.logfile import Durability
from cellmeter_proxy.metrics import Metrics, open_calls, show_metrics
from cellmeter_proxy.policy import Policy
from cellmeter_proxy.record import new_id
from cellmeter_proxy.relay import Relay, RelayConfig
from cellmeter_proxy.replies import error_reply
from cellmeter_proxy.throttle import Throttle
from cellmeter_proxy.unreadable import refusing
from cellmeter_proxy.writer import LogWriter

# Only a request whose upload failed is left unread, and its client gets this long to read why.
_LINGER_S: Final = 0.5
_BACKLOG: Final = 1024
_OWN: Final = "/_cellmeter/"
_ROOT: Final = re.compile(r"/|/s/[^/]+/?")
_READING: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class ProxyConfig:
    """What a proxy is told by whoever starts it.

    ``cells_only`` admits virtual keys alone, as a sweep does. ``socket_path`` is a second address, for
    sandboxes that have no network. ``http_proxy`` is the one by which this network reaches the provider.
    ``shutdown_s`` bounds the wait for calls in flight when the proxy stops, and then the working out of costs and
    estimates that are still to be done; ``prices`` is a file of the user's own prices (see ``prices.load_overrides``).
    ``budget`` bounds what each session may spend, and with ``cells_only`` what all cells may spend together; a cell's
    own comes with its key. ``granted_tools`` are the provider-side tools that may be used (see ``policy.is_granted``);
    None refuses none. For the rest see ``RelayConfig``.
    """

    upstream: str
    log: Path
    host: str = "127.0.0.1"
    port: int = 0
    upstream_key: str | None = None
    durability: Durability = "full"
    cells_only: bool = False
    ask_usage: bool = True
    socket_path: Path | None = None
    http_proxy: str | None = None
    connect_s: float = 30.0
    silence_s: float = 3600.0
    upload_s: float = 120.0
    drain_s: float = 120.0
    shutdown_s: float = 10.0
    on_429: On429 = "observe"
    patience: Patience = field(default_factory=Patience)
    prices: Path | None = None
    budget: Budget | None = None
    granted_tools: frozenset[str] | None = None


@dataclass(frozen=True)
class Running:
    """A proxy that accepts calls."""

    url: str
    """``http://HOST:PORT``, without ``/v1``."""
    keys: KeyRing
    writer: LogWriter
    ledger: Ledger
    """What was spent of the budgets."""
    socket_path: Path | None
    open_calls: Callable[[], int]
    """How many calls are being relayed now."""
    throttle: Throttle
    """What the provider has refused for its rate limit."""


@asynccontextmanager
async def serve(
    config: ProxyConfig, writer: LogWriter | None = None, commons: Commons | None = None
) -> AsyncIterator[Running]:
    """Run a proxy for as long as the context lasts.

    Args:
        config: what it is told.
        writer: of a log that several proxies of this process share; it stays open. None opens ``config.log``.
        commons: what this proxy shares with other processes of its own, if it is one of several.

    Raises:
        CellmeterError: the upstream is not an HTTP address, the log cannot be opened, or the address is taken.

    """
    upstream = Upstream(parse_upstream(config.upstream), config.upstream_key)
    async with AsyncExitStack() as stack:
        if writer is None:
            writer = await LogWriter.open(config.log, config.durability)
            stack.push_async_callback(writer.aclose)
        ledger = Ledger(config.budget, per_session=not config.cells_only)
        if commons is None:
            metrics = Metrics(version("cellmeter"))
            of_one = alone(writer, ledger, metrics, prices=config.prices, bound_s=config.shutdown_s)
            commons = await stack.enter_async_context(of_one)
        salt = await writer.read(_salt)
        client = ProviderClient(
            upstream.url, connect_s=config.connect_s, silence_s=config.silence_s, http_proxy=config.http_proxy
        )
        await stack.enter_async_context(client)
        keys, policy = KeyRing(), Policy(commons.till, config.granted_tools)
        relay = Relay(_relay_config(config, upstream, salt), writer, keys, client, commons, policy=policy)
        commons.metrics.watch_open_calls(lambda: relay.open_calls)
        server = Server(
            make_handler(relay, writer, commons),
            refusing(writer, writer_name(), str(upstream.url)),
            linger_s=_LINGER_S,
        )
        stack.push_async_callback(server.shutdown, config.shutdown_s)
        url = await _listen(server, config, commons.sockets, stack)
        yield Running(url, keys, writer, ledger, config.socket_path, lambda: relay.open_calls, relay.throttle)


def _relay_config(config: ProxyConfig, upstream: Upstream, salt: str) -> RelayConfig:
    return RelayConfig(
        upstream=upstream,
        writer_name=writer_name(),
        salt=salt,
        cells_only=config.cells_only,
        ask_usage=config.ask_usage,
        connect_s=config.connect_s,
        silence_s=config.silence_s,
        upload_s=config.upload_s,
        drain_s=config.drain_s,
        on_429=config.on_429,
        patience=config.patience,
    )


def make_handler(relay: Relay, writer: LogWriter, commons: Commons) -> Handler:
    """The routes: the proxy's own under ``/_cellmeter/``, what agents probe with, and the relay for all else."""

    async def under_way() -> int:
        return open_calls(await commons.counts())

    own = {"/_cellmeter/health": health(writer, under_way), "/_cellmeter/metrics": show_metrics(commons.counts)}

    def handle(request: Request) -> Awaitable[Response]:
        page = own.get(request.path) if request.method in _READING else None
        if page is not None:
            return _shown(page)
        reply = _own_reply(request)
        return relay.handle(request) if reply is None else _given(reply)

    return handle


def _own_reply(request: Request) -> Reply | None:
    """The proxy's own answer to what is no call, if it is none."""
    path = request.path
    if request.method == "CONNECT" or not path.startswith("/") or unquote(path).startswith(_OWN):
        return _nothing_here(request)
    if request.method in _READING and _ROOT.fullmatch(path):
        return _root()
    # codex falls back to HTTP at once on 426; 404 costs it seven tries, and an accepted socket would hide prompts.
    return _use_http() if request.headers.get("Upgrade", "").lower() == "websocket" else None


async def _given(reply: Reply) -> Reply:
    return reply


async def _shown(page: Callable[[], Awaitable[Reply]]) -> Reply:
    """One of the proxy's own pages; what it tells of all workers ends with the process that knows of all."""
    try:
        return await page()
    except LinkLostError as error:
        return error_reply(
            "unknown",
            503,
            f"not known, because {error}",
            type_="server_error",
            code="coordinator_lost",
            request_id=new_id(),
        )


def parse_upstream(text: str) -> URL:
    """The provider's base URL.

    Raises:
        CellmeterError: it is not an ``http`` or ``https`` address with a host.

    """
    try:
        url = URL(text.rstrip("/"))
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise CellmeterError(
            f"the upstream {text!r} is not an address of a provider",
            hint="write it as https://api.example.com/v1",
            exit_code=2,
        )
    if url.user or url.password or url.query_string:
        raise CellmeterError(
            "the upstream may carry neither a password nor a query, since its address is stored with every call",
            hint="give the key by its own option or variable",
            exit_code=2,
        )
    return url


def _salt(log: Log) -> str:
    return log.meta("fingerprint_salt") or ""


async def _listen(server: Server, config: ProxyConfig, sockets: Sequence[socket.socket], stack: AsyncExitStack) -> str:
    """Listen for as long as the stack lasts."""
    loop = asyncio.get_running_loop()
    listeners: list[asyncio.Server] = []
    try:
        listeners += [await loop.create_server(server, sock=sock, backlog=_BACKLOG) for sock in sockets]
        if not sockets:
            listeners.append(await loop.create_server(server, config.host, config.port, backlog=_BACKLOG))
        if config.socket_path is not None:
            path = str(config.socket_path)
            listeners.append(await loop.create_unix_server(server, path, backlog=_BACKLOG))
    except OSError as error:
        raise cannot_listen(error, config.host, config.port) from None
    finally:
        for listener in listeners:
            stack.callback(listener.close)
    return url_of(listeners[0].sockets[0].getsockname())


def cannot_listen(error: OSError, host: str, port: int) -> CellmeterError:
    """Why an address cannot be had."""
    if error.errno == errno.EADDRINUSE:
        return CellmeterError(
            f"{host}:{port} is in use by another program",
            hint="choose another port with --listen HOST:PORT; port 0 takes a free one",
        )
    return CellmeterError(f"cannot listen on {host}:{port}: {error.strerror}")


def url_of(address: Sequence[Any]) -> str:
    """``http://HOST:PORT`` of a socket's address."""
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _nothing_here(request: Request) -> Reply:
    """The proxy's own addresses are never the provider's."""
    message = f"there is nothing at {request.method} {request.path}"
    return error_reply("unknown", 404, message, type_="invalid_request_error", code="not_found", request_id=new_id())


def _root() -> Reply:
    """Claude Code asks ``HEAD`` of its base address before its first call; any 200 will do."""
    return Reply(200, b'{"service": "cellmeter"}', b"application/json", x_request_id=new_id())


def _use_http() -> Reply:
    return Reply(426, b"use HTTP", b"text/plain; charset=utf-8", Upgrade="HTTP/1.1", x_request_id=new_id())
