"""How the row of a call gets into the log: once when it begins and once when it ends, or all at once.

What is new in a body is found and compressed within the transaction; what needs no file is done before it, of a large
body in a thread of its own (see ``writer``). Invariant: a row whose answer came before it was committed is written as
one, and whoever waits for either end of it is told after that commit.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt, Call, now_us
from cellmeter_proxy.recording import Answer, Prepared, prepare_close, prepare_open
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.resent import Resent
from cellmeter_proxy.transact import Job
from cellmeter_proxy.watch import Watcher
from cellmeter_proxy.writer import LARGE, LogWriter

_MAX_OWED_BYTES: Final = 1024 * 1024
_FEW: Final = 8


class Whole(NamedTuple):
    """A call that was answered before its row was written, or that will not be served because it could not be."""

    opened: Prepared
    closed: Prepared | None


class Opening:
    """The row of a call that has begun: read from the request soon, committed a moment later or when it is awaited.

    Awaiting it gives the row as written, after its commit. Whoever waits may be cancelled; the row may not.
    """

    def __init__(self, writer: LogWriter, job: "Job[Prepared, Call]") -> None:
        self._writer = writer
        self._job = job
        self._written = job.future

    @property
    def is_committed(self) -> bool:
        """The row is in the log."""
        written = self._written
        return written.done() and not written.cancelled() and written.exception() is None

    def __await__(self) -> Generator[Any, None, Call]:
        if not self._written.done():
            self._writer.hurry(self._job)
            yield from asyncio.shield(self._written)
        return self._written.result()

    async def described(self) -> Call:
        """The row as it will be written, perhaps without its place in the session, and without awaiting any commit.

        For whoever releases nothing of the answer before ``close_call`` has had it committed.
        """
        job = self._job
        if not job.number:  # too large to be described here, or being written
            return await self
        job.be_prepared()
        return await self if job.prepared is None else job.prepared.call

    def close(self, prepare: Callable[[Prepared], Whole], size: int) -> "asyncio.Future[Call] | None":
        """See ``LogWriter.complete``."""
        return self._writer.complete(self._job, prepare, _write_whole, otherwise=_unserved, size=size)


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
) -> Opening:
    """Have the row of a call written that has begun.

    Args:
        writer: of the log.
        call: what is known without reading the body.
        body: exactly as received.
        redactor: knows the secrets of the call.
        sent: what goes to the provider instead, where that differs.
        resent: what the sessions sent before.

    """
    prepare = partial(prepare_open, call, body, redactor, sent=sent, resent=resent)
    size = len(body) if call.request_encoding is None else max(len(body), LARGE)
    return Opening(writer, writer.defer(prepare, _write_open, otherwise=_unopened, size=size))


def close_call(
    writer: LogWriter,
    call: Call,
    attempts: Sequence[Attempt],
    answer: Answer | None,
    redactor: Redactor,
    *,
    price: Callable[[Call], Call] = _unpriced,
    opening: Opening | None = None,
) -> "asyncio.Future[Call]":
    """Complete the row of a call. The future gives the row as written, after its commit.

    Args:
        writer: of the log.
        call: the row with its end and, where there is no answer to read, its outcome.
        attempts: the tries upstream.
        answer: what the rest of the row is read from.
        redactor: knows the secrets of the call.
        price: gives the row its cost where that takes no time.
        opening: of the call, where ``call`` is what it has described: if the row still waits for its commit, beginning
            and end are written as one.

    """
    kept = tuple(attempts)
    size = 0 if answer is None else _size(answer.watcher)

    def prepare() -> Prepared:
        closed = prepare_close(call, answer, redactor, kept)
        return Prepared(price(closed.call), closed.blobs, closed.attempts)

    whole = None if opening is None else opening.close(lambda opened: Whole(opened, prepare()), size)
    return writer.submit(prepare, _write_close, otherwise=_unclosed, size=size) if whole is None else whole


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


def _unserved(whole: Whole) -> Whole:
    """A call whose row could not be written when its answer was there: nothing of it has gone to the client."""
    return Whole(_unopened(whole.opened), None)


def _is_small(prepared: Prepared) -> bool:
    """Whether what the log did not take may be kept in memory until it does."""
    return sum(len(blob.data) for blob in prepared.blobs) <= _MAX_OWED_BYTES


def _write_open(log: Log, prepared: Prepared) -> Call:
    session, prefix = prepared.call.session, prepared.prefix
    new = _new_messages(log, session, prefix)
    link = prefix[-1 - new] if new is not None and new < len(prefix) else None
    for blob in prepared.blobs:
        log.keep(blob, session, link)
    call = replace(prepared.call, new_messages=new, seq=log.next_seq(session))
    log.add_call(call)
    return call


def _write_whole(log: Log, whole: Whole) -> Call:
    opened, closed = whole
    if closed is None:
        return _write_open(log, opened)
    call = _write_open(log, Prepared(closed.call, opened.blobs + closed.blobs, prefix=opened.prefix))
    log.append(*closed.attempts)
    return call


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


def _size(watcher: Watcher) -> int:
    """How much is to be read of an answer. A small one may decode to 64 MiB; of a request nobody knows before."""
    return max(sum(watcher.sizes), len(watcher.decoded) if watcher.coded else 0)
