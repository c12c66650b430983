"""Rows against the rows that they belong to: nothing is an orphan, and what is numbered has no gap."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from cellmeter_proxy.log import Log
from cellmeter_scoring.finding import Finding


class _Link(NamedTuple):
    """Rows that name a row of another table."""

    what: str
    parent: str
    table: str
    columns: tuple[str, ...]
    named: str
    named_columns: tuple[str, ...]


_CELL: Final = ("cell_id", "cell_attempt")
_LINKS: Final = (
    _Link("a try upstream", "its call", "attempts", ("call_id",), "calls", ("call_id",)),
    _Link("a call", "its cell", "calls", _CELL, "cells", ("cell_id", "attempt")),
    _Link("a span", "its cell", "spans", _CELL, "cells", ("cell_id", "attempt")),
    _Link("an artifact", "its cell", "artifacts", _CELL, "cells", ("cell_id", "attempt")),
    _Link("a score", "its cell", "scores", _CELL, "cells", ("cell_id", "attempt")),
    _Link("a connection", "its cell", "egress", _CELL, "cells", ("cell_id", "attempt")),
    _Link("a cell", "its sweep", "cells", ("sweep_id",), "sweeps", ("sweep_id",)),
    _Link("a span", "the span that it is part of", "spans", ("parent_id",), "spans", ("span_id",)),
    _Link("a call", "the call that it joined", "calls", ("attached_to",), "calls", ("call_id",)),
    _Link("an artifact", "its content", "artifacts", ("blob",), "blobs", ("digest",)),
    _Link("a call", "its request", "calls", ("request_blob",), "blobs", ("digest",)),
    _Link("a call", "its response", "calls", ("response_blob",), "blobs", ("digest",)),
    _Link("a call", "its timeline", "calls", ("timeline_blob",), "blobs", ("digest",)),
    _Link("a blob", "the blob that it is built from", "blobs", ("base",), "blobs", ("digest",)),
)


def orphans(log: Log) -> Iterator[Finding]:
    """Rows whose parent, or whose content, is not there."""
    for link in _LINKS:
        # A log of an older version has not all of the columns.
        if not set(link.columns) <= _columns(log, link.table):
            continue
        same = " AND ".join(
            f"parent.{theirs} = child.{ours}" for ours, theirs in zip(link.columns, link.named_columns, strict=True)
        )
        if link.named == "blobs":  # whose index has a dozen digits of each digest
            same += f" AND substr(parent.digest, 8, 12) = substr(child.{link.columns[0]}, 8, 12)"
        first = link.columns[0]
        missing = (
            f"SELECT DISTINCT child.{first} FROM {link.table} AS child WHERE child.{first} IS NOT NULL"
            f" AND NOT EXISTS (SELECT 1 FROM {link.named} AS parent WHERE {same})"
        )
        ids = [str(row[0]) for row in log.conn.execute(missing)]
        if ids:
            yield Finding(kind="orphan", message=f"{link.what} without {link.parent} in the log", ids=ids)


def missing_evidence(log: Log) -> Iterator[Finding]:
    """Cells whose failure class stands on calls that are not there."""
    cells = (
        "SELECT DISTINCT cell_id FROM cells, json_each(cells.evidence)"
        " WHERE json_each.value NOT IN (SELECT call_id FROM calls)"
    )
    ids = [str(row[0]) for row in log.conn.execute(cells)]
    if ids:
        message = "a cell without a call in the log that is to prove its failure class"
        yield Finding(kind="orphan", message=message, ids=ids)


def sequences(log: Log) -> Iterator[Finding]:
    """Calls of a session, and tries of a call, are numbered from 1 on without a gap."""
    for table, column, number, what in (
        ("calls", "session", "seq", "session {!r} has {} calls, numbered from {} to {}"),
        ("attempts", "call_id", "n", "call {!r} has {} tries upstream, numbered from {} to {}"),
    ):
        counted = (
            f"SELECT {column}, count(*), count(DISTINCT {number}), min({number}), max({number})"
            f" FROM {table} GROUP BY {column}"
        )
        for name, rows, places, first, last in log.conn.execute(counted):
            if (rows, first, last) != (places, 1, rows):
                message = what.format(name, rows, first, last)
                yield Finding(kind="sequence gap", message=message, ids=[str(name)])


def order(log: Log) -> Iterator[Finding]:
    """Tries upstream are made while their call is under way."""
    tries = (
        "SELECT DISTINCT call_id FROM attempts JOIN calls USING (call_id)"
        " WHERE attempts.started_at < calls.started_at OR attempts.started_at > calls.ended_at"
    )
    for (call_id,) in log.conn.execute(tries):
        message = "a try upstream starts before its call, or after its end"
        yield Finding(kind="impossible time", message=message, ids=[str(call_id)])


def _columns(log: Log, table: str) -> set[str]:
    return {str(row[1]) for row in log.conn.execute(f"PRAGMA table_info({table})")}
