"""The rows of one call: how they are derived from its bytes, and how they get into the log.

Decoding, parsing, hashing and redaction come before the transaction, of a large body in a thread of their own (see
``writer``); what is new in a body is found and compressed within it. Invariant: what is stored of a call, bodies and
texts, has passed the redactor; hashes are of the exact bytes, so that they can be compared with anybody else's. A body
is stored as it came, content coding included, unless something in it had to be masked: then without its coding.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

from msgspec.structs import replace

from cellmeter_proxy.blobs import Content, arrivals
from cellmeter_proxy.encodings import decode
from cellmeter_proxy.log import Log, digest_of, make_content
from cellmeter_proxy.outcome import Broken, Head, closing_row
from cellmeter_proxy.reading import opaque, read
from cellmeter_proxy.record import Attempt, Call, Dialect, Record, now_us
from cellmeter_proxy.redact import Redactor, mask, redact_frames
from cellmeter_proxy.resent import Resent
from cellmeter_proxy.watch import Watcher
from cellmeter_proxy.writer import LogWriter

_MAX_OWED_BYTES: Final = 1024 * 1024
_FEW: Final = 8
R = TypeVar("R", bound=Record)
_FOREIGN: Final[dict[type[Record], tuple[str, ...]]] = {
    Call: (
        "method",
        "endpoint",
        "upstream",
        "request_model",
        "response_model",
        "request_encoding",
        "response_encoding",
        "response_type",
        "finish_reason",
        "usage",
        "request_id",
        "response_id",
        "user_agent",
        "client_session",
        "error",
    ),
    Attempt: ("ratelimit", "request_id", "error"),
}
"""The columns whose text others wrote, so that anything may stand in it."""
_TEXTS: Final[dict[type[Record], Callable[[Record], tuple[str | None, ...]]]] = {
    row: attrgetter(*names) for row, names in _FOREIGN.items()
}


class Prepared(NamedTuple):
    """A row, the content it refers to, its attempts, and the chain over its messages, oldest first."""

    call: Call
    blobs: list[Content]
    attempts: Sequence[Attempt] = ()
    prefix: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """The answer of a call as it was watched, and why it broke off, if it did."""

    head: Head
    watcher: Watcher
    broken: Broken | None = None


def _unpriced(call: Call) -> Call:
    return call


def open_call(
    writer: LogWriter,
    call: Call,
    body: bytes,
    redactor: Redactor,
    *,
    sent: bytes | None = None,
    resent: Resent | None = None,
) -> "asyncio.Future[Call]":
    """Write the row of a call that has begun. The future gives the row as written, after its commit.

    Args:
        writer: of the log.
        call: what is known without reading the body.
        body: exactly as received.
        redactor: knows the secrets of the call.
        sent: what goes to the provider instead, where that differs.
        resent: what the sessions sent before.

    """
    return writer.submit(
        lambda: prepare_open(call, body, redactor, sent=sent, resent=resent),
        _write_open,
        otherwise=_unopened,
        size=len(body),
    )


def close_call(
    writer: LogWriter,
    call: Call,
    attempts: Sequence[Attempt],
    answer: Answer | None,
    redactor: Redactor,
    *,
    price: Callable[[Call], Call] = _unpriced,
) -> "asyncio.Future[Call]":
    """Complete the row of a call. The future gives the row as written, after its commit.

    Args:
        writer: of the log.
        call: the row with its end and, where there is no answer to read, its outcome.
        attempts: the tries upstream.
        answer: what the rest of the row is read from.
        redactor: knows the secrets of the call.
        price: gives the row its cost where that takes no time.

    """
    kept = tuple(attempts)
    size = 0 if answer is None else sum(size for _, size in answer.watcher.timeline)

    def prepare() -> Prepared:
        prepared = prepare_close(call, answer, redactor, kept)
        return prepared._replace(call=price(prepared.call))

    return writer.submit(prepare, _write_close, otherwise=_unclosed, size=size)


def _unopened(prepared: Prepared) -> Prepared:
    """A call that was refused, for its row could not be written in time; the provider may have been paid for it."""
    row = replace(
        prepared.call,
        state="interrupted",
        status=503,
        outcome="interrupted",
        ended_at=now_us(),
        error="the log could not be written at its beginning",
    )
    if _is_small(prepared):
        return prepared._replace(call=row)
    return prepared._replace(call=replace(row, request_blob=None), blobs=[])


def _unclosed(prepared: Prepared) -> Prepared:
    """The end of a call whose row was not closed in time: its client was broken off, and did not get the answer."""
    row = replace(
        prepared.call, state="interrupted", outcome="interrupted", error="the log could not be written at its end"
    )
    if _is_small(prepared):
        return prepared._replace(call=row)
    return prepared._replace(call=replace(row, response_blob=None, timeline_blob=None), blobs=[])


def _is_small(prepared: Prepared) -> bool:
    """Whether what the log did not take may be kept in memory until it does."""
    return sum(len(blob.data) for blob in prepared.blobs) <= _MAX_OWED_BYTES


def prepare_open(
    call: Call, body: bytes, redactor: Redactor, *, sent: bytes | None = None, resent: Resent | None = None
) -> Prepared:
    """Derive from a request's bytes what its row says of them."""
    plain = body if call.request_encoding is None else decode(body, call.request_encoding)
    source = body if plain is None else plain
    said = opaque(call, body, redactor) if plain is None else read(call, plain, redactor, resent)
    facts, masked = said.facts, len(said.spans)
    exact = said.body_hash if source is body else digest_of(body)
    blob = make_content(mask(source, said.spans), grows=True) if masked else Content(exact, body, grows=True)
    row = replace(
        call,
        request_model=facts.model,
        stream=facts.stream,
        body_hash=exact,
        request_hash=said.request_hash,
        sent_hash=None if sent is None else said.hash_beside(source, sent),
        prefix_hash=facts.prefix[-1] if facts.prefix else None,
        message_count=facts.message_count,
        # A request that is no object has no stream either.
        provider_tools=None if facts.stream is None else [_clean(tool, redactor) for tool in facts.provider_tools],
        request_bytes=len(body),
        request_blob=blob.digest,
        redactions=masked,
    )
    return Prepared(printable(row, redactor), [blob], prefix=facts.prefix)


def prepare_close(call: Call, answer: Answer | None, redactor: Redactor, attempts: Sequence[Attempt] = ()) -> Prepared:
    """Derive from an answer's bytes what its row says of them."""
    kept = [printable(attempt, redactor) for attempt in attempts]
    if answer is None:
        return Prepared(printable(call, redactor), [], kept)
    watcher = answer.watcher
    row = closing_row(call, answer.head, watcher, broken=answer.broken, client_gone_at=call.client_gone_at)
    stored, masked = _redacted(watcher, call.dialect, redactor)
    blobs = [make_content(stored)]
    timeline = None
    if watcher.frames is not None:
        timeline = make_content(arrivals.timeline(watcher.timeline))
        blobs.append(timeline)
    row = replace(
        row,
        response_bytes=len(watcher.received),
        response_blob=blobs[0].digest,
        timeline_blob=None if timeline is None else timeline.digest,
        redactions=(call.redactions or 0) + masked,
    )
    return Prepared(printable(row, redactor), blobs, kept)


def printable(record: R, redactor: Redactor) -> R:
    """A row without secrets in the texts that others wrote, and without what is no text: the log stores UTF-8."""
    texts = _TEXTS[type(record)](record)
    if redactor.are_harmless(filter(None, texts)):
        return record
    given = {name: text for name, text in zip(_FOREIGN[type(record)], texts, strict=True) if text is not None}
    return replace(record, **{name: _clean(text, redactor) for name, text in given.items()})


def _clean(text: str, redactor: Redactor) -> str:
    return redactor.text(text)[0].encode("utf-8", "replace").decode()


def _redacted(watcher: Watcher, dialect: Dialect, redactor: Redactor) -> tuple[bytes, int]:
    received, decoded = watcher.received, watcher.decoded
    if watcher.parsed is not None:
        stored, masked = redact_frames(watcher.parsed, dialect, redactor)
    else:
        stored, masked = redactor.bytes(decoded)
    # Nothing was found: what has no coding needs no second look.
    return (stored, masked) if masked or received == decoded else redactor.bytes(received)


def _write_open(log: Log, prepared: Prepared) -> Call:
    session, prefix = prepared.call.session, prepared.prefix
    new = _new_messages(log, session, prefix)
    for blob in prepared.blobs:
        log.keep(blob, session, prefix[-1 - new] if new is not None and new < len(prefix) else None)
    call = replace(prepared.call, new_messages=new)
    return replace(call, seq=log.open_call(call))


def _write_close(log: Log, prepared: Prepared) -> Call:
    for blob in prepared.blobs:
        log.keep(blob, prepared.call.session)
    log.close_call(prepared.call, prepared.attempts)
    return prepared.call


def _new_messages(log: Log, session: str, prefix: Sequence[str]) -> int | None:
    """How many messages at the end of a request no earlier request of the session ended in or before."""
    if not prefix:
        return None
    newest_first = prefix[::-1]
    # Most requests add a few messages to the one before: the whole history is only asked for where that does not show.
    for start, end in ((0, _FEW), (_FEW, len(prefix))):
        links = newest_first[start:end]
        known = log.known_prefixes(session, links) if links else set()
        for new, link in enumerate(links, start):
            if link in known:
                return new
    return len(prefix)
