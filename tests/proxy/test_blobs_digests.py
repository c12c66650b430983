"""Digests in half of their room: nothing is lost, and what is none stays as it is."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.blobs.digests import UNPACKED, packed
from cellmeter_proxy.log import Log, digest_of, make_content

DIGEST = digest_of(b"content")


@pytest.mark.parametrize(
    ("digest", "kept"),
    [
        (DIGEST, bytes.fromhex(DIGEST[7:])),
        ("", None),
        ("sha256:00", "sha256:00"),
        (DIGEST.upper(), DIGEST.upper()),
        ("sha256:" + DIGEST[7:].upper(), "sha256:" + DIGEST[7:].upper()),
        ("sha256:" + " " * 62 + "00", "sha256:" + " " * 62 + "00"),
        ("sha512:" + DIGEST[7:], "sha512:" + DIGEST[7:]),
        ("sha256:" + "x" * 64, "sha256:" + "x" * 64),
    ],
)
def test_only_what_is_exactly_a_digest_is_packed(digest: str, kept: bytes | str | None) -> None:
    assert packed(digest) == kept


@given(st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}") | st.text(max_size=80))
def test_the_log_gives_every_digest_back_as_it_was(digest: str) -> None:
    text = digest.encode("utf-8", "replace").decode().replace("\x00", "")
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE blobs (sha256 BLOB)")
        conn.execute("INSERT INTO blobs VALUES (?)", (packed(text),))
        assert conn.execute(f"SELECT {UNPACKED} FROM blobs").fetchone() == (text,)


def test_a_digest_takes_half_of_its_characters_and_any_tool_reads_it(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.db") as log:
        log.keep(make_content(b"content"), "s")
    with closing(sqlite3.connect(tmp_path / "a.db")) as conn:
        assert conn.execute("SELECT digest, length(sha256) FROM blobs").fetchall() == [(DIGEST, 32)]


@pytest.mark.parametrize("version", [6, 7])
def test_content_is_found_by_the_index_whichever_way_the_log_has_its_digests(tmp_path: Path, version: int) -> None:
    with Log.create(tmp_path / "a.db") as log:
        if version == 6:
            log.conn.execute("DROP TABLE blobs")
            log.conn.execute(
                "CREATE TABLE blobs (at INTEGER PRIMARY KEY, digest TEXT, size INTEGER, codec TEXT, data BLOB,"
                " strand INTEGER, place INTEGER)"
            )
            log.conn.execute("CREATE INDEX idx_blobs_digest ON blobs (substr(digest, 8, 12))")
    asked: list[str] = []
    with Log.read(tmp_path / "a.db") as log:
        log.conn.set_trace_callback(asked.append)
        assert not log.has_blob(DIGEST)
        log.conn.set_trace_callback(None)
        plan = [str(row[3]) for row in log.conn.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]
    assert plan == ["SEARCH blobs USING INDEX idx_blobs_digest (<expr>=?)"]
