"""What every test may use: where there is no program a test needs, it is skipped with that reason.

Where ``CELLMETER_NO_SKIP`` is set (``.ci/run`` sets it, having installed everything), it fails instead.

Every test may run beside any other: its files are in a directory of its own, its ports are those that the system gives,
and what it says of time holds on a busy machine.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# How long an example takes says something about the machine, which may be busy. CI tries the same examples each time:
# its word is to be about the change. Who runs the tests by hand goes on looking for others.
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CELLMETER_NO_SKIP")),
)
settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more process than there are processors: half of the suite's time is waiting."""
    return 1 + (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn every skip into a failure where nothing may be skipped, whichever mark or call it comes from."""
    return _without_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip themselves whole."""
    return _without_skip((yield))


def _without_skip(report: Report) -> Report:
    if report.skipped and os.environ.get("CELLMETER_NO_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped here: {report.longrepr}"
    return report


@pytest.fixture
def need() -> Callable[..., str]:
    """A function that gives the path of a program, or ends the test where there is none."""

    def find(program: str, variable: str | None = None) -> str:
        path = os.environ.get(variable) if variable else None
        path = path or shutil.which(program)
        if path is None or not Path(path).exists():
            reason = f"needs the program {program}" + (f" (or ${variable})" if variable else "")
            pytest.skip(reason)
        return path

    return find


_RELEASED: Final = (
    (Path(__file__).parent / "data" / "log_v1.sql").read_text(encoding="utf-8"),
    """
    ALTER TABLE "calls" ADD COLUMN "message_count" INTEGER;
    INSERT INTO "_sqlite_migrations" VALUES (2, 'cellmeter', 'm002_message_count', '2025-11-21 01:00:00+00:00');
    UPDATE "meta" SET "value" = '2' WHERE "key" = 'schema_version';
    UPDATE "calls" SET "message_count" = 2;
    """,
    """
    ALTER TABLE "calls" ADD COLUMN "attached_to" TEXT;
    INSERT INTO "_sqlite_migrations" VALUES (3, 'cellmeter', 'm003_attached_to', '2025-11-22 01:00:00+00:00');
    UPDATE "meta" SET "value" = '3' WHERE "key" = 'schema_version';
    """,
    """
    ALTER TABLE "calls" ADD COLUMN "provider_tools" TEXT;
    INSERT INTO "_sqlite_migrations" VALUES (4, 'cellmeter', 'm004_provider_tools', '2025-11-23 01:00:00+00:00');
    UPDATE "meta" SET "value" = '4' WHERE "key" = 'schema_version';
    UPDATE "calls" SET "provider_tools" = '[]';
    """,
    """
    ALTER TABLE "blobs" ADD COLUMN "strand" INTEGER;
    ALTER TABLE "blobs" ADD COLUMN "place" INTEGER;
    CREATE TABLE "pieces" ("strand" INTEGER, "place" INTEGER, "data" BLOB);
    CREATE UNIQUE INDEX "idx_pieces_strand_place" ON "pieces" ("strand", "place");
    INSERT INTO "_sqlite_migrations" VALUES (5, 'cellmeter', 'm005_strands', '2025-11-24 01:00:00+00:00');
    UPDATE "meta" SET "value" = '5' WHERE "key" = 'schema_version';
    INSERT INTO "pieces" VALUES
        (18838586676582, 0, x'28B52FFD0050B800000073616964206265666F72652C20656C73657768657265'),
        (18838586676582, 1, x'B40200D2C5121790296D9D0A5B0A90DD6CA3FCB688F75F9DAD79EAEE441487705CEC81AEE68807\
CC1529C7C5E20D2334BA314252E0F2E217B3E0E2FB6A425DFE91C6C9A0AC374CF5E7E273F9B821CF09200200511D5266A1CC'),
        (18838586676582, 2, x'8400004801010001000071207D010028A88E0B');
    UPDATE "blobs" SET "codec" = 'strand', "data" = NULL, "strand" = 18838586676582, "place" = 1
        WHERE "digest" = 'sha256:6966aa0b0c68eb9de765a1fa5c4cf4ccddd6b75663e87bb4f8cce2141f22c1a9';
    INSERT INTO "blobs" ("digest", "size", "codec", "strand", "place") VALUES
        ('sha256:ec43a0fc0e6d5d4ddb2d7e50047a137992b7723fdf81a41072c265e6ea581edd', 414, 'strand', 18838586676582, 2);
    """,
    """
    ALTER TABLE "blobs" RENAME TO "blobs_before";
    CREATE TABLE "blobs" ("at" INTEGER PRIMARY KEY, "digest" TEXT, "size" INTEGER, "codec" TEXT, "base" TEXT,
        "data" BLOB, "strand" INTEGER GENERATED ALWAYS AS (CASE WHEN "at" >= 0 THEN "at" >> 8 END) VIRTUAL,
        "place" INTEGER GENERATED ALWAYS AS (CASE WHEN "at" >= 0 THEN "at" & 255 END) VIRTUAL);
    CREATE INDEX "idx_blobs_digest" ON "blobs" (substr("digest", 8, 12));
    INSERT INTO "blobs" ("at", "digest", "size", "codec", "base", "data")
        SELECT rowid - (1 << 62), "digest", "size", "codec", "base", "data" FROM "blobs_before" WHERE "strand" IS NULL;
    INSERT INTO "blobs" ("at", "digest", "size", "codec", "data")
        SELECT "strand" << 8 | "place", coalesce("digest", ''), coalesce("size", 0), 'strand', "pieces"."data"
        FROM "pieces" LEFT JOIN "blobs_before" USING ("strand", "place");
    DROP TABLE "blobs_before";
    DROP TABLE "pieces";
    DROP INDEX idx_calls_state;
    CREATE INDEX idx_calls_open ON calls (writer) WHERE state = 'open';
    DROP INDEX idx_calls_cell_id_cell_attempt;
    CREATE INDEX idx_calls_cell_id_cell_attempt ON calls (cell_id, cell_attempt) WHERE cell_id IS NOT NULL;
    DROP INDEX idx_calls_session_prefix_hash;
    CREATE INDEX idx_calls_session_prefix_hash ON calls (session, substr(prefix_hash, -12))
        WHERE prefix_hash IS NOT NULL;
    INSERT INTO "_sqlite_migrations"
        VALUES (6, 'cellmeter', 'm006_one_row_for_a_body', '2025-11-25 01:00:00+00:00');
    UPDATE "meta" SET "value" = '6' WHERE "key" = 'schema_version';
    """,
)
"""What each version of the schema was written with, literally: the rows of the first, what was new in the others."""


@pytest.fixture
def old_log(tmp_path: Path) -> Callable[[int], Path]:
    """A function that writes a log as an older version of the schema had it, and gives its path."""

    def write(version: int) -> Path:
        path = tmp_path / f"version{version}.db"
        with closing(sqlite3.connect(path)) as conn:
            conn.execute("PRAGMA journal_mode=WAL")
            for script in _RELEASED[:version]:
                conn.executescript(script)
        return path

    return write
