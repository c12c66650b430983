"""The relay: one request of an agent, to its provider and back, recorded on the way.

The one module that does a call's I/O, with ``sending`` for the tries upstream; all that it decides with is
pure and stands beside it. The order is the point:

    receive → admit → open the row → send upstream → (row committed) → release bytes as they arrive
            → withhold what completes the answer → close the row → (row committed) → release the rest

Invariants: no client ever holds a completed answer that is not in the log, and every request that was
handed in has a closed row in the end, also where the client goes away during its upload. Received bytes
are forwarded as they came, both ways, less the usage that was asked for in the client's place; a provider
that breaks off breaks the client's connection too.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final

from msgspec.structs import replace

from cellmeter_proxy.absorb import On429, Patience
from cellmeter_proxy.attribution import Admission, Refusal, Upstream, admit, session_of
from cellmeter_proxy.commons import Commons
from cellmeter_proxy.exchange import Exchange, Upload
from cellmeter_proxy.http_client import ProviderClient
from cellmeter_proxy.http_message import Reply, Request, Response
from cellmeter_proxy.keys import KeyRing
from cellmeter_proxy.late import answer_late
from cellmeter_proxy.letterhead import Letterhead, Letterheads
from cellmeter_proxy.link import LinkLostError
from cellmeter_proxy.outcome import TOLD_LATE, Broken, Limits
from cellmeter_proxy.passing import Drain, Passage
from cellmeter_proxy.persist import Persistence
from cellmeter_proxy.policy import Policy
from cellmeter_proxy.record import Call, Outcome, new_id, now_us
from cellmeter_proxy.recording import Answer
from cellmeter_proxy.redact import Redactors
from cellmeter_proxy.replies import error_reply
from cellmeter_proxy.resent import Resent
from cellmeter_proxy.sending import NoAnswerError, Outgoing, Sender
from cellmeter_proxy.splice import add_include_usage
from cellmeter_proxy.throttle import Throttle
from cellmeter_proxy.waiting import ClientGoneError
from cellmeter_proxy.writer import LogUnwritableError, LogWriter
from cellmeter_proxy.writing import close_call, open_call

_SWITCHING: Final = 101
_ERROR_TYPES: Final = {500: "server_error", 502: "upstream_error", 503: "server_error", 504: "upstream_error"}
_logger: Final = logging.getLogger("cellmeter")


@dataclass(frozen=True)
class RelayConfig:
    """What a relay is told once.

    ``connect_s`` bounds the connection to the provider, ``silence_s`` the time without a byte from it
    (agents wait for many minutes, so it is long), ``drain_s`` and ``drain_bytes`` how much of an answer
    is still read for the record when the client has gone. ``ask_usage``: streams of chat completions
    that do not ask for usage are made to, and the chunk that this brings is taken out again. ``upload_s``
    bounds the time without a byte of a request whose head has come. ``on_429`` is what becomes of a provider's
    refusals, and ``patience`` how long they are waited out.
    """

    upstream: Upstream
    writer_name: str
    salt: str
    cells_only: bool = False
    ask_usage: bool = True
    connect_s: float = 30.0
    silence_s: float = 3600.0
    upload_s: float = 120.0
    drain_s: float = 120.0
    drain_bytes: int = 64 * 1024 * 1024
    on_429: On429 = "observe"
    patience: Patience = field(default_factory=Patience)

    @property
    def limits(self) -> Limits:
        return Limits(self.connect_s, self.silence_s)


class Relay:
    """Handles every request that is not for the proxy itself."""

    def __init__(
        self,
        config: RelayConfig,
        writer: LogWriter,
        keys: KeyRing,
        client: ProviderClient,
        commons: Commons,
        *,
        policy: Policy,
    ) -> None:
        self._policy = policy
        self._accountant = commons.accountant
        self._config = config
        self._limits = config.limits
        self._drain = Drain(config.drain_s, config.drain_bytes)
        self._upstream = str(config.upstream.url)
        self._letterheads = Letterheads(config.upstream)
        # The fingerprint of a key is slow to work out, and asked for with every call.
        self._session_of = lru_cache(1024)(partial(session_of, salt=config.salt))
        self._writer = writer
        self._keys = keys
        self._sender = Sender(client, config.upstream.url, config.limits, commons.refusals)
        self._persistence = Persistence(
            self._sender, config.on_429, config.patience, lane_of=commons.lane_of, tapes=commons.tapes
        )
        self._metrics = commons.metrics
        self._redactors = Redactors()
        self._resent = Resent()
        self._complained = False
        self.open_calls = 0
        """How many calls are being relayed now."""

    @property
    def throttle(self) -> Throttle:
        """What the provider has refused for its rate limit."""
        return self._sender.throttle

    async def handle(self, request: Request) -> Response:
        """Relay one request, on whichever path."""
        started_at = now_us()
        upload = Upload()
        self.open_calls += 1
        head = self._letterheads.of(request)
        try:
            if not upload.take(request):
                await upload.receive(request, self._config.upload_s)
        except asyncio.CancelledError:
            await self._interrupt(self._begin(request, head, upload, self._admit(head), started_at))
            raise
        else:
            admission = self._admit(head)
            exchange = self._begin(request, head, upload, admission, started_at)
            return await self._serve(exchange, head, admission, upload.trouble)
        finally:
            self.open_calls -= 1

    def _admit(self, head: Letterhead) -> Admission | Refusal:
        return admit(
            head.named,
            head.path,
            head.key,
            keys=self._keys,
            cells_only=self._config.cells_only,
            upstream=self._config.upstream,
            session_of=self._session_of,
        )

    def _begin(
        self, request: Request, head: Letterhead, upload: Upload, admission: Admission | Refusal, started_at: int
    ) -> Exchange:
        """Describe the request and have its row opened; the commit overlaps with the provider's own time."""
        began = time.perf_counter()
        cell = admission.cell
        call = Call(
            call_id=new_id(),
            session=admission.session,
            cell_id=cell.cell_id if cell else None,
            cell_attempt=cell.attempt if cell else None,
            writer=self._config.writer_name,
            method=request.method,
            endpoint=head.path,
            dialect=head.dialect,
            upstream=self._upstream,
            request_encoding=head.encoding,
            started_at=started_at,
            retry_number=head.retries,
            user_agent=head.user_agent,
            client_session=head.client_session,
        )
        redactor = self._redactors.of(head.secrets)
        body = upload.body
        refused = upload.trouble is not None or isinstance(admission, Refusal)
        asking = None if refused else self._asking(call, body)
        opening = open_call(self._writer, call, body, redactor, sent=asking, resent=self._resent)
        return Exchange(request, body, call, redactor, began, opening, asking)

    def _asking(self, call: Call, body: bytes) -> bytes | None:
        """The body with usage asked for, where the client does not ask itself."""
        if not self._config.ask_usage or call.dialect != "chat.completions" or call.request_encoding is not None:
            return None
        asking = add_include_usage(body)
        return asking if asking is not None and self._sender.may_ask(body) else None

    async def _serve(
        self, exchange: Exchange, head: Letterhead, admission: Admission | Refusal, trouble: Exception | None
    ) -> Response:
        """Whatever happens, the row is closed before this is over."""
        try:
            if trouble is not None:
                return await self._reject_upload(exchange, trouble)
            if isinstance(admission, Refusal):
                return await self._refuse(exchange, admission)
            objection = await self._policy.objection(exchange, admission.cell.budget if admission.cell else None)
            if objection is not None:
                return await self._object(exchange, objection)
            return await self._relay(exchange, head, admission.upstream_key)
        except LogUnwritableError as error:
            return self._unrecordable(exchange, error)
        except asyncio.CancelledError:
            await self._interrupt(exchange)
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours must cost neither the row nor the proxy
            return await self._fail(exchange, error)
        finally:
            exchange.end()
            self._policy.till.release(exchange.call.call_id)

    async def _relay(self, exchange: Exchange, head: Letterhead, key: str | None) -> Response:
        if self._writer.failing:
            # An agent that tries again and again after our 503 would be billed for every try.
            await exchange.opened()
        method = exchange.request.method
        outgoing = Outgoing(method, head.target, head.headers, key, exchange.body, exchange.asking)
        try:
            incoming = await self._persistence.send(exchange, outgoing)
        except ClientGoneError:
            return await self._let_go(exchange)
        except NoAnswerError as error:
            await exchange.opened()
            broken = error.broken
            return await self._reply(exchange, broken.status, broken.outcome, broken.reason, broken.outcome)
        try:
            # Of an answer that is whole nothing is released before the row is closed.
            whole = incoming.is_whole and exchange.early is None
            call = await (exchange.opening.described() if whole else exchange.opening)
            exchange.call = call if incoming.asked or call.sent_hash is None else replace(call, sent_hash=None)
            # A row that was committed before the trouble began says nothing of its end.
            self._complained = self._complained and self._writer.failing
            if incoming.response.status == _SWITCHING:
                reason = "the provider switched to another protocol, which nobody had asked for"
                return await self._reply(exchange, 502, "upstream_unreachable", reason, "upstream_unreachable")
            return await Passage(exchange, incoming, self._limits, self._drain, self._close_answer).run()
        finally:
            # An answer that was joined is read, and its connection closed, by the call that it belongs to.
            if exchange.attached_to is None:
                incoming.response.close()

    async def _let_go(self, exchange: Exchange) -> Response:
        """Nobody waits any longer for a call that was to be tried again."""
        await exchange.opened()
        exchange.client_gone_at = exchange.client_gone_at or now_us()
        await self._close(exchange, None, "client_gone", "the client went away while the proxy waited to try again")
        return exchange.response or Response(400, ())

    # The proxy's own answers

    async def _refuse(self, exchange: Exchange, refusal: Refusal) -> Response:
        await exchange.opened()
        return await self._reply(exchange, 401, "rejected", refusal.reason, "invalid_api_key")

    async def _object(self, exchange: Exchange, objection: str) -> Response:
        """The one error that all agents tried stop on at once; they come back after a 401, 402, 403 or 429."""
        exchange.call = replace(await exchange.opened(), sent_hash=None)
        return await self._reply(exchange, 400, "rejected", objection, "model_not_found")

    async def _reject_upload(self, exchange: Exchange, trouble: Exception) -> Response:
        """The head of a request has come, and its body not whole: there is nothing to send on."""
        await exchange.opened()
        if isinstance(trouble, TimeoutError):
            reason = f"nothing more of the request came for {self._config.upload_s:g} s"
            return await self._reply(exchange, 408, "rejected", reason, "upload_timeout")
        if not isinstance(trouble, ConnectionError):
            reason = f"the body of the request is not valid HTTP: {trouble}"
            return await self._reply(exchange, 400, "rejected", reason, "malformed_request")
        exchange.client_gone_at = now_us()
        await self._close(exchange, None, "client_gone", "the client went away during its upload")
        return Response(400, ())

    async def _fail(self, exchange: Exchange, error: Exception) -> Response:
        """A bug of ours: the row says so, the client is told, the trace goes to stderr without secrets."""
        if isinstance(error, LinkLostError):
            return await self._reply(exchange, 503, "rejected", f"not served, because {error}", "coordinator_lost")
        trace = "".join(traceback.format_exception(error))
        _logger.error("a call could not be relayed\n%s", exchange.redactor.text(trace)[0])
        with suppress(Exception):
            await exchange.opened()
            if not exchange.closed:
                await self._close(exchange, 500, "interrupted", f"the proxy failed: {type(error).__name__}: {error}")
        if exchange.response is not None:
            exchange.request.break_off()
            return exchange.response
        return self._error_reply(exchange, 500, "the proxy failed", "internal_error")

    def _unrecordable(self, exchange: Exchange, error: LogUnwritableError) -> Response:
        """Refuse what cannot be recorded: 503 where nothing was released, a broken connection where something was."""
        self._metrics.write_failed()
        if not self._complained:
            self._complained = True
            _logger.error("%s; calls are refused until it can be written", error)
        if exchange.response is not None:
            exchange.request.break_off()
            return exchange.response
        return self._error_reply(exchange, 503, f"not served, because it cannot be recorded: {error}", "log_unwritable")

    async def _reply(self, exchange: Exchange, status: int, outcome: Outcome, reason: str, code: str) -> Response:
        early = exchange.early
        await self._close(exchange, status, outcome, reason if early is None else f"{reason}; {TOLD_LATE}")
        reply = self._error_reply(exchange, status, reason, code)
        return reply if early is None else await answer_late(early, reply)

    def _error_reply(self, exchange: Exchange, status: int, reason: str, code: str) -> Reply:
        return error_reply(
            exchange.call.dialect,
            status,
            exchange.redactor.text(reason)[0],
            type_=_ERROR_TYPES.get(status, "invalid_request_error"),
            code=code,
            request_id=exchange.call.call_id,
        )

    # The row

    def _close_answer(self, exchange: Exchange, answer: Answer) -> Awaitable[None]:
        return self._commit(exchange, exchange.call, answer)

    async def _close(self, exchange: Exchange, status: int | None, outcome: Outcome, error: str) -> None:
        row = replace(exchange.call, state="closed", status=status, outcome=outcome, error=error)
        await self._commit(exchange, row, None)

    async def _commit(self, exchange: Exchange, row: Call, answer: Answer | None) -> None:
        exchange.closing = row, answer
        row = replace(
            row,
            ended_at=now_us(),
            latency_ms=exchange.ms(),
            client_gone_at=exchange.client_gone_at,
            queue_ms=exchange.queue_ms,
            attached_to=exchange.attached_to,
        )
        asked = time.perf_counter()
        price = self._accountant.priced
        row = await close_call(
            self._writer, row, exchange.attempts, answer, exchange.redactor, price=price, opening=exchange.opening
        )
        # Of an answer that was whole the row was not awaited before; without it, its end was written nowhere.
        await exchange.opening
        if not exchange.closed:
            self._metrics.recorded(row, time.perf_counter() - asked)
            self._policy.till.settle(row)
        exchange.closed = True
        self._accountant.take(row)

    async def _interrupt(self, exchange: Exchange) -> None:
        """The proxy stops while the call is under way: the row says so, at the latest when the log is next opened."""
        with suppress(LogUnwritableError):
            await self._mark_interrupted(exchange)

    async def _mark_interrupted(self, exchange: Exchange) -> None:
        if exchange.closed:
            return
        if exchange.closing is not None and not exchange.awaited:
            # Nobody is to get anything any more, so that the commit was the end of it.
            await self._commit(exchange, *exchange.closing)
        else:
            call = await exchange.opened()
            why = Broken("interrupted", "the proxy was stopped")
            row = replace(call, state="interrupted", outcome=why.outcome, error=why.reason)
            answer = exchange.answer
            await self._commit(exchange, row, None if answer is None else replace(answer, broken=why))
