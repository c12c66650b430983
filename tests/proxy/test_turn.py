"""Taking turns to commit: one process at a time, bounded, and a dead one has no turn."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.turn import Turn
from cellmeter_proxy.writer import LogWriter

HOLDER = """
import sys
from cellmeter_proxy.turn import Turn
turn = Turn(open(int(sys.argv[1]), "r+b", buffering=0))
turn.take(5)
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def turn_file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        yield file


@pytest.fixture
def holder(turn_file: IO[bytes]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process whose turn it is, until its stdin ends or it is killed."""
    number = turn_file.fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[number],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"mine\n"
    yield process
    process.kill()
    process.communicate()


def test_a_turn_that_is_free_is_had_at_once(turn_file: IO[bytes]) -> None:
    turn = Turn(turn_file)
    assert turn.take(5) < 1
    turn.end()
    turn.end()


def test_a_turn_that_another_process_keeps_is_waited_for_no_longer_than_the_bound(
    turn_file: IO[bytes], holder: "subprocess.Popen[bytes]"
) -> None:
    assert 0.2 <= Turn(turn_file).take(0.2) < 5
    assert Turn(turn_file).take(0) < 1


def test_the_turn_of_a_process_that_is_killed_is_free(turn_file: IO[bytes], holder: "subprocess.Popen[bytes]") -> None:
    holder.kill()
    began = time.monotonic()
    assert Turn(turn_file).take(10) < 10
    assert time.monotonic() - began < 5


async def test_a_log_is_written_although_another_keeps_the_turn(
    tmp_path: Path, turn_file: IO[bytes], holder: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellmeter_proxy.writer.BUSY_MS", 100)
    writer = await LogWriter.open(tmp_path / "a.db", turn=Turn(turn_file))
    await writer.append(Call(call_id="1", session="s", writer="w/1/1", started_at=1))
    await writer.aclose()
    with Log.read(tmp_path / "a.db") as log:
        assert [call.call_id for call in log.rows(Call)] == ["1"]
