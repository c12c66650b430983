"""What one recorded call says, read the same way by every axis, by the failure class and by the audit.

Invariant: pure functions of recorded rows; the agent's own words are never read.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final

import msgspec

from cellmeter_proxy.record import Attempt, Call

_MODEL_DIALECTS: Final = frozenset({"chat.completions", "completions", "embeddings", "responses", "messages"})
_THROTTLED: Final = 429
_DENIED: Final = frozenset({401, 402, 403, 407})
_TRANSIENT: Final = frozenset({408, 409, 425})
"""Statuses below 500 that ask for the same request again later (RFC 9110 §15.5, RFC 8470 §5.2)."""
_LOCAL_NETWORK: Final = ("network is unreachable", "network is down", "temporary failure in name resolution")
"""Texts of ENETUNREACH, ENETDOWN (errno(3)) and EAI_AGAIN (gai_strerror(3)): this machine has no network."""
_THROTTLING_CODES: Final = frozenset(
    {"429", "rate_limit_exceeded", "rate_limit_error", "insufficient_quota", "resource_exhausted"}
)
"""Codes of the error in a 200 that say what a 429 says: OpenAI's, Anthropic's, Google's, OpenRouter's.

https://platform.openai.com/docs/guides/error-codes, https://docs.anthropic.com/en/api/errors,
https://openrouter.ai/docs/api/reference/errors-and-debugging. The log has them first in ``error``.
"""
_BUDGET: Final = "the budget"
"""How the proxy's own sentence begins for a call that it refused because a budget was spent.

What an agent wrote, such as the address of a tool, can stand further on in the sentence of another refusal.
"""


class Trouble(Enum):
    """What a call without a complete answer ended in."""

    THROTTLED = "the provider's rate limit"
    PROVIDER = "a failure of the provider"
    DENIED = "the provider's refusal of the credentials"
    LOCAL_NETWORK = "a failure of this machine's network"
    RECORDER = "the end of the recording process"
    BUDGET = "a budget"
    REFUSED = "a refusal as malformed or unsupported"
    GONE = "the agent's leaving before the answer"


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """The token counts of one call; None where nobody counted. An embedding has no output."""

    prompt: int | None
    completion: int | None


def is_model_call(call: Call) -> bool:
    """Whether a model was asked for something: listing models and counting tokens are not.

    A POST on a path that the recorder cannot read counts where a model may have worked on it, whether or not the
    agent stayed for the end, because its tokens were spent and are not known.
    """
    return call.dialect in _MODEL_DIALECTS or (
        call.dialect == "unknown" and call.method == "POST" and reached_a_model(call)
    )


def model_calls(calls: Iterable[Call]) -> list[Call]:
    """The calls that asked a model, in the order in which they were made."""
    return in_order(filter(is_model_call, calls))


def in_order(calls: Iterable[Call]) -> list[Call]:
    """The calls in the order in which they were made: those of one moment by their number in the session."""
    return sorted(calls, key=lambda call: (call.started_at, call.seq or 0, call.call_id))


def attempts_by_call(attempts: Iterable[Attempt]) -> Mapping[str, list[Attempt]]:
    """The tries upstream by the call they served, in order."""
    grouped: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in sorted(attempts, key=lambda attempt: attempt.n):
        grouped[attempt.call_id].append(attempt)
    return grouped


def trouble_of(call: Call, attempts: Sequence[Attempt]) -> Trouble | None:
    """Why a call has no complete answer, or None where it has one or is still being answered."""
    match call.outcome:
        case "ok" | None:
            return None
        case "rejected":
            return Trouble.BUDGET if (call.error or "").startswith(_BUDGET) else Trouble.REFUSED
        case "interrupted":
            return Trouble.RECORDER
        case "client_gone":
            # Left while the proxy was still trying: what the last try met.
            return (trouble_of_try(attempts[-1]) if attempts else None) or Trouble.GONE
        case "http_error":
            # Below 400 stand the statuses that no answer of a model has, such as 204 and those of redirects.
            return _trouble_of_status(call.status) or Trouble.PROVIDER
        case _:
            return _trouble_without_a_status(call, attempts)


def _trouble_without_a_status(call: Call, attempts: Sequence[Attempt]) -> Trouble:
    if call.outcome == "stream_error" and (call.error or "").partition(":")[0].lower() in _THROTTLING_CODES:
        return Trouble.THROTTLED
    if call.outcome == "upstream_unreachable":
        return _trouble_of_connection(call.error, *(attempt.error for attempt in attempts))
    return Trouble.PROVIDER


def trouble_of_try(attempt: Attempt) -> Trouble | None:
    """What one try upstream met, or None where the provider took the call on."""
    if attempt.status is not None:
        return _trouble_of_status(attempt.status)
    return None if attempt.error is None else _trouble_of_connection(attempt.error)


def _trouble_of_status(status: int | None) -> Trouble | None:
    if status is None or status < 400:
        return None
    if status == _THROTTLED:
        return Trouble.THROTTLED
    if status in _DENIED:
        return Trouble.DENIED
    if status >= 500 or status in _TRANSIENT:
        return Trouble.PROVIDER
    return Trouble.REFUSED


def _trouble_of_connection(*errors: str | None) -> Trouble:
    said = [text.lower() for text in errors if text]
    here = any(local in text for text in said for local in _LOCAL_NETWORK)
    return Trouble.LOCAL_NETWORK if here else Trouble.PROVIDER


def is_refused_throughout(calls: Iterable[Call], attempts: Iterable[Attempt]) -> bool:
    """Whether a model was asked, and every call was refused for its credentials, or as malformed or unsupported.

    As long as the key and the agent are the same, so is the answer.
    """
    by_call = attempts_by_call(attempts)
    troubles = [trouble_of(call, by_call.get(call.call_id, [])) for call in model_calls(calls)]
    return bool(troubles) and set(troubles) <= {Trouble.DENIED, Trouble.REFUSED}


def is_answered(call: Call) -> bool:
    """Whether the provider answered, even if the agent did not stay for the end."""
    return call.outcome == "ok" or (call.outcome == "client_gone" and call.status is not None and call.status < 400)


def reached_a_model(call: Call) -> bool:
    """Whether the provider may have worked on the call, and billed it: everything that it did not refuse.

    A call that was given the answer of an earlier one was never sent.
    """
    if call.attached_to is not None or call.outcome in {"rejected", "upstream_unreachable"}:
        return False
    status = provider_status(call)
    return status is None or status < 400


def provider_status(call: Call) -> int | None:
    """The status that the provider answered with; None where the one of the row is the proxy's own."""
    return None if call.outcome in {"rejected", "upstream_unreachable", "timeout"} else call.status


def tokens_of(call: Call) -> Tokens:
    """The provider's counts, each completed by the recorded estimate where it is missing."""
    completion = call.estimated_completion_tokens if call.completion_tokens is None else call.completion_tokens
    if completion is None and call.dialect == "embeddings":
        completion = 0
    return Tokens(
        prompt=call.estimated_prompt_tokens if call.prompt_tokens is None else call.prompt_tokens,
        completion=completion,
    )
