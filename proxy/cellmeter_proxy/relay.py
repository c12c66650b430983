"""The relay: one request of an agent, to its provider and back, recorded on the way.

The one module that does a call's I/O; all that it decides with is pure and stands beside it. The
order is the point:

    admit → open the row → send upstream → (row committed) → release bytes as they arrive
          → withhold what completes the answer → close the row → (row committed) → release the rest

Invariant: no client ever holds a completed answer that is not in the log. Received bytes are
forwarded as they came, both ways; a provider that breaks off breaks the client's connection too.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web
from msgspec.structs import replace

from cellmeter_proxy.accountant import Accountant
from cellmeter_proxy.attribution import Admission, Refusal, Upstream, admit, client_session
from cellmeter_proxy.encodings import decode
from cellmeter_proxy.headers import answer_headers, request_headers
from cellmeter_proxy.keys import KeyRing
from cellmeter_proxy.outcome import Head, closing_row
from cellmeter_proxy.payload import WholeBody
from cellmeter_proxy.ratelimit import rate_limits, retry_after_ms
from cellmeter_proxy.record import Attempt, Call, Outcome, new_id, now_us
from cellmeter_proxy.recording import Body, close_call, open_call
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.replies import error_reply
from cellmeter_proxy.watch import Watcher, watch
from cellmeter_proxy.wire import dialect_of, read_request
from cellmeter_proxy.writer import LogUnwritableError, LogWriter

_DECODED_LIMIT: Final = 256 * 1024 * 1024
_REQUEST_ID_HEADERS: Final = ("x-request-id", "request-id", "x-generation-id", "apim-request-id", "cf-ray")
_logger: Final = logging.getLogger("cellmeter")


@dataclass(frozen=True)
class RelayConfig:
    """What a relay is told once.

    ``connect_s`` bounds the connection to the provider, ``silence_s`` the time without a byte from it
    (agents wait for many minutes, so it is long), ``drain_s`` and ``drain_bytes`` how much of an answer
    is still read for the record when the client has gone.
    """

    upstream: Upstream
    writer_name: str
    salt: str
    cells_only: bool = False
    connect_s: float = 30.0
    silence_s: float = 3600.0
    drain_s: float = 120.0
    drain_bytes: int = 64 * 1024 * 1024


@dataclass
class _Exchange:
    """One call while it lasts."""

    request: web.Request
    call: Call
    body: Body
    redactor: Redactor
    began: float
    opening: "asyncio.Future[Call]"
    attempts: list[Attempt] = field(default_factory=list)
    client_gone_at: int | None = None
    response: web.StreamResponse | None = None
    """The answer to the client, once its head has been released."""
    closed: bool = False
    """The row is closed and committed."""

    def ms(self) -> float:
        """Milliseconds since the whole request had been received."""
        return (time.perf_counter() - self.began) * 1000


@dataclass
class _Answer:
    """The answer of a call while it passes."""

    head: Head
    watcher: Watcher
    response: web.StreamResponse


class _NoAnswerError(Exception):
    """The provider gave no answer at all."""

    def __init__(self, outcome: Outcome, status: int, reason: str) -> None:
        super().__init__(reason)
        self.outcome: Outcome = outcome
        self.status = status
        self.reason = reason


class Relay:
    """Handles every request that is not for the proxy itself."""

    def __init__(
        self,
        config: RelayConfig,
        writer: LogWriter,
        keys: KeyRing,
        session: aiohttp.ClientSession,
        accountant: Accountant,
    ) -> None:
        self._accountant = accountant
        self._config = config
        self._writer = writer
        self._keys = keys
        self._session = session
        self._complained = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Relay one request; the aiohttp handler of every path."""
        started_at = now_us()
        raw = await request.read()
        admission = admit(
            request.rel_url.raw_path,
            request.headers,
            keys=self._keys,
            cells_only=self._config.cells_only,
            upstream=self._config.upstream,
            salt=self._config.salt,
        )
        exchange = self._begin(request, raw, admission, started_at)
        try:
            if isinstance(admission, Refusal):
                return await self._refuse(exchange, admission)
            return await self._relay(exchange, admission)
        except LogUnwritableError as error:
            return self._unrecordable(exchange, error)
        except asyncio.CancelledError:
            await self._interrupt(exchange)
            raise

    def _begin(self, request: web.Request, raw: bytes, admission: Admission | Refusal, started_at: int) -> _Exchange:
        """Describe the request and have its row opened; the commit overlaps with the provider's own time."""
        began = time.perf_counter()
        dialect = dialect_of(request.method, admission.path)
        encoding = request.headers.get("Content-Encoding")
        plain = decode(raw, encoding, _DECODED_LIMIT) if encoding else raw
        facts = read_request(dialect, admission.path, plain or b"")
        retries = request.headers.get("x-stainless-retry-count", "")
        call = Call(
            call_id=new_id(),
            session=admission.session,
            cell_id=admission.cell.cell_id if admission.cell else None,
            cell_attempt=admission.cell.attempt if admission.cell else None,
            writer=self._config.writer_name,
            method=request.method,
            endpoint=admission.path,
            dialect=dialect,
            upstream=str(self._config.upstream.url),
            request_model=facts.model,
            stream=facts.stream,
            request_encoding=encoding,
            started_at=started_at,
            retry_number=int(retries) if retries.isdecimal() else None,
            user_agent=request.headers.get("User-Agent"),
            client_session=client_session(request.headers),
        )
        body = Body(raw, plain, facts.prefix)
        redactor = Redactor(secret for secret in (admission.key, self._config.upstream.key) if secret)
        return _Exchange(request, call, body, redactor, began, open_call(self._writer, call, body, redactor))

    async def _relay(self, exchange: _Exchange, admission: Admission) -> web.StreamResponse:
        try:
            upstream = await self._send(exchange, admission)
        except _NoAnswerError as error:
            exchange.call = await exchange.opening
            await self._close(exchange, error.status, error.outcome, error.reason)
            return error_reply(
                exchange.call.dialect, error.status, error.reason, type_="upstream_error", code=error.outcome
            )
        async with upstream:
            exchange.call = await exchange.opening
            self._complained = False
            return await self._pass_back(exchange, upstream)

    async def _refuse(self, exchange: _Exchange, refusal: Refusal) -> web.Response:
        exchange.call = await exchange.opening
        await self._close(exchange, 401, "rejected", refusal.reason)
        return error_reply(
            exchange.call.dialect, 401, refusal.reason, type_="invalid_request_error", code="invalid_api_key"
        )

    # To the provider

    async def _send(self, exchange: _Exchange, admission: Admission) -> aiohttp.ClientResponse:
        """One try upstream, recorded as an attempt whichever way it ends."""
        request = exchange.request
        attempt = Attempt(call_id=exchange.call.call_id, n=len(exchange.attempts) + 1, started_at=now_us())
        sent = exchange.ms()
        try:
            response = await self._session.request(
                request.method,
                self._config.upstream.target(admission.path, request.rel_url.raw_query_string),
                headers=request_headers(request.raw_headers, admission.upstream_key),
                data=WholeBody(exchange.body.raw) if exchange.body.raw else None,
                allow_redirects=False,
            )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            failure = self._no_answer(error)
            exchange.attempts.append(replace(attempt, latency_ms=exchange.ms() - sent, error=failure.reason))
            raise failure from error
        exchange.attempts.append(
            replace(
                attempt,
                status=response.status,
                retry_after_ms=retry_after_ms(response.headers, now_us()),
                ratelimit=rate_limits(response.headers),
                request_id=_request_id(response.headers),
                latency_ms=exchange.ms() - sent,
            )
        )
        return response

    def _no_answer(self, error: Exception) -> _NoAnswerError:
        url = self._config.upstream.url
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return _NoAnswerError("timeout", 504, f"{url} did not accept a connection in {self._config.connect_s:g} s")
        if isinstance(error, TimeoutError):
            return _NoAnswerError("timeout", 504, f"{url} sent nothing for {self._config.silence_s:g} s")
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return _NoAnswerError("upstream_unreachable", 502, f"{url} closed the connection without an answer")
        return _NoAnswerError("upstream_unreachable", 502, f"{url} cannot be reached: {error}")

    # Back to the client

    async def _pass_back(self, exchange: _Exchange, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        answer = _Answer(
            Head(
                upstream.status,
                exchange.ms(),
                upstream.headers.get("Content-Type"),
                upstream.headers.get("Content-Encoding"),
                _request_id(upstream.headers),
            ),
            watch(exchange.call.dialect, upstream.headers),
            web.StreamResponse(
                status=upstream.status, reason=upstream.reason, headers=answer_headers(upstream.raw_headers)
            ),
        )
        await self._release_head(exchange, answer)
        broken = await self._pass_body(exchange, answer, upstream)
        held = answer.watcher.finish()
        if broken is not None:
            await self._close_answer(exchange, answer, broken)
            return _break_off(exchange.request, answer.response)
        await self._complete(exchange, answer, held)
        return answer.response

    async def _pass_body(self, exchange: _Exchange, answer: _Answer, upstream: aiohttp.ClientResponse) -> str | None:
        """Pass the body on as it arrives; return why it broke off, or None where it ended."""
        drained = 0
        try:
            async with asyncio.timeout(None) as patience:
                async for chunk in upstream.content.iter_any():
                    await self._release(exchange, answer, answer.watcher.feed(chunk, exchange.ms()))
                    if answer.watcher.terminal and not exchange.closed:
                        await self._complete(exchange, answer, answer.watcher.take_held())
                    if exchange.client_gone_at is None:
                        continue
                    if patience.when() is None:
                        patience.reschedule(asyncio.get_running_loop().time() + self._config.drain_s)
                    drained += len(chunk)
                    if drained > self._config.drain_bytes:
                        return f"the client had gone, and the answer did not end within {drained} further bytes"
        except TimeoutError:
            if exchange.client_gone_at is not None:
                return f"the client had gone, and the answer did not end within {self._config.drain_s:g} s"
            return f"the provider sent nothing for {self._config.silence_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return f"the provider broke off its answer: {error or type(error).__name__}"
        return None

    async def _complete(self, exchange: _Exchange, answer: _Answer, held: bytes) -> None:
        """Commit the row, then let go of the bytes that complete the answer."""
        if held or not exchange.closed:
            await self._close_answer(exchange, answer)
        if not await self._release(exchange, answer, held):
            await self._close_answer(exchange, answer)

    async def _release_head(self, exchange: _Exchange, answer: _Answer) -> None:
        try:
            await answer.response.prepare(exchange.request)
            exchange.response = answer.response
        except ConnectionError:
            exchange.client_gone_at = now_us()

    async def _release(self, exchange: _Exchange, answer: _Answer, data: bytes) -> bool:
        """Let bytes go to the client; False where it has just been found gone."""
        if not data or exchange.client_gone_at is not None:
            return True
        try:
            await answer.response.write(data)
        except ConnectionError:
            exchange.client_gone_at = now_us()
            return False
        return True

    # The row

    async def _close_answer(self, exchange: _Exchange, answer: _Answer, broken: str | None = None) -> None:
        row = closing_row(
            exchange.call, answer.head, answer.watcher, broken=broken, client_gone_at=exchange.client_gone_at
        )
        await self._commit(exchange, row, answer.watcher)

    async def _close(self, exchange: _Exchange, status: int, outcome: Outcome, error: str) -> None:
        row = replace(exchange.call, state="closed", status=status, outcome=outcome, error=error)
        await self._commit(exchange, row, None)

    async def _commit(self, exchange: _Exchange, row: Call, watcher: Watcher | None) -> None:
        row = replace(row, ended_at=now_us(), latency_ms=exchange.ms())
        row = await close_call(self._writer, row, exchange.attempts, watcher, exchange.redactor)
        exchange.closed = True
        self._accountant.take(row)

    async def _interrupt(self, exchange: _Exchange) -> None:
        """The proxy stops while the call is under way: the row says so."""
        if not exchange.closed:
            call = await exchange.opening
            row = replace(call, state="interrupted", outcome="interrupted", error="the proxy was stopped")
            await self._commit(exchange, row, None)

    def _unrecordable(self, exchange: _Exchange, error: LogUnwritableError) -> web.StreamResponse:
        """Refuse what cannot be recorded: 503 where nothing was released, a broken connection where something was."""
        if not self._complained:
            self._complained = True
            _logger.error("%s; calls are refused until it can be written", error)
        if exchange.response is not None:
            return _break_off(exchange.request, exchange.response)
        return error_reply(
            exchange.call.dialect,
            503,
            f"not served, because it cannot be recorded: {error}",
            type_="server_error",
            code="log_unwritable",
        )


def _break_off(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """End the client's connection without ending its answer, so that nobody takes half an answer for a whole one."""
    if request.transport is not None:
        request.transport.abort()
    return response


def _request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's name for the request, under whichever header it uses."""
    return next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), None)
