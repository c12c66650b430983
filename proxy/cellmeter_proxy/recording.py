"""The rows of one call: how they are derived from its bytes. How they get into the log: ``writing``.

Invariant: what is stored of a call, bodies and texts, has passed the redactor; hashes are of the exact bytes, so that
they can be compared with anybody else's. A body is stored as it came, content coding included, unless something in it
had to be masked: then without its coding.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from cellmeter_proxy.blobs import Content
from cellmeter_proxy.encodings import decode
from cellmeter_proxy.log import digest_of, make_content
from cellmeter_proxy.outcome import Broken, Head, closing_row
from cellmeter_proxy.reading import opaque, read
from cellmeter_proxy.record import Attempt, Call, Record
from cellmeter_proxy.redact import Redactor, mask
from cellmeter_proxy.resent import Resent
from cellmeter_proxy.stored import stored
from cellmeter_proxy.watch import Watcher

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


class Answer(Struct, frozen=True):
    """The answer of a call as it was watched, and why it broke off, if it did."""

    head: Head
    watcher: Watcher
    broken: Broken | None = None


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
    content = stored(answer.watcher, call.dialect, redactor)
    row = closing_row(call, answer.head, answer.watcher, content, broken=answer.broken)
    blobs = [content.body] if content.timeline is None else [content.body, content.timeline]
    return Prepared(printable(row, redactor), blobs, kept)


def printable(record: R, redactor: Redactor) -> R:
    """A row without secrets in the texts that others wrote, and without what is no text: the log stores UTF-8."""
    texts = _TEXTS[type(record)](record)
    if redactor.are_harmless(texts):
        return record
    given = {name: text for name, text in zip(_FOREIGN[type(record)], texts, strict=True) if text is not None}
    return replace(record, **{name: _clean(text, redactor) for name, text in given.items()})


def _clean(text: str, redactor: Redactor) -> str:
    return redactor.text(text)[0].encode("utf-8", "replace").decode()
