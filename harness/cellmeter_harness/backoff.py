"""How many cells of a sweep run at once while the provider refuses calls for their rate. No I/O.

A refusal on the wire halves them, and no cell is started before the Retry-After that came with it is over. So does a
cell that ended for the rate limit though none was refused: where calls are paced, too many cells wait for each other
until their time is over. Each cell during which there was neither adds one, up to what the sweep asks for. News that
comes while more cells run than are allowed by now is none: those cells were started before. One cell at a time is
always allowed; where that one is refused too, the next is held back for a second, then for two, up to a minute.

Invariant: as long as nothing runs, something is started within ``LONGEST_S``.
"""

from typing import Final

from cellmeter_proxy.throttle import Throttle

LONGEST_S: Final = 600.0
"""A provider that asks for more is asked again all the same: a quota of a day is nothing to sit through unseen."""
_FIRST_S: Final = 1.0
_STEEPEST_S: Final = 60.0


class Backoff:
    """The pace of one run of a sweep.

    Args:
        throttle: what the provider has refused; kept up to date by the proxy.
        most: how many cells the sweep asks for at once.

    """

    def __init__(self, throttle: Throttle, most: int) -> None:
        self.at_once = most
        """How many cells may run now."""
        self.running = 0
        self._throttle = throttle
        self._most = most
        self._seen = throttle.refusals
        self._pause_s = 0.0
        self._closed_until = 0.0

    def look(self) -> None:
        """Take in what was refused since the last look."""
        if self._throttle.refusals != self._seen:
            self._seen = self._throttle.refusals
            self._cut()
            self._close_until(self._throttle.until)

    @property
    def slowed(self) -> bool:
        """Whether fewer cells run than the sweep asks for, or the next one later."""
        return self.wait_s() > 0 or self.at_once < self._most

    def wait_s(self) -> float:
        """Seconds until the provider may be asked for the next cell's sake; 0 where it may be now."""
        return max(self._closed_until - self._throttle.clock(), 0.0)

    @property
    def may_start(self) -> bool:
        """Whether another cell may be started."""
        return self.running < self.at_once and self.wait_s() == 0

    def start(self) -> int:
        """A cell is started. Give what is returned to ``end``."""
        self.running += 1
        return self._throttle.refusals

    def end(self, at_start: int, *, starved: bool = False) -> None:
        """A cell has ended; ``starved``: for the provider's rate limit."""
        self.running -= 1
        refused = self._throttle.refusals != at_start
        if starved and not refused:
            self._cut()
        elif not refused:
            self._pause_s = 0.0
            self.at_once = min(self.at_once + 1, self._most)
        elif self.at_once == 1 and not self.running:
            self._pause_s = min(max(2 * self._pause_s, _FIRST_S), _STEEPEST_S)
            self._close_until(self._throttle.clock() + self._pause_s)

    def _cut(self) -> None:
        if self.running <= self.at_once:
            self.at_once = max(min(self.at_once, self.running + 1) // 2, 1)

    def _close_until(self, moment: float) -> None:
        self._closed_until = max(self._closed_until, min(moment, self._throttle.clock() + LONGEST_S))
