"""The rows of one call: how they are derived from its bytes, and how they get into the log.

Everything heavy (hashing, redaction, compression) runs in the writer's thread, before the
transaction. Invariant: what is stored of a body has passed the redactor; hashes are of the exact
bytes, so that they can be compared with anybody else's.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from cellmeter_proxy.canonical import request_hash
from cellmeter_proxy.log import Log, digest_of, make_blob
from cellmeter_proxy.record import Attempt, BlobRow, Call, Dialect
from cellmeter_proxy.redact import Redactor, redact_stream
from cellmeter_proxy.watch import Watcher
from cellmeter_proxy.writer import LogWriter


class Prepared(NamedTuple):
    """A row, and the content it refers to."""

    call: Call
    blobs: list[BlobRow]


@dataclass(frozen=True)
class Body:
    """The body of a request: the exact bytes, and what they say once decompressed."""

    raw: bytes
    plain: bytes | None
    """None where the content encoding could not be undone."""
    prefix: Sequence[str] = ()
    """Chain over the messages, oldest first; see ``canonical.prefix_chain``."""


def open_call(writer: LogWriter, call: Call, body: Body, redactor: Redactor) -> "asyncio.Future[Call]":
    """Write the row of a call that has begun. The future gives the row as written, after its commit."""
    return writer.submit(lambda: prepare_open(call, body, redactor), lambda log, p: _write_open(log, p, body.prefix))


def close_call(
    writer: LogWriter, call: Call, attempts: Sequence[Attempt], watcher: Watcher | None, redactor: Redactor
) -> "asyncio.Future[Call]":
    """Complete the row of a call. The future gives the row as written, after its commit."""
    kept = tuple(attempts)
    return writer.submit(
        lambda: prepare_close(call, watcher, redactor), lambda log, prepared: _write_close(log, prepared, kept)
    )


def prepare_open(call: Call, body: Body, redactor: Redactor) -> Prepared:
    """Derive from a request's bytes what its row says of them."""
    stored, masked = redactor.bytes(body.raw if body.plain is None else body.plain)
    # A compressed body is kept compressed, exactly as it came, unless something in it had to be masked.
    blob = make_blob(stored if masked else body.raw)
    return Prepared(
        replace(
            call,
            body_hash=digest_of(body.raw),
            request_hash=None if body.plain is None else request_hash(body.plain),
            prefix_hash=body.prefix[-1] if body.prefix else None,
            message_count=len(body.prefix) or None,
            request_bytes=len(body.raw),
            request_blob=blob.digest,
            redactions=masked,
        ),
        [blob],
    )


def prepare_close(call: Call, watcher: Watcher | None, redactor: Redactor) -> Prepared:
    """Derive from an answer's bytes what its row says of them."""
    if watcher is None:
        return Prepared(call, [])
    received = watcher.received
    stored, masked = _redacted(received, call.dialect, call.response_type, redactor)
    blobs = [make_blob(stored)]
    timeline = None
    if watcher.frames is not None:
        timeline = make_blob(msgspec.json.encode([(round(at, 3), size) for at, size in watcher.timeline]))
        blobs.append(timeline)
    return Prepared(
        replace(
            call,
            response_bytes=len(received),
            response_blob=blobs[0].digest,
            timeline_blob=None if timeline is None else timeline.digest,
            redactions=(call.redactions or 0) + masked,
        ),
        blobs,
    )


def _redacted(received: bytes, dialect: Dialect, type_: str | None, redactor: Redactor) -> tuple[bytes, int]:
    if type_ is not None and type_.startswith("text/event-stream"):
        return redact_stream(received, dialect, redactor)
    return redactor.bytes(received)


def _write_open(log: Log, prepared: Prepared, prefix: Sequence[str]) -> Call:
    for blob in prepared.blobs:
        log.put_blob(blob)
    call = replace(prepared.call, new_messages=_new_messages(log, prepared.call.session, prefix))
    return replace(call, seq=log.open_call(call))


def _write_close(log: Log, prepared: Prepared, attempts: Sequence[Attempt]) -> Call:
    for blob in prepared.blobs:
        log.put_blob(blob)
    log.close_call(prepared.call, attempts)
    return prepared.call


def _new_messages(log: Log, session: str, prefix: Sequence[str]) -> int | None:
    """How many messages at the end of a request no earlier request of the session ended in or before."""
    if not prefix:
        return None
    known = log.known_prefixes(session, prefix)
    return next((new for new, link in enumerate(reversed(prefix)) if link in known), len(prefix))
