"""What an answer's headers say about limits: how long to wait, and what is left.

Invariant: a value that cannot be read is None, never 0; the headers themselves are kept verbatim beside what they mean.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from cellmeter_proxy.headers import RawHeaders

_UNITS_MS: Final = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6, "d": 8.64e7}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_COUNT: Final = re.compile(r"[0-9]{1,18}")
_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms")
_NAMED: Final = re.compile(
    r"(?:x-ratelimit-(?P<kind>limit|remaining|reset)-(?P<what>[a-z-]+)"
    r"|anthropic-(?:priority-)?ratelimit-(?P<what2>[a-z-]+)-(?P<kind2>limit|remaining|reset))"
)
_COLLECTED: Final = re.compile(r"(?:x-|anthropic-(?:priority-)?)?ratelimit\b.*|retry-after.*|x-ms-retry-after-ms")


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit: how much a window allows, what is left of it, and when it is full again."""

    limit: int | None = None
    remaining: int | None = None
    reset_ms: float | None = None


def tells_of_limits(headers: RawHeaders) -> bool:
    """Whether any header of an answer may be one that the functions below read."""
    names = b",".join([name for name, _ in headers]).lower()
    return b"ratelimit" in names or b"retry-after" in names


def retry_after_ms(headers: Mapping[str, str], now_us: int) -> float | None:
    """How long the provider asks to wait, in milliseconds, or None where it does not say.

    In this order: ``retry-after-ms``, Azure's ``x-ms-retry-after-ms``, ``retry-after`` in seconds (a fraction is taken,
    as OpenAI's clients do) or as a date (https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3), which is 0 once past.

    Args:
        headers: of the answer; names in any case.
        now_us: what a date is relative to, in UTC microseconds since the epoch.

    """
    named = _telling(headers)
    for name in _MILLISECONDS:
        found = _number(named.get(name))
        if found is not None:
            return found
    value = named.get("retry-after")
    seconds = _number(value)
    return seconds * 1000 if seconds is not None else _until(value, now_us)


def duration_ms(value: str) -> float | None:
    """Milliseconds of a duration such as ``1s``, ``6m0s`` or ``20ms``, as Go writes them, or of a number of seconds."""
    value = value.strip()
    if (seconds := _number(value)) is not None:
        return seconds * 1000
    parts = list(_PART.finditer(value))
    if not parts or "".join(part[0] for part in parts) != value:
        return None
    return _finite(sum(float(part[1]) * _UNITS_MS[part[2]] for part in parts))


def rate_limits(headers: Mapping[str, str]) -> str | None:
    """The headers of an answer that tell of limits, as a JSON object, or None where there are none.

    Names are in lower case, values verbatim: this is what ``attempts.ratelimit`` holds. ``read_limits`` reads it.
    """
    named = _telling(headers).items()
    kept = {name: value.encode("utf-8", "replace").decode() for name, value in named if _COLLECTED.fullmatch(name)}
    return msgspec.json.encode(kept, order="deterministic").decode() if kept else None


def read_limits(headers: Mapping[str, str], now_us: int) -> dict[str, Limit]:
    """The limits by what they limit: ``requests``, ``tokens``, ``input-tokens``, …

    The shapes are OpenAI's and Azure's (``x-ratelimit-remaining-tokens``,
    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers) and Anthropic's
    (``anthropic-ratelimit-tokens-remaining``, https://docs.anthropic.com/en/api/rate-limits#response-headers).

    Args:
        headers: of the answer; names in any case.
        now_us: what a reset given as a date is relative to, in UTC microseconds since the epoch.

    """
    fields: dict[str, dict[str, str]] = {}
    for name, value in _telling(headers).items():
        match = _NAMED.fullmatch(name)
        if match is not None:
            what, kind = match["what"] or match["what2"], match["kind"] or match["kind2"]
            fields.setdefault(what, {})[kind] = value
    return {
        what: Limit(
            limit=_count(found.get("limit")),
            remaining=_count(found.get("remaining")),
            reset_ms=_reset(found.get("reset"), now_us),
        )
        for what, found in fields.items()
    }


def _telling(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that may tell of limits, their names in lower case."""
    return {
        name: value.strip()
        for name, value in zip(map(str.lower, headers), headers.values(), strict=True)
        if "ratelimit" in name or "retry-after" in name
    }


def _number(value: str | None) -> float | None:
    return _finite(float(value)) if value is not None and _NUMBER.fullmatch(value) and value.isascii() else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _count(value: str | None) -> int | None:
    return int(value) if value is not None and _COUNT.fullmatch(value) else None


def _reset(value: str | None, now_us: int) -> float | None:
    """OpenAI sends a duration, Anthropic an RFC 3339 date."""
    if value is None:
        return None
    duration = duration_ms(value)
    return duration if duration is not None else _until(value, now_us)


def _until(value: str | None, now_us: int) -> float | None:
    date = _date(value) if value else None
    if date is None:
        return None
    return max(date.timestamp() * 1000 - now_us / 1000, 0.0)


def _date(value: str) -> datetime | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(value)
            return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None
