"""The SQL of the log's rows, and the way their values go into it and come out.

Invariant: the texts of statements are constant, so that SQLite prepares each of them once.
"""

import sqlite3
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec

from cellmeter_proxy.record import BlobRow, Call, Record
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


class Statements:
    """Those of one row type, in a log of today's version or an older one."""

    def __init__(self, row: type[Record], conn: sqlite3.Connection) -> None:
        there, source = _shape(conn, row)
        self._row = row
        self.there = there
        self._names = list(columns(row))
        self._json = json_columns(row)
        self._places = [place for place, name in enumerate(self._names) if name in self._json]
        self._values: Callable[[Record], tuple[Any, ...]] = attrgetter(*self._names)
        listed = ", ".join(f'"{name}"' for name in self._names)
        table = TABLES[row]
        # A log of an older version lacks the columns that came later: nothing was measured for them.
        found = ", ".join(f'"{name}"' if name in there else "NULL" for name in self._names)
        self.select = f"SELECT {found} FROM {source or table}"
        into = f"INTO {table} ({listed}) VALUES ({', '.join('?' * len(self._names))})"
        self.insert = f"INSERT {into}"
        self.replace = f"INSERT OR REPLACE {into}"

    def encode(self, record: Record) -> tuple[Any, ...]:
        values = self._values(record)
        if not self._places:
            return values
        encoded = list(values)
        for place in self._places:
            if values[place] is not None:
                encoded[place] = msgspec.json.encode(values[place]).decode()
        return tuple(encoded)

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
        first, last = (*_AT_BOTH, *AT_OPENING), (*_AT_BOTH, *at_closing)
        self.open = f"INSERT INTO calls ({', '.join(first)}) VALUES ({', '.join('?' * len(first))})"
        self.close = f"UPDATE calls SET {', '.join(f'{name} = ?' for name in last)} WHERE call_id = ?"
        self._first: Callable[[Call], tuple[Any, ...]] = attrgetter(*first)
        self._last: Callable[[Call], tuple[Any, ...]] = attrgetter(*last, "call_id")
        self._at_closing: Callable[[Call], tuple[Any, ...]] = attrgetter(*at_closing)
        self._tools = first.index("provider_tools")

    def opening(self, call: Call) -> tuple[Any, ...] | None:
        """The values for ``open``, or None where more is known of the call than when it is opened."""
        later = self._at_closing(call)
        if later.count(None) < len(later):
            return None
        values = self._first(call)
        if call.provider_tools is None:
            return values
        tools = msgspec.json.encode(call.provider_tools).decode()
        return (*values[: self._tools], tools, *values[self._tools + 1 :])

    def closing(self, call: Call) -> tuple[Any, ...]:
        """The values for ``close``."""
        return self._last(call)


def _shape(conn: sqlite3.Connection, row: type[Record]) -> tuple[frozenset[str], str | None]:
    """The columns that a log has of a row type, and where it has them, if not in a table alone."""
    there = frozenset(str(column[1]) for column in conn.execute(f"PRAGMA table_xinfo({TABLES[row]})"))
    return there, _VERSION_5 if row is BlobRow and "strand" in there and "at" not in there else None
