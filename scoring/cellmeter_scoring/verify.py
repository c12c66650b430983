"""Whether a log is what it says it is: every digest derived again, every row where it belongs.

Invariant: read-only, and every finding is a contradiction within the log, never a fault of an agent or a provider. A
damaged file gives findings, not exceptions. A log that is being recorded is looked at as it is at one moment.
"""

import functools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from cellmeter_proxy.log import Log, writer_is_alive
from cellmeter_proxy.record import Artifact, BlobRow, Call, Record, now_us
from cellmeter_proxy.schema import SCHEMA_VERSION, TABLES, columns
from cellmeter_scoring.finding import Finding
from cellmeter_scoring.soundness.content import artifact_findings, blob_findings, call_findings
from cellmeter_scoring.soundness.links import missing_evidence, order, orphans, sequences
from cellmeter_scoring.soundness.rows import row_findings

_UNREADABLE: Final = (sqlite3.Error, msgspec.MsgspecError, UnicodeError)


def verify(log: Log | Path | str) -> list[Finding]:
    """Everything in a log that contradicts itself; nothing where it is sound.

    Raises:
        CellmeterError: there is no such log, it is not a log, or a newer cellmeter wrote it.

    """
    if not isinstance(log, Log):
        with Log.read(log) as reading:
            return verify(reading)
    findings: list[Finding] = []
    with _one_moment(log):
        for check in _CHECKS:
            try:
                findings.extend(check(log))
            except _UNREADABLE as error:
                findings.append(Finding(kind="unreadable", message=f"a table cannot be read: {error}"))
    return findings


@contextmanager
def _one_moment(log: Log) -> Iterator[None]:
    if log.conn.in_transaction:
        yield
        return
    log.conn.execute("BEGIN")
    try:
        yield
    finally:
        log.conn.execute("ROLLBACK")


def _file(log: Log) -> Iterator[Finding]:
    try:
        said = [str(row[0]) for row in log.conn.execute("PRAGMA integrity_check(20)")]
    except sqlite3.Error as error:
        said = [str(error)]
    for one in said:
        if one != "ok":
            yield Finding(kind="file", message=f"the file is damaged: {one}")


def _schema(log: Log) -> Iterator[Finding]:
    version = log.meta("schema_version")
    if version is None:
        yield Finding(kind="schema", message="the log does not say which version its schema is")
    if version != str(SCHEMA_VERSION):
        return
    for type_, table in TABLES.items():
        there = {str(row[1]) for row in log.conn.execute(f"PRAGMA table_xinfo({table})")}
        lacking = sorted(set(columns(type_)) - there)
        if lacking:
            message = f"the table {table} lacks {', '.join(lacking)}, which version {version} has"
            yield Finding(kind="schema", message=message)


def _rows(log: Log) -> Iterator[Finding]:
    """Every row by itself, and against the content that it names. One that cannot be read hides no other."""
    alive = functools.cache(writer_is_alive)
    now = now_us()
    for type_ in TABLES:
        if type_ is BlobRow or log.lacks(type_):
            continue
        try:
            for row in _readable(log, type_):
                if isinstance(row, Finding):
                    yield row
                    continue
                yield from row_findings(row, now, alive)
                if isinstance(row, Call):
                    yield from call_findings(log, row)
                elif isinstance(row, Artifact):
                    yield from artifact_findings(log, row)
        except _UNREADABLE as error:
            yield Finding(kind="unreadable", message=f"the table {TABLES[type_]} cannot be read: {error}")


def _readable(log: Log, type_: type[Record]) -> Iterator[Record | Finding]:
    """The rows of a table, and a finding in the place of each that cannot be read."""
    # The bodies of a session are stored together, and cost least when they are read one after another.
    order = "session, seq" if type_ is Call else "rowid"
    for (number,) in log.conn.execute(f"SELECT rowid FROM {TABLES[type_]} ORDER BY {order}"):
        try:
            yield from log.rows(type_, "rowid = ?", (number,))
        except _UNREADABLE as error:
            message = f"row {number} of the table {TABLES[type_]} cannot be read: {error}"
            yield Finding(kind="unreadable", message=message)


_CHECKS: Final[tuple[Callable[[Log], Iterator[Finding]], ...]] = (
    _file,
    _schema,
    blob_findings,
    _rows,
    sequences,
    orphans,
    missing_evidence,
    order,
)
