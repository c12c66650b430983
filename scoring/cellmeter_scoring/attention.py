"""What in a list of calls deserves a reader's attention, each kind one line with the calls that it is about.

Pure. Whatever changes how a number may be used is named: a count that is not the provider's, a call that was made
again, an answer that nobody saw the end of.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from cellmeter_proxy.record import Attempt, Call
from cellmeter_scoring.calls import is_answered, model_calls, reached_a_model, tokens_of
from cellmeter_scoring.finding import Finding

Holds: TypeAlias = Callable[[Call], bool]


def findings_of(calls: Sequence[Call], attempts: Mapping[str, Sequence[Attempt]]) -> list[Finding]:
    """The findings about these calls, each kind once, in a fixed order."""
    retried, repeated = _made_again(calls)
    found = [
        *(_about(calls, kind, sentence, holds) for kind, sentence, holds in _OF_ONE_CALL),
        _about(calls, "agent retry", "made again by the agent after a failure", lambda call: call.call_id in retried),
        _about(
            calls,
            "repeated request",
            "identical to one that had been answered, and paid again",
            lambda call: call.call_id in repeated,
        ),
        _about(
            calls,
            "proxy retry",
            "answered after more than one try upstream",
            lambda call: len(attempts.get(call.call_id, ())) > 1,
        ),
        _without_price(calls),
    ]
    return [finding for finding in found if finding is not None]


def _about(calls: Sequence[Call], kind: str, sentence: str, holds: Holds) -> Finding | None:
    ids = [call.call_id for call in calls if holds(call)]
    if not ids:
        return None
    counted = "1 call" if len(ids) == 1 else f"{len(ids)} calls"
    return Finding(kind=kind, message=f"{counted}: {sentence}", ids=ids)


def _without_price(calls: Sequence[Call]) -> Finding | None:
    """The calls whose tokens the provider told and whose price nobody knows, with their models."""
    unpriced = [call for call in calls if call.usage_source == "provider" and call.cost is None]
    models = dict.fromkeys(call.response_model or call.request_model or "an unnamed model" for call in unpriced)
    ids = {call.call_id for call in unpriced}
    return _about(calls, "no price", f"not priced ({', '.join(models)})", lambda call: call.call_id in ids)


def _made_again(calls: Sequence[Call]) -> tuple[set[str], set[str]]:
    """The calls that repeat a failed one, and those that repeat one that had been answered.

    The same canonical request in the same session, or the agent's own count of its retries.
    """
    retried: set[str] = set()
    repeated: set[str] = set()
    last: dict[tuple[str, str], Call] = {}
    for call in model_calls(calls):
        before = last.get((call.session, call.request_hash)) if call.request_hash else None
        if call.retry_number or (before is not None and not is_answered(before)):
            retried.add(call.call_id)
        elif before is not None:
            repeated.add(call.call_id)
        if call.request_hash:
            last[call.session, call.request_hash] = call
    return retried, repeated


def _is_uncounted(call: Call) -> bool:
    tokens = tokens_of(call)
    return bool(model_calls([call])) and reached_a_model(call) and None in {tokens.prompt, tokens.completion}


def _is_other_error(call: Call) -> bool:
    return call.outcome == "http_error" and call.status != 429


_OF_ONE_CALL: Final[tuple[tuple[str, str, Holds], ...]] = (
    ("estimate", "token counts are estimates", lambda call: call.usage_source == "estimated"),
    ("partial usage", "the provider reported only a part of the token counts", lambda c: c.usage_source == "partial"),
    ("no usage", "a model worked on it and nobody counted the tokens", _is_uncounted),
    ("unread", "its path is none that the recorder can read", lambda call: call.dialect == "unknown"),
    ("throttled", "ended in HTTP 429", lambda call: call.outcome == "http_error" and call.status == 429),
    ("http error", "ended in an error status other than 429", _is_other_error),
    ("rejected", "refused by the proxy", lambda call: call.outcome == "rejected"),
    ("unreachable", "the provider could not be reached", lambda call: call.outcome == "upstream_unreachable"),
    ("timeout", "the provider did not answer in time", lambda call: call.outcome == "timeout"),
    ("stream cut", "the stream broke off or carried an error", lambda call: call.outcome == "stream_error"),
    ("client gone", "the agent left before the end of the answer", lambda call: call.outcome == "client_gone"),
    ("interrupted", "the recording process ended before the answer", lambda call: call.outcome == "interrupted"),
    ("open", "still being answered", lambda call: call.state == "open"),
    ("length limit", "the answer was cut at its length limit", lambda c: c.finish_reason in {"length", "max_tokens"}),
)
