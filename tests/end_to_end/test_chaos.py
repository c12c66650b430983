"""Everything goes wrong at once, for most of a minute, and nothing is lost: ``benchmarks/chaos`` as CI runs it.

The run leaves its evidence, and the same command judges it again; so the judge is shown logs that were tampered with.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

CHAOS: Final = Path(__file__).parents[2] / "benchmarks" / "chaos"
SECONDS: Final = 45
# One seed for all: what is done is the same every time, what comes of it is not.
SEED: Final = 20261120


def chaos(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, report and talk of the command."""
    done = subprocess.run(
        [sys.executable, str(CHAOS), "--format", "json", *arguments],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("chaos")
    code, report, _ = chaos("--seconds", str(SECONDS), "--seed", str(SEED), "--keep", str(directory))
    return directory, code, report


@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_left_open(evidence: tuple[Path, int, dict[str, Any]]) -> None:
    _, code, report = evidence
    assert report["findings"] == []
    assert {key: report[key] for key in ("lost", "doubled", "open", "lost_bills")} == {
        "lost": 0, "doubled": 0, "open": 0, "lost_bills": 0,
    }  # fmt: skip
    assert code == 0


def test_there_was_trouble_of_every_kind_and_work_was_done(evidence: tuple[Path, int, dict[str, Any]]) -> None:
    _, _, report = evidence
    assert set(report["troubles"]) == {"kill -9", "kill -9 twice", "SIGTERM", "disk full", "lock", "429 storm"}
    assert report["completed"] > 200
    assert min(report["refused"], report["broken"], report["left"], report["rows"]["interrupted"]) > 0


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("DELETE FROM calls WHERE call_id = ?", "lost"),
        ("UPDATE calls SET state = 'interrupted' WHERE call_id = ?", "lost"),
        ("UPDATE calls SET response_blob = (SELECT min(digest) FROM blobs) WHERE call_id = ?", "lost"),
        ("UPDATE calls SET state = 'open' WHERE call_id = ?", "open"),
    ],
)
def test_the_judge_sees_a_log_that_lacks_one_answer(
    tmp_path: Path, evidence: tuple[Path, int, dict[str, Any]], sql: str, found: str
) -> None:
    directory, _, before = evidence
    copy = shutil.copytree(directory, tmp_path / "evidence")
    held = next(
        one
        for one in map(json.loads, (copy / "sent.jsonl").read_text().splitlines())
        if one["ended"] and one["own"] is None and one["status"] == 200
    )
    log = sqlite3.connect(copy / "calls.db")
    (row,) = log.execute(
        "SELECT call_id FROM calls WHERE body_hash = ? AND state = 'closed'", (held["request_hash"],)
    ).fetchall()
    log.execute(sql, row)
    log.commit()
    log.close()
    code, report, _ = chaos("--judge", str(copy))
    assert (code, report[found]) == (1, before[found] + 1)


def test_the_judge_sees_a_row_too_many(tmp_path: Path, evidence: tuple[Path, int, dict[str, Any]]) -> None:
    directory, _, _ = evidence
    copy = shutil.copytree(directory, tmp_path / "evidence")
    log = sqlite3.connect(copy / "calls.db")
    log.execute("CREATE TABLE twin AS SELECT * FROM calls WHERE body_hash IS NOT NULL LIMIT 1")
    log.execute("UPDATE twin SET call_id = 'twin', seq = 1 + (SELECT max(seq) FROM calls)")
    log.execute("INSERT INTO calls SELECT * FROM twin")
    log.commit()
    log.close()
    code, report, _ = chaos("--judge", str(copy))
    assert (code, report["doubled"]) == (1, 1)
