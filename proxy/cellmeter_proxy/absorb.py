"""What is tried again for a client, and when: the decisions of ``--on-429 absorb``. Pure.

Invariant: only what the provider refused, or never received, is tried again, and never longer than the budget allows.
A silence, or a connection that was lost once the request had gone out, is not: the request may have been processed,
and be paid for twice (https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from cellmeter_proxy.record import Dialect

On429: TypeAlias = Literal["observe", "absorb", "pace"]
"""``observe``: the agent sees what the provider said. ``absorb``: the proxy waits and tries again in its place.
``pace``: it also holds calls back, so that the provider has no reason to refuse them."""

_AGAIN: Final = frozenset({408, 409, 429})
_SPENT: Final = (b"insufficient_quota", b"billing_hard_limit_reached", b"billing_not_active")
_PATIENT_FROM: Final = 3


@dataclass(frozen=True)
class Patience:
    """How long a call is tried again for, in seconds.

    ``budget_s`` is counted from the first try. Without a Retry-After the waits double from ``first_s`` up to
    ``ceiling_s``. After ``quiet_s`` without a byte the client is kept alive, where its dialect has a way, by a filler
    every ``filler_s``.
    """

    budget_s: float = 600.0
    first_s: float = 0.5
    ceiling_s: float = 60.0
    quiet_s: float = 60.0
    filler_s: float = 5.0


class Trial(NamedTuple):
    """What a try upstream ended in."""

    status: int | None
    """None: no connection came about."""
    retry_after_ms: float | None = None
    headers: Mapping[str, str] = {}
    """Of the answer; names in any case."""
    body: bytes = b""
    """Of the answer, or its beginning."""


def may_repeat(method: str, dialect: Dialect) -> bool:
    """Whether a request can be made twice without harm: a model's answer can, and what only reads.

    What a POST on an unknown path does is not known.
    """
    return dialect != "unknown" or method in {"GET", "HEAD"}


def is_passing(trial: Trial) -> bool:
    """Whether a later try may fare better than this one.

    So say 408, 409, 429, every 5xx (Anthropic's 529 included) and a refused connection, as the SDKs of OpenAI and
    Anthropic have it, unless the provider forbids it (``x-should-retry: false``) or the account has nothing left to
    spend, which OpenAI also answers with 429 (https://platform.openai.com/docs/guides/error-codes).
    """
    if trial.status is None:
        return True
    if trial.status not in _AGAIN and trial.status < 500:
        return False
    if trial.headers.get("x-should-retry", "").strip().lower() == "false":
        return False
    return not any(word in trial.body for word in _SPENT)


def wait_s(trial: Trial, tries: int, left_s: float, draw: float, patience: Patience) -> float | None:
    """How long to wait before the next try, in seconds; None where this one is the last.

    A Retry-After is waited for in full and for up to a tenth more, so that calls do not come back all at once; from
    the third try on at least a second's back-off, so that a Retry-After of nothing is no endless loop. Without one, the
    wait is an exponential back-off, of which half is drawn.

    Args:
        trial: the try.
        tries: how many there have been, this one included.
        left_s: of the budget.
        draw: from 0 up to 1, by chance.
        patience: the budget's rules.

    """
    if not is_passing(trial):
        return None
    backoff = min(patience.first_s * 2 ** min(tries - 1, 32), patience.ceiling_s) * (0.5 + draw / 2)
    wait = backoff
    if trial.retry_after_ms is not None:
        asked = trial.retry_after_ms / 1000
        if asked > left_s:
            return None
        floor = min(backoff, 1.0) if tries >= _PATIENT_FROM else 0.0
        wait = max(min(asked * (1 + draw / 10), left_s), floor)
    return wait if wait <= left_s else None
