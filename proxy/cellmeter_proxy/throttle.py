"""Whether a provider refuses calls for their rate, for whoever decides how much is asked of it. No I/O.

``pace`` holds single calls back; a sweep has whole cells to hold back, and looks here before it starts one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cellmeter_proxy.record import Attempt

OVERLOADED: Final = frozenset({429, 503, 529})
"""Statuses that mean too many requests at the moment: RFC 6585 §4, RFC 9110 §15.6.4, and Anthropic's overloaded_error
(https://docs.anthropic.com/en/api/errors)."""


@dataclass
class Throttle:
    """What a provider refused since the proxy was started."""

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    refusals: int = 0
    """Tries, whether or not an agent came to see the refusal."""
    status: int | None = None
    """Of the newest one."""
    until: float = 0.0
    """By the clock: the latest moment up to which it asked to be left alone."""

    def note(self, attempt: Attempt) -> None:
        """Take what a try upstream ended in into account."""
        if attempt.status in OVERLOADED:
            self.refusals += 1
            self.status = attempt.status
            self.until = max(self.until, self.clock() + (attempt.retry_after_ms or 0.0) / 1000)
