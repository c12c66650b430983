"""The SQL of the log's rows, and the way their values go into it and come out.

Invariant: the texts of statements are few, so that SQLite prepares each of them once.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final

import msgspec

from cellmeter_proxy.record import Attempt, BlobRow, Call, Record
from cellmeter_proxy.schema import TABLES, columns, json_columns

AT_OPENING: Final = (
    *("call_id", "session", "seq", "cell_id", "cell_attempt", "writer", "via", "method", "endpoint", "dialect"),
    *("upstream", "request_model", "stream", "body_hash", "request_hash", "prefix_hash", "message_count"),
    *("new_messages", "provider_tools", "request_bytes", "request_blob", "request_encoding", "started_at"),
    *("retry_number", "user_agent", "client_session"),
)
"""The columns of a call that are known when its row is opened and never change: all that is indexed, but the state."""
_AT_BOTH: Final = ("state", "usage_source", "sent_hash", "redactions")
_VERSION_5: Final = """(
    SELECT coalesce(strand << 8 | place, blobs.rowid - (1 << 62)) AS rowid,
        digest, size, codec, base, strand, place, coalesce(pieces.data, blobs.data) AS data
    FROM blobs LEFT JOIN pieces USING (strand, place)
    UNION ALL SELECT strand << 8 | place, '', 0, 'strand', NULL, strand, place, data FROM pieces
    WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.strand = pieces.strand AND blobs.place = pieces.place))"""
"""The rows of ``blobs`` in a log of version 5, which had what they added to their strands in another table."""


_SELDOM: Final[dict[type[Record], tuple[tuple[str, ...], ...]]] = {
    Call: (
        ("cell_id", "cell_attempt"),
        ("timeline_blob", "ttft_ms", "max_gap_ms", "frames"),
        ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens"),
        ("estimated_prompt_tokens", "estimated_completion_tokens", "estimate_method"),
        ("cost", "price_source"),
        (
            *("sent_hash", "request_encoding", "response_encoding", "client_gone_at", "queue_ms", "attached_to"),
            *("retry_number", "client_session", "error"),
        ),
    ),
    Attempt: (("retry_after_ms", "ratelimit", "waited_ms", "error"), ("request_id",)),
}
"""Columns of a row that are often null all together."""

Values = tuple[Any, ...]


class Columns:
    """How the values of some columns go into a statement: those that are seldom set only where one of them is.

    A row is half nulls, and to bind one takes Python's sqlite3 longer than a number or a text, which it need not adapt.

    Args:
        row: the type.
        names: of the columns, all of which are in the statement.
        write: the text of a statement, given the names that have values and those that are null.

    """

    def __init__(
        self, row: type[Record], names: Sequence[str], write: Callable[[Sequence[str], Sequence[str]], str]
    ) -> None:
        groups = [tuple(name for name in group if name in names) for group in _SELDOM.get(row, ())]
        self._groups = [group for group in groups if len(group) > 1]
        self._seldom = [(1 << at, attrgetter(*group)) for at, group in enumerate(self._groups)]
        self._names = [name for name in names if not any(name in group for group in self._groups)]
        self._always: Callable[[Record], Values] = attrgetter(*self._names)
        structured = json_columns(row)
        self._json = [at for at, name in enumerate(self._names) if name in structured]
        self._write = write
        self._texts: dict[int, str] = {}

    def of(self, record: Record) -> tuple[str, Values]:
        """A statement for a row, and its values; those of ``names`` that are always set come last."""
        always = self._always(record)
        if self._json:
            always = self._encoded(always)
        seldom: Values = ()
        which = 0
        for bit, get in self._seldom:
            values = get(record)
            if values.count(None) < len(values):
                which |= bit
                seldom += values
        text = self._texts.get(which)
        if text is None:
            text = self._texts[which] = self._text(which)
        return text, seldom + always

    def _encoded(self, values: Values) -> Values:
        encoded = list(values)
        for at in self._json:
            if values[at] is not None:
                encoded[at] = msgspec.json.encode(values[at]).decode()
        return tuple(encoded)

    def _text(self, which: int) -> str:
        there = [name for at, group in enumerate(self._groups) if which >> at & 1 for name in group]
        null = [name for at, group in enumerate(self._groups) if not which >> at & 1 for name in group]
        return self._write([*there, *self._names], null)


class Statements:
    """Those of one row type, in a log of today's version or an older one."""

    def __init__(self, row: type[Record], conn: sqlite3.Connection) -> None:
        there, source = _shape(conn, row)
        self._row = row
        self.there = there
        self._names = list(columns(row))
        self._json = json_columns(row)
        # A log of an older version lacks the columns that came later: nothing was measured for them.
        found = ", ".join(f'"{name}"' if name in there else "NULL" for name in self._names)
        self.select = f"SELECT {found} FROM {source or TABLES[row]}"
        self.insert = Columns(row, self._names, partial(_insert, "INSERT", TABLES[row])).of
        self.replace = Columns(row, self._names, partial(_insert, "INSERT OR REPLACE", TABLES[row])).of

    def decode(self, row: Sequence[Any]) -> Any:
        values = {
            name: msgspec.json.decode(value) if name in self._json and value is not None else value
            for name, value in zip(self._names, row, strict=True)
        }
        return msgspec.convert(values, self._row, strict=False)


class CallRows:
    """How a call is written twice, each time no more of it than is new: its row is wide, and some indexes are large."""

    def __init__(self) -> None:
        at_closing = [name for name in Call.__struct_fields__ if name not in (*AT_OPENING, *_AT_BOTH)]
        self._open = Columns(Call, (*_AT_BOTH, *AT_OPENING), partial(_insert, "INSERT", "calls"))
        self.close = Columns(Call, (*_AT_BOTH, *at_closing, "call_id"), _close).of
        self._at_closing: Callable[[Call], Values] = attrgetter(*at_closing)

    def open(self, call: Call) -> tuple[str, Values] | None:
        """None where more is known of the call than when it is opened."""
        later = self._at_closing(call)
        return self._open.of(call) if later.count(None) == len(later) else None


def _insert(verb: str, table: str, names: Sequence[str], _: Sequence[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"{verb} INTO {table} ({listed}) VALUES ({', '.join('?' * len(names))})"


def _close(names: Sequence[str], null: Sequence[str]) -> str:
    *others, key = names
    changes = [*(f"{name} = ?" for name in others), *(f"{name} = NULL" for name in null)]
    return f"UPDATE calls SET {', '.join(changes)} WHERE {key} = ?"


def _shape(conn: sqlite3.Connection, row: type[Record]) -> tuple[frozenset[str], str | None]:
    """The columns that a log has of a row type, and where it has them, if not in a table alone."""
    there = frozenset(str(column[1]) for column in conn.execute(f"PRAGMA table_xinfo({TABLES[row]})"))
    return there, _VERSION_5 if row is BlobRow and "strand" in there and "at" not in there else None
