"""The file of a log: what it takes to be opened, and what is refused and left alone."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cellmeter_proxy import logfile
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call

CALL = Call(call_id="1", session="s", seq=1, writer="h/1/1", started_at=5)
COUNT = "import sys; from cellmeter_proxy.log import Log; from cellmeter_proxy.record import Call\n"
COUNT += "with Log.read(sys.argv[1]) as log: print(len(list(log.rows(Call))))"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A directory with a log of one call and nothing beside it."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with Log.create(shelf / "a.db") as log:
        log.append(CALL)
    assert [path.name for path in shelf.iterdir()] == ["a.db"]
    return shelf


def read_where_nothing_can_be_written(need: Callable[..., str], path: Path) -> subprocess.CompletedProcess[str]:
    command = [need("bwrap"), "--ro-bind", "/", "/", sys.executable, "-c", COUNT, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_a_log_where_nothing_can_be_written_is_read(need: Callable[..., str], shelf: Path) -> None:
    done = read_where_nothing_can_be_written(need, shelf / "a.db")
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_what_a_writer_left_beside_a_log_is_not_passed_over(need: Callable[..., str], shelf: Path) -> None:
    """Half a log, read as if it were whole, would be worse than a sentence."""
    copy = shelf.parent / "copy"
    copy.mkdir()
    with Log.create(shelf / "a.db") as log:
        log.append(Call(call_id="2", session="s", seq=2, writer="h/1/1", started_at=6))
        for name in ("a.db", "a.db-wal"):
            (copy / name).write_bytes((shelf / name).read_bytes())
    assert (copy / "a.db-wal").stat().st_size > 0
    done = read_where_nothing_can_be_written(need, copy / "a.db")
    assert done.stdout == ""
    assert "cannot be opened" in done.stderr
    with Log.read(copy / "a.db") as log:
        assert len(list(log.rows(Call))) == 2


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_reading_leaves_a_log_and_its_directory_as_they_were(shelf: Path) -> None:
    before = contents(shelf)
    with Log.read(shelf / "a.db") as first, Log.read(shelf / "a.db") as second:
        assert [len(list(log.rows(Call))) for log in (first, second)] == [1, 1]
        first.close()
        assert len(list(second.rows(Call))) == 1
    assert contents(shelf) == before


def test_reading_moves_nothing_that_a_dead_writer_left(shelf: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with Log.create(shelf / "a.db") as log:
        log.append(Call(call_id="2", session="s", seq=2, writer="h/1/1", started_at=6))
        shutil.copytree(shelf, copy)
    (copy / "a.db-shm").unlink()
    before = contents(copy)
    with Log.read(copy / "a.db") as log:
        assert len(list(log.rows(Call))) == 2
    after = contents(copy)
    assert {name: after[name] for name in before} == before


def test_a_reader_that_goes_takes_nothing_from_a_writer_that_came_later(shelf: Path) -> None:
    with Log.read(shelf / "a.db") as reading, Log.create(shelf / "a.db") as writing:
        assert len(list(reading.rows(Call))) == 1
        writing.append(Call(call_id="2", session="s", seq=2, writer="h/1/1", started_at=6))
        reading.close()
        assert {"a.db", "a.db-wal", "a.db-shm"} == set(contents(shelf))
        writing.append(Call(call_id="3", session="s", seq=3, writer="h/1/1", started_at=7))
        with Log.read(shelf / "a.db") as again:
            assert len(list(again.rows(Call))) == 3


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("999", "newer cellmeter: its schema is version 999"),
        ("five", "version 'five', which no cellmeter wrote"),
        ("-1", "no cellmeter wrote"),
        ("9" * 5000, "no cellmeter wrote"),
        (b"\xff", "no cellmeter wrote"),
        (None, "no cellmeter wrote"),
    ],
)
@pytest.mark.parametrize("open_", [Log.read, Log.create])
def test_a_version_that_is_not_ours_is_refused_and_the_file_left_alone(
    shelf: Path, open_: Callable[[Path], Log], version: object, sentence: str
) -> None:
    with closing(sqlite3.connect(shelf / "a.db")) as conn, conn:
        conn.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (version,))
    before = (shelf / "a.db").read_bytes()
    with pytest.raises(CellmeterError, match=sentence):
        open_(shelf / "a.db")
    assert (shelf / "a.db").read_bytes() == before


@pytest.mark.parametrize("open_", [Log.read, Log.create])
def test_a_log_whose_first_page_is_damaged_is_refused(shelf: Path, open_: Callable[[Path], Log]) -> None:
    damaged = bytearray((shelf / "a.db").read_bytes())
    damaged[100:4096] = b"\xff" * 3996
    (shelf / "a.db").write_bytes(damaged)
    with pytest.raises(CellmeterError, match=r"a\.db is damaged"):
        open_(shelf / "a.db")


def test_a_file_that_was_refused_is_not_held_open(shelf: Path) -> None:
    with closing(sqlite3.connect(shelf / "a.db")) as conn, conn:
        conn.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    for open_ in (Log.read, Log.create):
        with pytest.raises(CellmeterError):
            open_(shelf / "a.db")
    held = [entry.readlink() for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    assert not [path for path in held if path.is_relative_to(shelf)]


def test_a_directory_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CellmeterError, match="cannot be opened"):
        Log.create(tmp_path / "no" / "a.db")


def test_a_new_log_that_another_process_is_creating_is_waited_for(tmp_path: Path) -> None:
    """SQLite gives up at once where a log is switched to its write-ahead mode while somebody else holds it."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        released = threading.Timer(0.1, other.execute, ["COMMIT"])
        released.start()
        with Log.create(path) as log:
            log.append(CALL)
        released.join()


def test_a_log_that_a_newer_process_migrates_meanwhile_is_refused_and_stays_newer(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_wal = logfile._use_wal

    def meanwhile(conn: sqlite3.Connection) -> None:
        use_wal(conn)
        with closing(sqlite3.connect(shelf / "a.db")) as newer, newer:
            newer.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")

    monkeypatch.setattr(logfile, "_use_wal", meanwhile)
    with pytest.raises(CellmeterError, match="newer cellmeter"):
        Log.create(shelf / "a.db")
    with closing(sqlite3.connect(shelf / "a.db")) as conn:
        assert conn.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall() == [("999",)]
