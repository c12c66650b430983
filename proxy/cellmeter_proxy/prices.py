"""What a call cost, in US dollars, and where that price comes from.

Invariant: a cost is never guessed. Where no price is known, or a count that the price needs was not measured, there is
none. Costs can be computed again at any time from the usage in the log; none is ever looked up on a network.

Sources, the first that knows wins: the cost that the provider itself reported, the user's own prices, and the table
of https://github.com/pydantic/genai-prices by upstream URL, model and time of the call.

Importing this module loads that table's library (0.1 to 0.3 s, 40 MB). The relay imports it in the thread that prices
calls, not at start.
"""

import datetime as dt
import fnmatch
import hashlib
import math
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import genai_prices
import msgspec

from cellmeter_proxy.counts import model_of, usage_of
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.rates import Rate, RateKey, dollars, key_of
from cellmeter_proxy.record import Call, Usage
from cellmeter_proxy.wire.fields import amount, as_object, load

Dollars = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLION: Final = 1_000_000


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one call."""

    usd: float
    source: str
    """``provider``, ``genai-prices <version> <provider>/<model>``, or the file of the user's prices and its digest."""


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One price of the user, in US dollars per million tokens: a ``[[price]]`` table of the file."""

    host: str = "*"
    """Glob over the upstream's host, with its port where the URL has one."""
    model: str = "*"
    """Glob over the model's name."""
    valid_from: dt.date | None = None
    """The first day (UTC) that it holds; None is always."""
    input: Dollars
    cache_read: Dollars | None = None
    """Of input read from a cache; None is the price of other input."""
    cache_write: Dollars | None = None
    """Of input written to a cache; None is the price of other input."""
    output: Dollars | None = None
    """None where the model has no output, as for embeddings."""


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """The user's own prices, and the name they have in a log."""

    prices: list[Price] = []
    source: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    price: list[Price]


def load_overrides(path: Path) -> Overrides:
    """Read the user's prices from a TOML file of ``[[price]]`` tables.

    Raises:
        CellmeterError: the file cannot be read, or says something else.

    """
    try:
        content = path.read_bytes()
        prices = msgspec.toml.decode(content, type=_File).price
    except OSError as error:
        raise CellmeterError(f"the prices {path} cannot be read: {error.strerror}", exit_code=2) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CellmeterError(
            f"the prices {path} cannot be used: {error}",
            hint='write tables such as: [[price]] host = "api.example.com" model = "qwen3-*" input = 0.5 output = 1.5',
            exit_code=2,
        ) from None
    return Overrides(prices=prices, source=f"{path.name} sha256:{hashlib.sha256(content).hexdigest()[:12]}")


def price(
    usage: Usage,
    model: str | None,
    upstream_url: str | None,
    at_us: int,
    overrides: Overrides | None = None,
    *,
    reported_usd: float | None = None,
) -> Cost | None:
    """What a call cost, or None where that is not known.

    Args:
        usage: the tokens of the call.
        model: the model that answered, as the provider names it.
        upstream_url: the URL that the call was sent to.
        at_us: when the call was made; prices change.
        overrides: the user's own prices.
        reported_usd: what the provider said that the call cost, such as ``usage.cost`` of OpenRouter.

    """
    if reported_usd is not None and math.isfinite(reported_usd) and reported_usd >= 0:
        return Cost(usd=reported_usd, source="provider")
    negative = any(count is not None and count < 0 for count in msgspec.structs.astuple(usage))
    if negative or usage.prompt_tokens is None or not model or not upstream_url:
        return None
    at = _EPOCH + dt.timedelta(microseconds=at_us)
    if overrides and (own := _own_price(overrides, model, upstream_url, at)):
        usd = _multiply(usage, own)
        return None if usd is None else Cost(usd=usd, source=overrides.source)
    return _table_price(usage, model, upstream_url, at)


def cost_of(call: Call, overrides: Overrides | None = None) -> Cost | None:
    """What a recorded call cost, or None where that is not known; a part of a call's usage has no price."""
    usage = usage_of(call) if call.usage_source == "provider" else Usage()
    reported = reported_cost(call.usage)
    return price(usage, model_of(call), call.upstream, call.started_at, overrides, reported_usd=reported)


def rate_of(call: Call) -> Rate | None:
    """The rate of a call that the table knows, or knows not to have, where it depends on nothing but the tokens.

    Tiers, and prices that change with time, are left out. What is found gives this call's own cost, to the last digit.
    """
    key = key_of(call)
    if key is None or not call.upstream:
        return None
    at = _EPOCH + dt.timedelta(microseconds=call.started_at)
    try:
        found = _looked_up(Usage(prompt_tokens=0), key.model, call.upstream, at)
        if isinstance(found.model.prices, list) or any(map(_is_tiered, vars(found.model_price).values())):
            return None
        rate = _probed(key, call.upstream, at)
    except LookupError:
        return Rate()
    except ValueError:
        return None
    cost = cost_of(call)
    return rate if cost and (cost.usd, cost.source) == (float(dollars(call, rate)), rate.source) else None


def _is_tiered(price: object) -> bool:
    return isinstance(price, genai_prices.types.TieredPrices)


def _probed(key: RateKey, upstream_url: str, at: dt.datetime) -> Rate:
    """The rate that the table's price amounts to for calls that report these counts."""
    reads, writes, completes = key.reported

    def total(prompt: int, read: int = 0, write: int = 0, completion: int = 0) -> Decimal:
        usage = Usage(
            prompt_tokens=prompt * _MILLION,
            cache_read_tokens=read * _MILLION if reads else None,
            cache_write_tokens=write * _MILLION if writes else None,
            completion_tokens=completion * _MILLION if completes else None,
        )
        return Decimal(_looked_up(usage, key.model, upstream_url, at).total_price)

    prompt = total(1) / _MILLION
    return Rate(
        source=_source(_looked_up(Usage(prompt_tokens=0), key.model, upstream_url, at)),
        prompt=prompt,
        cache_read=total(1, read=1) / _MILLION - prompt if reads else Decimal(0),
        cache_write=total(1, write=1) / _MILLION - prompt if writes else Decimal(0),
        completion=total(0, completion=1) / _MILLION if completes else Decimal(0),
    )


def reported_cost(usage: str | None) -> float | None:
    """The US dollars that a provider's usage object names, as OpenRouter's ``cost`` does.

    See https://openrouter.ai/docs/use-cases/usage-accounting.
    """
    found = None if usage is None else load(usage.encode())
    objects = found if isinstance(found, list) else [found]
    return next((cost for one in reversed(objects) if (cost := amount(as_object(one).get("cost"))) is not None), None)


def _own_price(overrides: Overrides, model: str, upstream_url: str, at: dt.datetime) -> Price | None:
    """The matching price that came into force last; of several on one day, the first in the file."""
    hosts = _hosts(upstream_url)
    valid = [
        one
        for one in overrides.prices
        if any(fnmatch.fnmatchcase(host, one.host.lower()) for host in hosts)
        and fnmatch.fnmatchcase(model.lower(), one.model.lower())
        and (one.valid_from is None or one.valid_from <= at.date())
    ]
    return max(valid, key=lambda one: one.valid_from or dt.date.min, default=None)


def _hosts(upstream_url: str) -> set[str]:
    """The host of a URL, with and without its port."""
    try:
        parts = urlsplit(upstream_url)
        return {parts.hostname or "", parts.netloc.rpartition("@")[2].lower()}
    except ValueError:
        return set()


def _multiply(usage: Usage, own: Price) -> float | None:
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    fresh = (usage.prompt_tokens or 0) - read - written
    if fresh < 0 or (own.output is not None and usage.completion_tokens is None):
        return None
    if own.output is None and usage.completion_tokens:
        return None
    dollars = fresh * own.input
    dollars += read * (own.input if own.cache_read is None else own.cache_read)
    dollars += written * (own.input if own.cache_write is None else own.cache_write)
    return (dollars + (usage.completion_tokens or 0) * (own.output or 0)) / _MILLION


def _table_price(usage: Usage, model: str, upstream_url: str, at: dt.datetime) -> Cost | None:
    try:
        found = _looked_up(usage, model, upstream_url, at)
    except (LookupError, ValueError):
        # An unknown provider or model, or counts that contradict each other.
        return None
    if usage.completion_tokens is None and found.model_price.output_mtok is not None:
        return None
    return Cost(usd=float(found.total_price), source=_source(found))


def _looked_up(usage: Usage, model: str, upstream_url: str, at: dt.datetime) -> genai_prices.types.PriceCalculation:
    counts = genai_prices.Usage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.completion_tokens,
    )
    return genai_prices.calc_price(counts, model, provider_api_url=upstream_url, genai_request_timestamp=at)


def _source(found: genai_prices.types.PriceCalculation) -> str:
    return f"genai-prices {genai_prices.__version__} {found.provider.id}/{found.model.id}"
