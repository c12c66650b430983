"""Sending with persistence: tries are repeated for a client that waits, as ``absorb`` decides.

Invariant: nothing of an answer has been released when its call is tried again; the answer that is tried no further is
passed on as the provider gave it.
"""

import dataclasses
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from msgspec.structs import replace

from cellmeter_proxy.absorb import On429, Patience, Trial, is_passing, may_repeat, wait_s
from cellmeter_proxy.exchange import Exchange
from cellmeter_proxy.sending import Incoming, NoAnswerError, Outgoing, Sender, peek
from cellmeter_proxy.waiting import kept_alive, pause

_CHANCE: Final = random.SystemRandom()


class Persistence:
    """Sends the requests of one relay, and tries again where its mode has it so.

    Args:
        sender: makes the tries.
        mode: ``observe`` tries once.
        patience: with what may pass.
        draw: gives numbers from 0 up to 1 by chance, for the waits.

    """

    def __init__(
        self, sender: Sender, mode: On429, patience: Patience, draw: Callable[[], float] = _CHANCE.random
    ) -> None:
        self._sender = sender
        self._mode = mode
        self._patience = patience
        self._draw = draw

    async def send(self, exchange: Exchange, outgoing: Outgoing) -> Incoming:
        """The answer that is to be passed on.

        Raises:
            NoAnswerError: there is none.
            ClientGoneError: the client has left while the call waited.

        """
        if self._mode == "observe" or not may_repeat(exchange.call.method, exchange.call.dialect):
            return await self._sender.send(outgoing, exchange.call.call_id, exchange.attempts)
        async with AsyncExitStack() as stack:
            return await self._persist(exchange, outgoing, stack)

    async def _persist(self, exchange: Exchange, outgoing: Outgoing, stack: AsyncExitStack) -> Incoming:
        began = time.monotonic()
        tries, waited_ms = 1, None
        while True:
            result = await self._try(exchange, outgoing, waited_ms)
            wait = self._wait_after(exchange, result, tries, time.monotonic() - began)
            if wait is None:
                return _passed(result)
            _dismiss(result)
            if tries == 1:
                await stack.enter_async_context(kept_alive(exchange, self._patience))
                # From now on an answer may have to follow a head that names no coding.
                outgoing = dataclasses.replace(outgoing, identity=True)
            since = time.monotonic()
            await pause(exchange, wait)
            tries, waited_ms = tries + 1, (time.monotonic() - since) * 1000

    async def _try(self, exchange: Exchange, outgoing: Outgoing, waited_ms: float | None) -> Incoming | NoAnswerError:
        """What one try ends in, with as much of an error's body as it takes to tell whether it may pass."""
        attempts, first = exchange.attempts, len(exchange.attempts)
        try:
            incoming = await self._sender.send(outgoing, exchange.call.call_id, attempts)
            if is_passing(Trial(incoming.response.status)):
                incoming = dataclasses.replace(incoming, read=incoming.read + await peek(incoming.response))
        except NoAnswerError as error:
            return error
        finally:
            if waited_ms is not None and len(attempts) > first:
                attempts[first] = replace(attempts[first], waited_ms=waited_ms)
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


def _passed(result: Incoming | NoAnswerError) -> Incoming:
    if isinstance(result, NoAnswerError):
        raise result
    return result


def _dismiss(result: Incoming | NoAnswerError) -> None:
    if isinstance(result, Incoming):
        result.response.close()
