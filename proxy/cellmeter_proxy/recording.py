"""The rows of one call: how they are derived from its bytes, and how they get into the log.

Everything heavy (decoding, parsing, hashing, redaction, compression) runs in the writer's thread, before
the transaction. Invariant: what is stored of a call, bodies and texts, has passed the redactor; hashes are
of the exact bytes, so that they can be compared with anybody else's. A body is stored as it came, content
coding included, unless something in it had to be masked: then it is stored without its coding.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from msgspec.structs import replace

from cellmeter_proxy import canonical
from cellmeter_proxy.blobs import Content, arrivals
from cellmeter_proxy.encodings import decode
from cellmeter_proxy.log import Log, digest_of, make_content
from cellmeter_proxy.outcome import Broken, Head, closing_row
from cellmeter_proxy.record import Attempt, Call, Dialect, Record
from cellmeter_proxy.redact import Redactor, redact_stream
from cellmeter_proxy.watch import Watcher
from cellmeter_proxy.wire import request_facts
from cellmeter_proxy.writer import LogWriter

_MAX_OWED_BYTES: Final = 1024 * 1024
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


def open_call(
    writer: LogWriter, call: Call, body: bytes, redactor: Redactor, *, sent: bytes | None = None
) -> "asyncio.Future[Call]":
    """Write the row of a call that has begun. The future gives the row as written, after its commit.

    Args:
        writer: of the log.
        call: what is known without reading the body.
        body: exactly as received.
        redactor: knows the secrets of the call.
        sent: what goes to the provider instead, where that differs.

    """
    return writer.submit(lambda: prepare_open(call, body, redactor, sent=sent), _write_open)


def close_call(
    writer: LogWriter, call: Call, attempts: Sequence[Attempt], answer: Answer | None, redactor: Redactor
) -> "asyncio.Future[Call]":
    """Complete the row of a call. The future gives the row as written, after its commit.

    Args:
        writer: of the log.
        call: the row with its end and, where there is no answer to read, its outcome.
        attempts: the tries upstream.
        answer: what the rest of the row is read from.
        redactor: knows the secrets of the call.

    """
    kept = tuple(attempts)
    return writer.submit(lambda: prepare_close(call, answer, redactor, kept), _write_close, otherwise=_unclosed)


def _unclosed(prepared: Prepared) -> Prepared:
    """The end of a call whose row was not closed in time: its client was broken off, and did not get the answer."""
    row = replace(
        prepared.call, state="interrupted", outcome="interrupted", error="the log could not be written at its end"
    )
    if sum(len(blob.data) for blob in prepared.blobs) <= _MAX_OWED_BYTES:
        return prepared._replace(call=row)
    return prepared._replace(call=replace(row, response_blob=None, timeline_blob=None), blobs=[])


def prepare_open(call: Call, body: bytes, redactor: Redactor, *, sent: bytes | None = None) -> Prepared:
    """Derive from a request's bytes what its row says of them."""
    plain = decode(body, call.request_encoding)
    request = canonical.NOT_JSON if plain is None else canonical.parse(plain)
    facts = request_facts(call.dialect, call.endpoint, request)
    stored, masked = redactor.bytes(body if plain is None else plain)
    blob = make_content(stored if masked else body, grows=True)
    row = replace(
        call,
        request_model=facts.model,
        stream=facts.stream,
        body_hash=digest_of(body),
        request_hash=canonical.hash_of(request),
        sent_hash=None if sent is None else digest_of(sent),
        prefix_hash=facts.prefix[-1] if facts.prefix else None,
        message_count=facts.message_count,
        provider_tools=[_clean(tool, redactor) for tool in facts.provider_tools] if isinstance(request, dict) else None,
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
    names = [name for name in _FOREIGN[type(record)] if getattr(record, name) is not None]
    together = "\n".join(getattr(record, name) for name in names)
    if together.isascii() and not redactor.spans(together.encode()):
        return record
    return replace(record, **{name: _clean(getattr(record, name), redactor) for name in names})


def _clean(text: str, redactor: Redactor) -> str:
    return redactor.text(text)[0].encode("utf-8", "replace").decode()


def _redacted(watcher: Watcher, dialect: Dialect, redactor: Redactor) -> tuple[bytes, int]:
    if watcher.frames is not None:
        stored, masked = redact_stream(watcher.decoded, dialect, redactor)
    else:
        stored, masked = redactor.bytes(watcher.decoded)
    return (stored, masked) if masked else redactor.bytes(watcher.received)


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
    known = log.known_prefixes(session, prefix)
    return next((new for new, link in enumerate(reversed(prefix)) if link in known), len(prefix))
