"""What became of a call: the sentence for each way it can go wrong, and its closing row. Pure."""

from typing import Final, NamedTuple

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from msgspec.structs import replace
from yarl import URL

from cellmeter_proxy.counts import can_answer
from cellmeter_proxy.record import Call, Dialect, Outcome, Usage
from cellmeter_proxy.watch import Watcher
from cellmeter_proxy.wire import AnswerFacts

_JSON_DIALECTS: Final[frozenset[Dialect]] = frozenset(
    {"chat.completions", "completions", "embeddings", "responses", "messages", "count_tokens"}
)
_DONE_DIALECTS: Final[frozenset[Dialect]] = frozenset({"chat.completions", "completions"})
_MAX_REASON: Final = 300
TOLD_LATE: Final = "the client was told inside a 200, whose head had gone out to keep it waiting"


class Limits(NamedTuple):
    """How long the provider may take, in seconds."""

    connect_s: float
    silence_s: float


class Head(NamedTuple):
    """The head of the provider's answer."""

    status: int
    headers_ms: float
    content_type: str | None
    content_encoding: str | None
    request_id: str | None
    told_late: bool = False
    """The client has been given another head, while it waited."""


class Broken(NamedTuple):
    """Why there is no answer, or only the beginning of one."""

    outcome: Outcome
    reason: str
    status: int = 502
    """What the client is told where nothing was released to it yet."""


def no_answer(error: Exception, url: URL, limits: Limits) -> Broken:
    """What it means that a try upstream ended without the head of an answer."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Broken("timeout", f"{url} did not accept a connection in {limits.connect_s:g} s", 504)
    if isinstance(error, TimeoutError):
        return Broken("timeout", f"{url} sent nothing for {limits.silence_s:g} s", 504)
    return Broken("upstream_unreachable", _short(f"{url} {_why_unreachable(error)}"))


def _why_unreachable(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            why = f"has a certificate that cannot be trusted: {error.certificate_error}"
        case aiohttp.ClientSSLError():
            why = f"gave no TLS connection: {_os_words(error)}"
        case aiohttp.ClientConnectorDNSError():
            why = f"cannot be reached: {error.host} has no known address: {_os_words(error)}"
        case aiohttp.ClientConnectorError():
            why = f"cannot be reached: {_os_words(error)}"
        case aiohttp.ServerDisconnectedError():
            why = "closed the connection without an answer"
        case HttpProcessingError():
            why = f"answered with something that is not HTTP: {error.message}"
        case _:
            why = f"broke off the connection before it answered: {_words(error)}"
    return why


def broke_off(error: Exception, limits: Limits) -> Broken:
    """What it means that an answer ended with an error of its connection."""
    if isinstance(error, TimeoutError):
        return Broken("timeout", f"the provider fell silent in the middle of its answer for {limits.silence_s:g} s")
    return Broken("stream_error", _short(f"the provider broke off its answer: {_words(error)}"))


def closing_row(
    call: Call, head: Head, watcher: Watcher, *, broken: Broken | None = None, client_gone_at: int | None = None
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
    if call.attached_to is not None:
        # The usage is that of the call which was paid for.
        facts = replace(facts, usage=Usage(), usage_source="none", usage_json=None)
    outcome, error = judge(call, head, watcher, facts, broken=broken, client_gone=client_gone_at is not None)
    return replace(
        call,
        state="interrupted" if outcome == "interrupted" else "closed",
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
    call: Call, head: Head, watcher: Watcher, facts: AnswerFacts, *, broken: Broken | None, client_gone: bool
) -> tuple[Outcome, str | None]:
    """The outcome of an answered call, and the sentence that says why where it is not ``ok``."""
    if broken is not None and broken.outcome == "interrupted":
        return broken.outcome, broken.reason
    if head.status >= 400:
        return "http_error", _told(facts.error or (broken.reason if broken else None), head)
    if client_gone:
        return "client_gone", broken.reason if broken else "the client went away before the end of the answer"
    if broken is not None:
        return broken.outcome, broken.reason
    if call.dialect in _JSON_DIALECTS and not can_answer(head.status):
        return "http_error", _told(f"HTTP {head.status} carries no answer of a model", head)
    flaw = facts.error or _flaw(call, watcher, facts)
    return ("ok", None) if flaw is None else ("stream_error", flaw)


def _told(reason: str | None, head: Head) -> str | None:
    return f"{reason or head.status}; {TOLD_LATE}" if head.told_late else reason


def _flaw(call: Call, watcher: Watcher, facts: AnswerFacts) -> str | None:
    """What an answer lacks though its connection was closed in order."""
    if watcher.frames is None:
        return _unary_flaw(call, watcher, facts)
    if facts.finish_reason is not None or not call.stream:
        return None
    if not facts.complete:
        return "the stream ended without its terminal event"
    if call.dialect in _DONE_DIALECTS:
        return "the stream said [DONE] before any choice had finished"
    return None


def _unary_flaw(call: Call, watcher: Watcher, facts: AnswerFacts) -> str | None:
    if facts.complete or call.dialect not in _JSON_DIALECTS:
        return None
    if watcher.decode_error is None:
        return "the answer is not a whole JSON object"
    return None if watcher.decode_error.startswith("unknown") else watcher.decode_error


def _os_words(error: aiohttp.ClientConnectorError) -> str:
    return error.os_error.strerror or _words(error.os_error)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _short(reason: str) -> str:
    return " ".join(reason.split())[:_MAX_REASON]
