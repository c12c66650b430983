"""Sending with persistence: tries are repeated for a client that waits, as ``absorb`` decides.

Invariant: nothing of an answer has been released when its call is tried again; the answer that is tried no further is
passed on as the provider gave it.
"""

import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import msgspec
from msgspec.structs import replace

from cellmeter_proxy.absorb import On429, Patience, Trial, is_passing, may_repeat, wait_s
from cellmeter_proxy.attach import Playable, Tapes
from cellmeter_proxy.attribution import presented_key
from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.lanes import Lanes, Place, Queueing
from cellmeter_proxy.ratelimit import read_limits, retry_after_ms
from cellmeter_proxy.record import now_us
from cellmeter_proxy.sending import Incoming, NoAnswerError, Outgoing, Sender, peek
from cellmeter_proxy.throttle import OVERLOADED
from cellmeter_proxy.waiting import hold, kept_alive, pause

_CHANCE: Final = random.SystemRandom()
_PACED: Final = frozenset({"chat.completions", "completions", "embeddings", "responses", "messages"})
_BYTES_PER_TOKEN: Final = 4
"""Only to hold calls back by: what counts is what the provider says is left."""


class _Asking(msgspec.Struct):
    model: str | None = None


class _Effort:
    """One call that is being tried: its client while it waits, and its place in the queue."""

    def __init__(
        self, exchange: Exchange, outgoing: Outgoing, lane: Queueing | None, patience: Patience, stack: AsyncExitStack
    ) -> None:
        self.exchange = exchange
        self.outgoing = outgoing
        self.tries = 0
        self.waited_ms: float | None = None
        """How long the proxy waited before the try that is under way; None for the first."""
        self._lane = lane
        self._patience = patience
        self._stack = stack
        self._kept = False

    async def enter(self, wait_s: float | None) -> Place | None:
        """Wait until the next try may be made; the slot that it has in the queue's place, where there is a queue."""
        since = time.monotonic()
        if wait_s is not None:
            await self._keep()
            await pause(self.exchange, wait_s)
        slot = None if self._lane is None else await self._queue(self._lane)
        waited_ms = (time.monotonic() - since) * 1000
        if self.tries:
            self.waited_ms = waited_ms
        elif self._lane is not None:
            self.exchange.queue_ms = waited_ms
        self.tries += 1
        return slot

    async def _queue(self, lane: Queueing) -> Place | None:
        body = self.exchange.body
        waiter = lane.queue(len(body) // _BYTES_PER_TOKEN, again=self.tries > 0, model=_model_of(body))
        self.exchange.ends.callback(lane.abandon, waiter)
        if not waiter.turn.done():
            await self._keep()
            await hold(self.exchange, waiter.turn, self._patience.budget_s)
        if waiter.turn.done():
            waiter.turn.result()
        if waiter.slot is None:
            # A queue that does not move within the budget is the provider's to explain.
            lane.abandon(waiter)
        return waiter.slot

    async def _keep(self) -> None:
        """Keep the client alive from now on. Its answer may then have to follow a head that names no coding."""
        if not self._kept:
            self._kept = True
            await self._stack.enter_async_context(kept_alive(self.exchange, self._patience))
            self.outgoing = replace(self.outgoing, identity=True)


class Persistence:
    """Sends the requests of one relay, and tries again where its mode has it so.

    Args:
        sender: makes the tries.
        mode: ``observe`` tries once, ``pace`` has calls queue.
        patience: with what may pass.
        draw: gives numbers from 0 up to 1 by chance, for the waits.
        lane_of: the queue of a key; by default those of this process.
        tapes: the answers that are under way.

    """

    def __init__(
        self,
        sender: Sender,
        mode: On429,
        patience: Patience,
        draw: Callable[[], float] = _CHANCE.random,
        *,
        lane_of: Callable[[str | None], Queueing] | None = None,
        tapes: Tapes | None = None,
    ) -> None:
        self._sender = sender
        self._mode = mode
        self._patience = patience
        self._draw = draw
        self._lane_of = lane_of or Lanes().of
        self._tapes = tapes or Tapes()

    def send(self, exchange: Exchange, outgoing: Outgoing) -> Awaitable[Incoming]:
        """The answer that is to be passed on.

        Raises:
            NoAnswerError: there is none.
            ClientGoneError: the client has left while the call waited.

        """
        call = exchange.call
        if self._mode == "observe" or not may_repeat(call.method, call.dialect):
            return self._sender.send(outgoing, call.call_id, exchange.attempts)
        return self._share(exchange, outgoing)

    async def _share(self, exchange: Exchange, outgoing: Outgoing) -> Incoming:
        """The answer that is under way already, or one that others may join."""
        joined = await self._tapes.join(exchange)
        if joined is not None:
            return await self._joined(exchange, joined)
        tape = self._tapes.start(exchange)
        try:
            return tape.record(await self._first(exchange, outgoing))
        except NoAnswerError as error:
            tape.fail(error)
            raise

    async def _joined(self, exchange: Exchange, tape: Playable) -> Incoming:
        """The answer of a call that the client has made before."""
        async with kept_alive(exchange, self._patience):
            await hold(exchange, tape.head)
        return tape.play()

    async def _first(self, exchange: Exchange, outgoing: Outgoing) -> Incoming:
        call, lane = exchange.call, None
        if self._mode == "pace" and call.dialect in _PACED:
            lane = self._lane_of(outgoing.key or presented_key(exchange.request.headers))
        async with AsyncExitStack() as stack:
            return await self._persist(_Effort(exchange, outgoing, lane, self._patience, stack))

    async def _persist(self, effort: "_Effort") -> Incoming:
        """Try until an answer is to be passed on."""
        began, wait = time.monotonic(), None
        while True:
            slot = await effort.enter(wait)
            result = await self._try(effort)
            wait = self._wait_after(effort.exchange, result, effort.tries, time.monotonic() - began)
            if slot is not None and isinstance(result, Incoming):
                _tell(slot, result, wait)
            if wait is None:
                return _passed(result)
            if slot is not None:
                slot.leave()
            _dismiss(result)

    async def _try(self, effort: "_Effort") -> Incoming | NoAnswerError:
        """What one try ends in, with as much of an error's body as it takes to tell whether it may pass."""
        attempts, first = effort.exchange.attempts, len(effort.exchange.attempts)
        try:
            incoming = await self._sender.send(effort.outgoing, effort.exchange.call.call_id, attempts)
            if is_passing(Trial(incoming.response.status)):
                incoming = replace(incoming, read=incoming.read + await peek(incoming.response))
        except NoAnswerError as error:
            return error
        finally:
            if effort.waited_ms is not None and len(attempts) > first:
                attempts[first] = replace(attempts[first], waited_ms=effort.waited_ms)
        return incoming

    def _wait_after(
        self, exchange: Exchange, result: Incoming | NoAnswerError, tries: int, spent_s: float
    ) -> float | None:
        left_s = self._patience.budget_s - spent_s
        if isinstance(result, NoAnswerError):
            return wait_s(Trial(None), tries, left_s, self._draw(), self._patience) if result.unreached else None
        last = exchange.attempts[-1]
        trial = Trial(result.response.status, last.retry_after_ms, result.response.headers, result.read)
        return wait_s(trial, tries, left_s, self._draw(), self._patience)


def _model_of(body: bytes) -> str | None:
    """The model that a request names; its row, which has it too, may still be on its way."""
    try:
        return msgspec.json.decode(body, type=_Asking).model
    except (msgspec.DecodeError, RecursionError):
        return None


def _tell(slot: Place, result: Incoming, wait_s: float | None) -> None:
    """Let the queue know what the provider said."""
    limits = read_limits(result.response.headers, now_us())
    if result.response.status in OVERLOADED:
        slot.refused(limits, wait_s or (retry_after_ms(result.response.headers, now_us()) or 0.0) / 1000)
    elif result.response.status < 500:
        slot.answered(limits)


def _passed(result: Incoming | NoAnswerError) -> Incoming:
    if isinstance(result, NoAnswerError):
        raise result
    return result


def _dismiss(result: Incoming | NoAnswerError) -> None:
    if isinstance(result, Incoming):
        result.response.close()
