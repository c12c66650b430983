"""What in a list of calls deserves a reader's attention, each kind one line with the calls that it is about.

Pure. Whatever changes how a number may be used is named: a count that is not the provider's, a call that was made
again, an answer that nobody saw the end of.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from cellmeter_proxy.record import Attempt, Call
from cellmeter_scoring.calls import model_calls, reached_a_model, tokens_of
from cellmeter_scoring.finding import Finding
from cellmeter_scoring.operations import operation_ids
from cellmeter_scoring.retries import retries_of

Holds: TypeAlias = Callable[[Call], bool]


def findings_of(calls: Sequence[Call], attempts: Mapping[str, Sequence[Attempt]]) -> list[Finding]:
    """The findings about these calls, each kind once, in a fixed order."""
    links = retries_of(calls)
    repeated = _repeated(calls, links)
    paid_again = _paid_again(calls, links)
    found = [
        *(_about(calls, kind, sentence, holds) for kind, sentence, holds in _OF_ONE_CALL),
        _about(
            calls,
            "agent retry",
            "made again by the agent after a failure",
            lambda call: call.call_id in links or bool(call.retry_number),
        ),
        _about(
            calls,
            "paid again",
            "sent again though a model may have worked on it before",
            lambda call: call.call_id in paid_again,
        ),
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


def _repeated(calls: Sequence[Call], links: Mapping[str, str]) -> set[str]:
    """The calls that are no retry, though the same canonical request of the session had been answered before."""
    repeated: set[str] = set()
    answered: set[tuple[str, str]] = set()
    for call in model_calls(calls):
        if call.request_hash is None:
            continue
        if call.call_id not in links and (call.session, call.request_hash) in answered:
            repeated.add(call.call_id)
        if call.outcome == "ok":
            answered.add((call.session, call.request_hash))
    return repeated


def _paid_again(calls: Sequence[Call], links: Mapping[str, str]) -> set[str]:
    """The calls that may have been billed after another one of their operation, which may have been, too."""
    ids = operation_ids(calls, links)
    again: set[str] = set()
    billed: set[str] = set()
    for call in filter(reached_a_model, model_calls(calls)):
        operation = ids[call.call_id]
        if operation in billed:
            again.add(call.call_id)
        billed.add(operation)
    return again


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
