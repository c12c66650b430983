"""When a provider may be asked: requests and tokens per window, and calls at once, as it says itself. No I/O.

Rates come from the provider's own headers (``ratelimit.read_limits``); a provider that states none is held to how many
calls it takes at once, and to its Retry-After. Every 429 cuts what is allowed by a share, every answer adds a little
back, up to what the headers state: the additive increase and multiplicative decrease of RFC 5681 §3.1.

Invariant: what is allowed never exceeds what the provider states, and never falls below one call.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cellmeter_proxy.ratelimit import Limit

_WINDOW_S: Final = 60.0
_DOWN: Final = 0.9
_HALF: Final = 0.5
_MARGIN: Final = 0.02
_LAG: Final = 0.05
_INSTANT_S: Final = 0.01
_MOST: Final = 10_000.0
_AT_FIRST: Final = 4.0
_TOKEN_LIMITS: Final = ("tokens", "input-tokens")


@dataclass(eq=False)
class Entry:
    """A call as it was let through."""

    at: float
    tokens: int
    n: int
    """How many had been let through, this one included."""
    requests_taken: int
    tokens_taken: int


@dataclass
class Gauge:
    """One limit: how much of it is used in the window that ends now."""

    ceiling: int | None = None
    """As the provider states it."""
    allowed: float | None = None
    """What is used of it at most; None where nothing is known."""
    window_s: float | None = None
    taken: int = 0
    _log: deque[tuple[Entry, int]] = field(default_factory=deque)
    _used: int = 0
    _remaining: int | None = None
    _reported_taken: int = 0
    _full_at: float = 0.0

    @property
    def _span(self) -> float:
        window = _WINDOW_S if self.window_s is None else self.window_s
        return window * (1 + _MARGIN) + _INSTANT_S

    def delay(self, cost: int, now: float) -> float:
        """Seconds until a cost fits."""
        self._forget(now)
        wait = 0.0
        if self.allowed is not None:
            cost = min(cost, int(self.allowed))
            wait = self._until_freed(self._used + cost - self.allowed, now)
        if self._remaining is None or now >= self._full_at:
            return wait
        left = self._remaining - (self.taken - self._reported_taken)
        return wait if left >= cost else max(wait, self._full_at - now)

    def take(self, entry: Entry, cost: int) -> int:
        self._log.append((entry, cost))
        self._used += cost
        self.taken += cost
        return self.taken

    def give_back(self, entry: Entry) -> None:
        """The provider refused it: refused calls do not count."""
        for position, (other, cost) in enumerate(self._log):
            if other is entry:
                self._used -= cost
                del self._log[position]
                return

    def report(self, limit: Limit, taken: int, now: float) -> None:
        """What an answer's headers say; ``taken`` is how much had been taken when its call was let through."""
        if limit.reset_ms is not None:
            # Whether it tells of the whole window or of the time to fill up what is used, it is never longer than it.
            self.window_s = max(self.window_s or 0.0, limit.reset_ms / 1000)
        if limit.limit:
            if self.ceiling is None:
                self.allowed = float(limit.limit)
            self.ceiling = limit.limit
            self.allowed = min(self.allowed or _MOST, float(limit.limit))
        if limit.remaining is not None and taken >= self._reported_taken:
            self._remaining, self._reported_taken = limit.remaining, taken
            self._full_at = now + (self._span if limit.reset_ms is None else limit.reset_ms / 1000)

    def cut(self) -> None:
        """The provider refused a call: allow less."""
        if self.allowed is not None:
            self.allowed = max(self.allowed * _DOWN, 1.0)

    def grow(self) -> None:
        """The provider answered a call: allow more."""
        if self.allowed is not None and self.ceiling is not None:
            self.allowed = min(self.allowed + 1, float(self.ceiling))

    def _forget(self, now: float) -> None:
        while self._log and self._log[0][0].at + self._span <= now:
            self._used -= self._log.popleft()[1]

    def _until_freed(self, excess: float, now: float) -> float:
        """Seconds until so much of what is used is older than the window."""
        for entry, cost in self._log:
            if excess <= 0:
                break
            excess -= cost
            if excess <= 0:
                return max(entry.at + self._span - now, _INSTANT_S)
        return 0.0


class Limits:
    """What one key, or one model of it, may ask of one provider at a moment. The caller keeps the queue."""

    def __init__(self) -> None:
        self.requests = Gauge()
        self.tokens = Gauge()
        self.at_once = _AT_FIRST
        """How many calls may be under way; a few at first, until an answer tells more."""
        self.under_way = 0
        self._let_through = 0
        self._cut_after = 0
        self._closed_until = 0.0

    def delay(self, tokens: int, now: float) -> float | None:
        """Seconds until a call may go; None until one that is under way ends."""
        if self.under_way >= int(self.at_once):
            return None
        waits = (self._closed_until - now, self.requests.delay(1, now), self.tokens.delay(tokens, now))
        return max(0.0, *waits)

    def enter(self, tokens: int, now: float) -> Entry:
        """Let a call through."""
        self._let_through += 1
        self.under_way += 1
        entry = Entry(now, tokens, self._let_through, 0, 0)
        entry.requests_taken = self.requests.take(entry, 1)
        entry.tokens_taken = self.tokens.take(entry, tokens)
        return entry

    def told(self, limits: Mapping[str, Limit], at: float) -> None:
        """Begin with what the provider said at a moment, before any call was let through."""
        self._report(Entry(at, 0, 0, 0, 0), limits, at)

    def close(self, until: float) -> None:
        """Let nobody through before a moment."""
        self._closed_until = max(self._closed_until, until)

    def leave(self) -> None:
        """A call has ended."""
        self.under_way -= 1

    def answered(self, entry: Entry, limits: Mapping[str, Limit], now: float) -> None:
        """The head of an answer came, with these limits in its headers."""
        # The provider counted it when it arrived there, which was somewhere between then and now.
        entry.at += min(now - entry.at, _LAG * (self.requests.window_s or _WINDOW_S))
        self._report(entry, limits, now)
        self.requests.grow()
        self.at_once = min(self.at_once + (1 / self.at_once if self._cut_after else 1), _MOST)
        if self.requests.ceiling is not None and self._cut_after == 0:
            self.at_once = _MOST

    def refused(self, entry: Entry, limits: Mapping[str, Limit], wait_s: float, now: float) -> None:
        """It was a 429: nobody asks before the wait is over."""
        self.requests.give_back(entry)
        self.tokens.give_back(entry)
        self.close(now + wait_s)
        self._report(entry, limits, now)
        if entry.n <= self._cut_after:
            return  # Calls that were under way together are refused together: it is one piece of news.
        self._cut_after = self._let_through
        self.requests.cut()
        rate = limits.get("requests")
        if rate is None or rate.remaining != 0:
            self.at_once = max(self.under_way * _HALF, 1.0)

    def _report(self, entry: Entry, limits: Mapping[str, Limit], now: float) -> None:
        if "requests" in limits:
            self.requests.report(limits["requests"], entry.requests_taken, now)
        tokens = next((limits[name] for name in _TOKEN_LIMITS if name in limits), None)
        if tokens is not None:
            self.tokens.report(tokens, entry.tokens_taken, now)
