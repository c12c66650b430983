"""Whether a log is what it says it is: every digest derived again, every row where it belongs.

Invariant: read-only, and every finding is a contradiction within the log, never a fault of an agent or a provider. A
damaged file gives findings, not exceptions.
"""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from cellmeter_proxy.canonical import request_hash
from cellmeter_proxy.log import Log, digest_of, writer_is_alive
from cellmeter_proxy.record import Attempt, Call, Cell, Span
from cellmeter_scoring.finding import Finding

_SLACK_MS: Final = 1.0
"""Durations are read from several clocks' ticks; less than this is no contradiction."""


def verify(log: Log | Path | str) -> list[Finding]:
    """Everything in a log that contradicts itself; nothing where it is sound.

    Raises:
        CellmeterError: there is no such log, it is not a log, or a newer cellmeter wrote it.

    """
    if not isinstance(log, Log):
        with Log.read(log) as reading:
            return verify(reading)
    findings: list[Finding] = []
    for check in _CHECKS:
        try:
            findings.extend(check(log))
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            findings.append(Finding(kind="unreadable", message=f"a table cannot be read: {error}"))
    return findings


def _file(log: Log) -> Iterator[Finding]:
    for (said,) in log.conn.execute("PRAGMA quick_check(20)"):
        if said != "ok":
            yield Finding(kind="file", message=f"the file is damaged: {said}")


def _contents(log: Log) -> Iterator[Finding]:
    """Every blob under the digest of its content, with the size that its row gives."""
    for digest, size in log.stored():
        try:
            content = log.blob(digest)
        except Exception as error:  # noqa: BLE001 - damaged bytes may break a decompressor in any way
            yield Finding(kind="digest", message=f"the content of a blob cannot be read: {error}", ids=[digest])
            continue
        if digest_of(content) != digest:
            yield Finding(kind="digest", message="a blob is not the content that its digest names", ids=[digest])
        if len(content) != size:
            message = f"a blob of {len(content)} bytes says that it has {size}"
            yield Finding(kind="digest", message=message, ids=[digest])


def _bodies(log: Log) -> Iterator[Finding]:
    """Request and response bodies against the hashes and byte counts of their calls.

    A body that was stored with something masked in it is not the one that was sent, so it proves nothing.
    """
    sizes: dict[str, int] = dict(log.conn.execute("SELECT digest, size FROM blobs").fetchall())
    for call in log.rows(Call, "coalesce(redactions, 0) = 0"):
        ids = [call.call_id]
        if call.request_blob in sizes:
            if call.body_hash is not None and call.body_hash != call.request_blob:
                yield Finding(kind="digest", message="body_hash is not that of the stored request", ids=ids)
            if call.request_bytes not in {None, sizes[call.request_blob]}:
                yield _truncated("request", call.request_bytes, sizes[call.request_blob], ids)
            if not _has_its_request_hash(log, call, call.request_blob):
                yield Finding(kind="digest", message="request_hash is not that of the stored request", ids=ids)
        if call.response_blob in sizes and call.response_bytes not in {None, sizes[call.response_blob]}:
            yield _truncated("response", call.response_bytes, sizes[call.response_blob], ids)


def _truncated(what: str, said: int | None, size: int, ids: list[str]) -> Finding:
    message = f"the stored {what} has {size} bytes, its row says {said}"
    return Finding(kind="truncated body", message=message, ids=ids)


def _has_its_request_hash(log: Log, call: Call, blob: str) -> bool:
    # A compressed body is stored as it came, while the canonical hash is of what it unpacks to.
    if call.request_hash is None or call.request_encoding not in {None, "identity"}:
        return True
    try:
        return request_hash(log.blob(blob)) == call.request_hash
    except Exception:  # noqa: BLE001 - unreadable content is a finding about the blob itself
        return True


def _sequences(log: Log) -> Iterator[Finding]:
    counted = "SELECT session, count(*), count(DISTINCT seq), min(seq), max(seq) FROM calls GROUP BY session"
    for session, rows, places, first, last in log.conn.execute(counted):
        if (rows, first, last) != (places, 1, rows):
            message = f"session {session!r} has {rows} calls, numbered from {first} to {last}"
            yield Finding(kind="sequence gap", message=message, ids=[session])


_ORPHANS: Final = (
    ("a try upstream", "its call", "attempts", "call_id", "SELECT call_id FROM calls"),
    ("a call", "its cell", "calls", "cell_id", "SELECT cell_id FROM cells"),
    ("a span", "its cell", "spans", "cell_id", "SELECT cell_id FROM cells"),
    ("an artifact", "its cell", "artifacts", "cell_id", "SELECT cell_id FROM cells"),
    ("a score", "its cell", "scores", "cell_id", "SELECT cell_id FROM cells"),
    ("a connection", "its cell", "egress", "cell_id", "SELECT cell_id FROM cells"),
    ("a cell", "its sweep", "cells", "sweep_id", "SELECT sweep_id FROM sweeps"),
    ("an artifact", "its content", "artifacts", "blob", "SELECT digest FROM blobs"),
    ("a call", "its request", "calls", "request_blob", "SELECT digest FROM blobs"),
    ("a call", "its response", "calls", "response_blob", "SELECT digest FROM blobs"),
    ("a call", "its timeline", "calls", "timeline_blob", "SELECT digest FROM blobs"),
)


def _orphans(log: Log) -> Iterator[Finding]:
    for what, parent, table, column, known in _ORPHANS:
        missing = f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL AND {column} NOT IN ({known})"
        ids = [str(row[0]) for row in log.conn.execute(missing)]
        if ids:
            yield Finding(kind="orphan", message=f"{what} without {parent} in the log", ids=ids)


def _times(log: Log) -> Iterator[Finding]:
    started: dict[str, int] = {}
    for call in log.rows(Call):
        started[call.call_id] = call.started_at
        if _is_before(call.ended_at, call.started_at) or _is_before(call.client_gone_at, call.started_at):
            yield _impossible("a call ends before it starts", call.call_id)
        durations = (call.latency_ms, call.headers_ms, call.ttft_ms, call.max_gap_ms, call.queue_ms)
        if any(duration is not None and duration < 0 for duration in durations):
            yield _impossible("a call has a negative duration", call.call_id)
        if call.latency_ms is not None and call.ttft_ms is not None and call.ttft_ms > call.latency_ms + _SLACK_MS:
            yield _impossible("a call has its first token after its end", call.call_id)
    for attempt in log.rows(Attempt):
        if _is_before(attempt.started_at, started.get(attempt.call_id)):
            yield _impossible("a try upstream starts before its call", attempt.call_id)
    for cell in log.rows(Cell):
        ends = [(cell.started_at, cell.ended_at), *((phase.started_at, phase.ended_at) for phase in cell.phases)]
        if any(_is_before(end, start) for start, end in ends):
            yield _impossible("a cell or a phase of it ends before it starts", cell.cell_id)
    for span in log.rows(Span):
        if span.duration_ms < 0:
            yield _impossible("a span has a negative duration", span.span_id)


def _is_before(moment: int | None, other: int | None) -> bool:
    return moment is not None and other is not None and moment < other


def _impossible(message: str, id_: str) -> Finding:
    return Finding(kind="impossible time", message=message, ids=[id_])


def _states(log: Log) -> Iterator[Finding]:
    """Rows that their writer left behind. One whose writer still runs is being answered, which is no finding."""
    alive: dict[str, bool] = {}
    for call in log.rows(Call):
        if call.state == "open" and not alive.setdefault(call.writer, writer_is_alive(call.writer)):
            message = "a call is open although the process that recorded it has ended"
            yield Finding(kind="open row", message=message, ids=[call.call_id])
        if call.state == "closed" and (call.outcome is None or call.ended_at is None):
            message = "a call is closed without an outcome or an end"
            yield Finding(kind="incomplete row", message=message, ids=[call.call_id])


_CHECKS: Final[tuple[Callable[[Log], Iterator[Finding]], ...]] = (
    _file,
    _contents,
    _bodies,
    _sequences,
    _orphans,
    _times,
    _states,
)
