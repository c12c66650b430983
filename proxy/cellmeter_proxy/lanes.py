"""The queues of ``--on-429 pace``: one for each key, shared by all calls that use it, first come, first served.

Where the provider is seen to limit each model by itself (``models``), the queue falls apart into one for each model.

Invariant: a call that has to be tried again stands before those that came after it; who leaves the queue leaves no gap.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cellmeter_proxy.models import Models
from cellmeter_proxy.pace import Entry, Limits
from cellmeter_proxy.ratelimit import Limit

_MAX_LANES: Final = 1000


class Place(Protocol):
    """The right of one call to be under way."""

    def answered(self, limits: Mapping[str, Limit]) -> None:
        """The provider gave an answer with these limits."""
        ...

    def refused(self, limits: Mapping[str, Limit], wait_s: float) -> None:
        """The provider gave a 429, or said that it has too much to do."""
        ...

    def leave(self) -> None:
        """The call has ended, or its try has; once is enough."""
        ...


@dataclass(eq=False)
class Waiter:
    """One who stands in the queue; its turn is done when it may go, and then it has a slot."""

    tokens: int
    turn: "asyncio.Future[None]"
    model: str | None = None
    slot: Place | None = None


class Queueing(Protocol):
    """What a relay has of the queue of one key, wherever it is kept."""

    def queue(self, tokens: int, *, again: bool, model: str | None = None) -> Waiter:
        """Stand in the queue: at its end, or before it with a call that was let through before."""
        ...

    def abandon(self, waiter: Waiter) -> None:
        """Leave the queue, or what came of it."""
        ...


class Slot:
    """A ``Place`` in this process."""

    def __init__(self, lane: "Lane", entry: Entry, model: str | None) -> None:
        self._lane = lane
        self._entry = entry
        self._model = model
        self._left = False

    def answered(self, limits: Mapping[str, Limit]) -> None:
        """See ``Place``."""
        self._lane.limits.answered(self._entry, limits, self._lane.now())
        self._lane.hear(self._model, limits)

    def refused(self, limits: Mapping[str, Limit], wait_s: float) -> None:
        """See ``Place``."""
        self._lane.limits.refused(self._entry, limits, wait_s, self._lane.now())
        self._lane.hear(self._model, limits, wait_s)

    def leave(self) -> None:
        """See ``Place``."""
        if not self._left:
            self._left = True
            self._lane.limits.leave()
            self._lane.pump()


class Lane:
    """The queue of one key, or of one model of it."""

    def __init__(self) -> None:
        self.limits = Limits()
        self._models = Models()
        self._parts: dict[str | None, Lane] = {}
        """By model, once they are apart."""
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Seconds of a clock that only goes forward."""
        return self._loop.time()

    @property
    def idle(self) -> bool:
        """Nobody waits, and nothing is under way."""
        return not self._waiting and not self.limits.under_way and all(part.idle for part in self._parts.values())

    def queue(self, tokens: int, *, again: bool, model: str | None = None) -> Waiter:
        """See ``Queueing``."""
        if self._models.apart:
            return self._part(model).queue(tokens, again=again)
        waiter = Waiter(tokens, self._loop.create_future(), model)
        if again:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
        self.pump()
        return waiter

    def abandon(self, waiter: Waiter) -> None:
        """See ``Queueing``."""
        waiter.turn.cancel()
        if waiter.slot is not None:
            waiter.slot.leave()
        self.pump()
        for part in self._parts.values():
            part.pump()

    def hear(self, model: str | None, limits: Mapping[str, Limit], wait_s: float = 0.0) -> None:
        """The provider has said something about a model; with a refusal, how long it is to be left alone."""
        if self._models.note(model, limits, self.limits.under_way, self.now()):
            waiting, self._waiting = self._waiting, deque()
            for waiter in waiting:
                self._part(waiter.model).take_over(waiter)
        if self._models.apart and wait_s:
            self._part(model).limits.close(self.now() + wait_s)
        self.pump()

    def take_over(self, waiter: Waiter) -> None:
        """Have one who stood in another queue stand at the end of this one."""
        self._waiting.append(waiter)
        self.pump()

    def _part(self, model: str | None) -> "Lane":
        """The queue of a model, with what is known of its limits."""
        if model not in self._parts:
            if len(self._parts) >= _MAX_LANES:
                self._parts = {name: part for name, part in self._parts.items() if not part.idle}
            part = self._parts[model] = Lane()
            last = self._models.last(model)
            if last is not None:
                part.limits.told(last.limits, last.at)
        return self._parts[model]

    def pump(self) -> None:
        """Let through whoever may go now, in order, and look again when the next one may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            waiter = self._waiting[0]
            if not waiter.turn.done():
                delay = self.limits.delay(waiter.tokens, self.now())
                if delay is None:
                    return
                if delay > 0:
                    self._timer = self._loop.call_later(delay, self.pump)
                    return
                waiter.slot = Slot(self, self.limits.enter(waiter.tokens, self.now()), waiter.model)
                waiter.turn.set_result(None)
            self._waiting.popleft()


class Lanes:
    """The lanes of one provider, by key."""

    def __init__(self) -> None:
        self._lanes: dict[str | None, Lane] = {}

    def of(self, key: str | None) -> Lane:
        """The lane of a key."""
        if key not in self._lanes and len(self._lanes) >= _MAX_LANES:
            self._lanes = {other: lane for other, lane in self._lanes.items() if not lane.idle}
        return self._lanes.setdefault(key, Lane())
