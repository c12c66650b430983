"""Calls as JSON lines and as CSV, in the order in which they were made."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.redact import Redactor
from cellmeter_scoring.audit import AuditedCall, audit
from cellmeter_scoring.export.bodies import request_text, response_text


class CallWithBodies(AuditedCall, frozen=True, kw_only=True):
    """A call, column for column, with its attempts and its bodies."""

    request_text: str | None
    response_text: str | None


def to_jsonl(log: Log, cell: str | None = None, session: str | None = None, *, bodies: bool = False) -> Iterator[str]:
    """One call per line, with every column, its operation and its attempts.

    Args:
        log: an open log.
        cell: only the calls of this cell.
        session: only the calls of this session.
        bodies: with ``request_text`` and ``response_text``, decoded, and redacted as they are stored.

    Raises:
        CellmeterError: nothing of that name is in the log.

    """
    redactor = Redactor()
    for call in audit(log, cell, session).calls:
        row = _with_bodies(log, call) if bodies else call
        yield redactor.bytes(msgspec.json.encode(row))[0].decode() + "\n"


def to_csv(log: Log, cell: str | None = None, session: str | None = None) -> Iterator[str]:
    """One call per line under a line of column names; ``attempts`` is their number, and empty is not measured.

    Args:
        log: an open log.
        cell: only the calls of this cell.
        session: only the calls of this session.

    Raises:
        CellmeterError: nothing of that name is in the log.

    """
    redactor = Redactor()
    calls = audit(log, cell, session).calls
    names = [*Call.__struct_fields__, "operation_id", "retry_of", "attempts"]
    yield _csv_line(names)
    for call in calls:
        values = {**msgspec.structs.asdict(call), "attempts": len(call.attempts)}
        yield redactor.text(_csv_line([values[name] for name in names]))[0]


def _with_bodies(log: Log, call: AuditedCall) -> CallWithBodies:
    return CallWithBodies(
        **msgspec.structs.asdict(call), request_text=request_text(log, call), response_text=response_text(log, call)
    )


def _csv_line(values: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
