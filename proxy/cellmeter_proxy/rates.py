"""Rates that are known already: what a call costs, worked out in microseconds.

Invariant: a cost from here is the one that ``prices.cost_of`` gives. Only rates that hold at any time and for any
number of tokens are kept; all else is left to the thread that looks prices up. This module loads no table of prices.
"""

from decimal import Decimal
from typing import Final

import msgspec
from msgspec.structs import replace

from cellmeter_proxy.counts import model_of
from cellmeter_proxy.record import Call

_MAX_KNOWN: Final = 1000


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """What one token costs, in US dollars; nothing of it where the call has no price."""

    source: str | None = None
    prompt: Decimal = Decimal(0)
    cache_read: Decimal = Decimal(0)
    """What a prompt token costs more, or less, that was read from a cache; likewise ``cache_write``."""
    cache_write: Decimal = Decimal(0)
    completion: Decimal = Decimal(0)


class RateKey(msgspec.Struct, frozen=True):
    """The calls that one rate holds for: of one model at one place, with the same counts reported."""

    upstream: str
    model: str
    reported: tuple[bool, ...]


class Rates:
    """The rates that were learnt. May be asked in any thread."""

    def __init__(self) -> None:
        self._known: dict[RateKey, Rate | None] = {}

    def lacks(self, key: RateKey) -> bool:
        """Whether there is a rate to be learnt here."""
        return key not in self._known and len(self._known) < _MAX_KNOWN

    def learn(self, key: RateKey, rate: Rate | None) -> None:
        """Keep a rate, or that there is none: then each of these calls has to be looked up."""
        self._known[key] = rate

    def of(self, call: Call) -> Rate | None:
        """The rate of a call, or None where it has to be looked up."""
        key = key_of(call)
        return None if key is None else self._known.get(key)

    def priced(self, call: Call) -> Call:
        """The call with its cost, where its rate is known."""
        rate = self.of(call)
        if rate is None or rate.source is None:
            return call
        return replace(call, cost=float(dollars(call, rate)), price_source=rate.source)


def key_of(call: Call) -> RateKey | None:
    """What the rate of a call goes by; None where no rate can tell its cost: it was reported, or counts are amiss."""
    prompt, read, write, completion = _counts(call)
    model = model_of(call)
    if call.usage_source != "provider" or prompt is None or not model or not call.upstream:
        return None
    if (read or 0) + (write or 0) > prompt or "cost" in (call.usage or "") or "\\" in (call.usage or ""):
        return None
    return RateKey(call.upstream, model, (read is not None, write is not None, completion is not None))


def dollars(call: Call, rate: Rate) -> Decimal:
    """What a call costs at a rate."""
    prompt, read, write, completion = (count or 0 for count in _counts(call))
    return prompt * rate.prompt + read * rate.cache_read + write * rate.cache_write + completion * rate.completion


def _counts(call: Call) -> tuple[int | None, int | None, int | None, int | None]:
    return call.prompt_tokens, call.cache_read_tokens, call.cache_write_tokens, call.completion_tokens
