"""Taking turns to commit: one process at a time, bounded, and a dead one has no turn."""

import asyncio
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
from cellmeter_proxy.transact import Job, NotNowError, Transactor
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
    monkeypatch.setattr("cellmeter_proxy.transact.BUSY_MS", 100)
    writer = await LogWriter.open(tmp_path / "a.db", turn=Turn(turn_file))
    await writer.append(Call(call_id="1", session="s", writer="w/1/1", started_at=1))
    await writer.aclose()
    with Log.read(tmp_path / "a.db") as log:
        assert [call.call_id for call in log.rows(Call)] == ["1"]


def is_free_for_others(turn_file: IO[bytes]) -> bool:
    """Whether another process would be given the turn at once."""
    number = turn_file.fileno()
    code = f"from cellmeter_proxy.turn import Turn; print(Turn(open({number}, 'r+b', buffering=0)).take_free())"
    return (
        subprocess.run([sys.executable, "-c", code], pass_fds=[number], capture_output=True, check=True).stdout
        == b"True\n"
    )


async def a_job(call_id: str) -> Job[None, int]:
    call = Call(call_id=call_id, session="s", writer="w/1/1", started_at=1)
    return Job(lambda: None, lambda log, _: log.open_call(call), asyncio.get_running_loop().create_future())


async def test_the_event_loop_waits_for_no_turn_and_leaves_the_work_to_the_thread(
    tmp_path: Path, turn_file: IO[bytes], holder: "subprocess.Popen[bytes]"
) -> None:
    with Log.create(tmp_path / "a.db") as log:
        transactor = Transactor(log, Turn(turn_file))
        job = await a_job("1")
        with pytest.raises(NotNowError):
            transactor.write([job])
        assert not log.conn.in_transaction
        holder.kill()
        (settled,) = transactor.transact([job])
    assert (settled.error, settled.result) == (None, 1)


async def test_a_turn_lasts_from_the_first_write_to_the_commit_and_no_longer(
    tmp_path: Path, turn_file: IO[bytes]
) -> None:
    with Log.create(tmp_path / "a.db") as log:
        transactor = Transactor(log, Turn(turn_file))
        written = transactor.write([await a_job("1")])
        assert not is_free_for_others(turn_file)
        assert transactor.commit(written)[0].result == 1
        assert is_free_for_others(turn_file)
        with pytest.raises(NotNowError):
            transactor.write([await a_job("2"), await a_job("1")])
        assert is_free_for_others(turn_file)
