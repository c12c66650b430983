"""What became of a call: its closing row, derived from the answer as it was watched. Pure."""

from typing import NamedTuple

from msgspec.structs import replace

from cellmeter_proxy.record import Call, Outcome
from cellmeter_proxy.watch import Watcher
from cellmeter_proxy.wire import AnswerFacts


class Head(NamedTuple):
    """The head of the provider's answer."""

    status: int
    headers_ms: float
    content_type: str | None
    content_encoding: str | None
    request_id: str | None


def closing_row(
    call: Call, head: Head, watcher: Watcher, *, broken: str | None = None, client_gone_at: int | None = None
) -> Call:
    """The row of a call whose answer has ended, one way or another.

    Args:
        call: the row as it was opened.
        head: the head of the answer.
        watcher: what was received of it.
        broken: why the answer broke off, if it did.
        client_gone_at: when the client went away before it had the whole answer.

    """
    facts = watcher.facts()
    outcome, error = judge(call, head, facts, broken=broken, client_gone=client_gone_at is not None)
    return replace(
        call,
        state="closed",
        status=head.status,
        headers_ms=head.headers_ms,
        response_type=head.content_type,
        response_encoding=head.content_encoding,
        request_id=head.request_id,
        outcome=outcome,
        error=error,
        client_gone_at=client_gone_at,
        response_model=facts.response_model,
        response_id=facts.response_id,
        finish_reason=facts.finish_reason,
        tool_calls=facts.tool_calls,
        prompt_tokens=facts.usage.prompt_tokens,
        cache_read_tokens=facts.usage.cache_read_tokens,
        cache_write_tokens=facts.usage.cache_write_tokens,
        completion_tokens=facts.usage.completion_tokens,
        reasoning_tokens=facts.usage.reasoning_tokens,
        usage_source=facts.usage_source,
        usage=facts.usage_json,
        ttft_ms=watcher.ttft_ms,
        max_gap_ms=watcher.max_gap_ms,
        frames=watcher.frames,
    )


def judge(
    call: Call, head: Head, facts: AnswerFacts, *, broken: str | None, client_gone: bool
) -> tuple[Outcome, str | None]:
    """The outcome of an answered call, and the sentence that says why where it is not ``ok``."""
    if head.status >= 400:
        return "http_error", facts.error or broken
    if client_gone:
        return "client_gone", broken or "the client went away before the end of the answer"
    if broken is not None:
        return "stream_error", broken
    if facts.error is not None:
        return "stream_error", facts.error
    if call.stream and not facts.complete and facts.finish_reason is None:
        return "stream_error", "the stream ended without its terminal event"
    return "ok", None
