"""The queues of ``--on-429 pace`` as a worker has them: the lanes are the coordinator's, and shared by all workers.

Invariant: no call goes before the coordinator has said that it may; where the coordinator is gone, none does.
"""

import asyncio
import itertools
from collections.abc import Mapping

from cellmeter_proxy.lanes import Queueing, Waiter
from cellmeter_proxy.link import Link, LinkLostError
from cellmeter_proxy.messages import Answered, Leave, Queue, Refused
from cellmeter_proxy.ratelimit import Limit


class DistantLanes:
    """The lanes, by key."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.standing: dict[int, Waiter] = {}
        """Those who wait for their turn, by place."""
        self.numbers = itertools.count(1)

    def of(self, key: str | None) -> Queueing:
        """The lane of a key."""
        return _DistantLane(self, key)

    def turn(self, place: int) -> None:
        """The call in a place may go."""
        waiter = self.standing.pop(place, None)
        if waiter is not None and not waiter.turn.done():
            waiter.slot = _DistantPlace(self.link, place)
            waiter.turn.set_result(None)

    def lose(self) -> None:
        """Nobody's turn will come any more."""
        for waiter in self.standing.values():
            _give_up(waiter)
        self.standing.clear()


class _DistantLane:
    def __init__(self, lanes: DistantLanes, key: str | None) -> None:
        self._lanes = lanes
        self._key = key
        self._places: dict[Waiter, int] = {}

    def queue(self, tokens: int, *, again: bool, model: str | None = None) -> Waiter:
        waiter = Waiter(tokens, asyncio.get_running_loop().create_future(), model)
        lanes = self._lanes
        if lanes.link.lost:
            _give_up(waiter)
            return waiter
        place = self._places[waiter] = next(lanes.numbers)
        lanes.standing[place] = waiter
        lanes.link.tell(Queue(place=place, key=self._key, model=model, tokens=tokens, again=again))
        return waiter

    def abandon(self, waiter: Waiter) -> None:
        waiter.turn.cancel()
        place = self._places.pop(waiter, None)
        if place is not None:
            self._lanes.standing.pop(place, None)
            self._lanes.link.tell(Leave(place=place))


class _DistantPlace:
    def __init__(self, link: Link, place: int) -> None:
        self._link = link
        self._place = place

    def answered(self, limits: Mapping[str, Limit]) -> None:
        self._link.tell(Answered(place=self._place, limits=dict(limits)))

    def refused(self, limits: Mapping[str, Limit], wait_s: float) -> None:
        self._link.tell(Refused(place=self._place, limits=dict(limits), wait_s=wait_s))

    def leave(self) -> None:
        self._link.tell(Leave(place=self._place))


def _give_up(waiter: Waiter) -> None:
    if not waiter.turn.done():
        waiter.turn.set_exception(LinkLostError("the process that paces the calls is gone"))
        waiter.turn.exception()  # whoever has left the queue does not come back for it
