"""The tables of the captured log, derived from the row types and created as numbered migrations.

Invariant: a released migration never changes. A new version adds one, and ``SCHEMA_VERSION`` follows.
"""

import types
from typing import Final, Literal, Union, cast, get_args, get_origin, get_type_hints

from sqlite_utils import Database
from sqlite_utils.db import Table
from sqlite_utils.migrations import Migrations

from cellmeter_proxy.blobs.digests import UNPACKED, packed
from cellmeter_proxy.record import (
    Artifact,
    Attempt,
    BlobRow,
    Call,
    Cell,
    Egress,
    Record,
    ScoreRow,
    Span,
    Sweep,
)

SCHEMA_VERSION: Final = 7

TABLES: Final[dict[type[Record], str]] = {
    Sweep: "sweeps",
    Cell: "cells",
    Call: "calls",
    Attempt: "attempts",
    BlobRow: "blobs",
    Span: "spans",
    Artifact: "artifacts",
    Egress: "egress",
    ScoreRow: "scores",
}

SqlType = type[int] | type[float] | type[str] | type[bytes]


def columns(row: type[Record]) -> dict[str, SqlType]:
    """The columns of a row type with their SQL types; anything structured is JSON text."""
    return {name: _sql_type(hint) for name, hint in get_type_hints(row).items()}


def json_columns(row: type[Record]) -> frozenset[str]:
    """The columns of a row type that hold JSON text of a structured value."""
    return frozenset(name for name, hint in get_type_hints(row).items() if _is_structured(hint))


def _plain(hint: object) -> object:
    """The type itself, where None is allowed beside it."""
    if get_origin(hint) in {Union, types.UnionType}:
        return next(arg for arg in get_args(hint) if arg is not type(None))
    return hint


def _is_structured(hint: object) -> bool:
    plain = _plain(hint)
    if get_origin(plain) is Literal:
        return False
    return get_origin(plain) in {list, dict} or (isinstance(plain, type) and issubclass(plain, Record))


def _sql_type(hint: object) -> SqlType:
    plain = _plain(hint)
    if plain in {int, bool}:
        return int
    if plain is float:
        return float
    if plain is bytes:
        return bytes
    return str


def migrate(db: Database) -> None:
    """Bring a new or older log to ``SCHEMA_VERSION``, within the caller's transaction if there is one.

    Does nothing where it is there already.
    """
    set_ = Migrations("cellmeter")
    steps = (
        *(_m001_first, _m002_message_count, _m003_attached_to, _m004_provider_tools, _m005_strands),
        *(_m006_one_row_for_a_body, _m007_binary_digests),
    )
    for step in steps:
        set_(name=step.__name__.lstrip("_"))(step)
    set_.apply(db)


def _create(
    db: Database, row: type[Record], pk: str | tuple[str, ...] | None, *, without: frozenset[str] = frozenset()
) -> Table:
    table = cast("Table", db[TABLES[row]])
    now = {name: type_ for name, type_ in columns(row).items() if name not in without}
    if pk is None:
        table.create(now)
    else:
        table.create(now, pk=pk)
    return table


def _m001_first(db: Database) -> None:
    cast("Table", db["meta"]).create({"key": str, "value": str}, pk="key")
    _create(db, Sweep, "sweep_id")
    _create(db, Cell, ("cell_id", "attempt"))
    later = frozenset({"message_count", "attached_to", "provider_tools"})
    calls = _create(db, Call, "call_id", without=later)
    calls.create_index(["session", "seq"], unique=True)
    calls.create_index(["cell_id", "cell_attempt"])
    calls.create_index(["state"])
    calls.create_index(["session", "prefix_hash"])
    _create(db, Attempt, ("call_id", "n"))
    _create(db, BlobRow, "digest", without=frozenset({"strand", "place"}))
    _create(db, Span, "span_id").create_index(["cell_id", "cell_attempt"])
    _create(db, Artifact, ("cell_id", "cell_attempt", "name"))
    _create(db, Egress, None)
    _create(db, ScoreRow, None).create_index(["cell_id", "methodology"])


def _m002_message_count(db: Database) -> None:
    cast("Table", db["calls"]).add_column("message_count", int)


def _m003_attached_to(db: Database) -> None:
    cast("Table", db["calls"]).add_column("attached_to", str)


def _m004_provider_tools(db: Database) -> None:
    cast("Table", db["calls"]).add_column("provider_tools", str)


def _m005_strands(db: Database) -> None:
    blobs = cast("Table", db["blobs"])
    blobs.add_column("strand", int)
    blobs.add_column("place", int)
    pieces = cast("Table", db["pieces"])
    # No primary key: such an index would repeat what this one has.
    pieces.create({"strand": int, "place": int, "data": bytes})
    pieces.create_index(["strand", "place"], unique=True)


def _m006_one_row_for_a_body(db: Database) -> None:
    """What a body added to its strand stands beside its digest; the indexes hold no more than finds a row."""
    for statement in (*_BLOBS, *_SMALLER_INDEXES):
        db.execute(statement)


def _m007_binary_digests(db: Database) -> None:
    """A digest is kept in half of its characters' room, and found by four of its bytes; a codec where it is unusual."""
    db.conn.create_function("packed", 1, packed, deterministic=True)
    for statement in (*_PACKED, *_NEAR_LINKS):
        db.execute(statement)


_OF_A_STRAND: Final = "CASE WHEN at >= 0 THEN at {} END"
_BLOBS: Final = (
    "ALTER TABLE blobs RENAME TO blobs_before",
    # The rows of a strand stand together, and need no other index; content by itself is counted from far below 0.
    f"""CREATE TABLE blobs (
        at INTEGER PRIMARY KEY, digest TEXT, size INTEGER, codec TEXT, base TEXT, data BLOB,
        strand INTEGER GENERATED ALWAYS AS ({_OF_A_STRAND.format(">> 8")}) VIRTUAL,
        place INTEGER GENERATED ALWAYS AS ({_OF_A_STRAND.format("& 255")}) VIRTUAL)""",
    "CREATE INDEX idx_blobs_digest ON blobs (substr(digest, 8, 12))",
    """INSERT INTO blobs (at, digest, size, codec, base, data)
        SELECT rowid - (1 << 62), digest, size, codec, base, data FROM blobs_before
        WHERE strand IS NULL OR place IS NULL""",
    """INSERT INTO blobs (at, digest, size, codec, base, data)
        SELECT strand << 8 | place, coalesce(digest, ''), coalesce(size, 0), 'strand', base, pieces.data
        FROM pieces LEFT JOIN blobs_before USING (strand, place)""",
    # Of a damaged log: a body whose piece was lost.
    """INSERT OR IGNORE INTO blobs (at, digest, size, codec, base)
        SELECT strand << 8 | place, digest, size, codec, base FROM blobs_before
        WHERE strand IS NOT NULL AND place IS NOT NULL""",
    "DROP TABLE blobs_before",
    "DROP TABLE pieces",
)
_SMALLER_INDEXES: Final = (
    "DROP INDEX idx_calls_state",
    "CREATE INDEX idx_calls_open ON calls (writer) WHERE state = 'open'",
    "DROP INDEX idx_calls_cell_id_cell_attempt",
    "CREATE INDEX idx_calls_cell_id_cell_attempt ON calls (cell_id, cell_attempt) WHERE cell_id IS NOT NULL",
    "DROP INDEX idx_calls_session_prefix_hash",
    """CREATE INDEX idx_calls_session_prefix_hash ON calls (session, substr(prefix_hash, -12))
        WHERE prefix_hash IS NOT NULL""",
)
_USUAL: Final = "CASE WHEN at >= 0 THEN 'strand' ELSE 'zstd' END"
# What is none (of a damaged log) stays as it is, text that is no UTF-8 too, which no function of Python's can be given.
_IS_DIGEST: Final = f"""typeof(digest) = 'text' AND length(CAST(digest AS BLOB)) = 71
    AND digest GLOB 'sha256:{"[0-9a-f]" * 64}'"""
_PACKED: Final = (
    "ALTER TABLE blobs RENAME TO blobs_before",
    "DROP INDEX idx_blobs_digest",
    f"""CREATE TABLE blobs (
        at INTEGER PRIMARY KEY, sha256 BLOB, size INTEGER, data BLOB, base TEXT, coded TEXT,
        digest TEXT GENERATED ALWAYS AS ({UNPACKED}) VIRTUAL,
        codec TEXT GENERATED ALWAYS AS (coalesce(coded, {_USUAL})) VIRTUAL,
        strand INTEGER GENERATED ALWAYS AS ({_OF_A_STRAND.format(">> 8")}) VIRTUAL,
        place INTEGER GENERATED ALWAYS AS ({_OF_A_STRAND.format("& 255")}) VIRTUAL)""",
    f"""INSERT INTO blobs (at, sha256, size, data, base, coded)
        SELECT at, CASE WHEN {_IS_DIGEST} THEN packed(digest) ELSE nullif(digest, '') END, size, data, base,
            nullif(codec, {_USUAL}) FROM blobs_before ORDER BY at""",
    "DROP TABLE blobs_before",
    "CREATE INDEX idx_blobs_digest ON blobs (substr(sha256, 1, 4))",
)
_NEAR_LINKS: Final = (
    "DROP INDEX idx_calls_session_prefix_hash",
    # Those of calls that follow each other stand on a few pages, which a commit writes once for all of them.
    """CREATE INDEX idx_calls_session_prefix_hash ON calls (session, coalesce(seq, 0) >> 8, substr(prefix_hash, -6))
        WHERE prefix_hash IS NOT NULL""",
)
"""A digest or a link is found by a few of its digits, and compared as a whole."""
