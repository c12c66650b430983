"""Ctrl-C at any moment of the program's life, from its first line on: exit code 130, one word, and a log that goes on.

The program itself says, on a pipe, when a moment has come: it is counted in the interpreter's audit events (PEP 578),
of which each import, each file opened and each program started makes some, so that a slow machine changes nothing.
"""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call, Cell
from cellmeter_scoring import verify

PROGRAM: Final = """
import os, sys
told, name, left = int(sys.argv.pop(1)), sys.argv.pop(1), int(sys.argv.pop(1))

def count(event, arguments):
    global left
    if " ".join([event, *filter(lambda one: isinstance(one, str), arguments[:1])]).startswith(name):
        left -= 1
        if left == 0:
            os.write(told, b"now")

from cellmeter_harness.entry import main
sys.addaudithook(count)
main()
"""
WHILE_IMPORTING: Final = [1, 10, 100, *range(500, 4500, 500)]
WHILE_RUNNING: Final = range(4500, 6500, 400)


@dataclass(frozen=True)
class Moment:
    """When so many audit events have been; of those, where it says so, whose name and first argument begin with it."""

    count: int
    event: str = ""


def start_of_cell(number: int) -> Moment:
    """When a cell has its row, and gets its directory; the sweep has one, and so has the question for a version."""
    return Moment(number + 2, "tempfile.mkdtemp")


def signalled(
    directory: Path,
    moment: Moment,
    *numbers: signal.Signals,
    command: tuple[str, ...] = ("demo",),
    under: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """The program, given signals one after the other at a moment."""
    told, tell = os.pipe()
    process = subprocess.Popen(
        [*under, sys.executable, "-c", PROGRAM, str(tell), moment.event, str(moment.count), *command],
        cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=[tell],
    )  # fmt: skip
    os.close(tell)
    with open(told, "rb") as reader:
        assert reader.read(3) == b"now", process.communicate()
    for number in numbers:
        process.send_signal(number)
    said, talk = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, said, talk)


def assert_ended_well(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout) == (130, "")
    assert re.search(r"^interrupted$", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
    assert "never awaited" not in done.stderr


@pytest.mark.parametrize("count", WHILE_IMPORTING)
def test_while_its_modules_are_imported_it_says_one_word_and_leaves(tmp_path: Path, count: int) -> None:
    done = signalled(tmp_path, Moment(count), signal.SIGINT)
    assert_ended_well(done)
    assert done.stderr == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


DROPPED: Final = """
import atexit, signal, sys

class Dropped:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def interrupt(event, arguments):
    if event == "import" and arguments[0] == "click":
        Dropped()

from cellmeter_harness.entry import main
"""


@pytest.mark.parametrize(
    ("where", "said"),
    [("sys.addaudithook(interrupt)", 0), ("atexit.register(signal.raise_signal, signal.SIGINT)", 10)],
)
def test_where_python_prints_and_drops_exceptions_it_leaves_all_the_same(tmp_path: Path, where: str, said: int) -> None:
    program = f"{DROPPED}\n{where}\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", program, "tasks", "list"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert len(done.stdout.splitlines()) >= said


def test_before_the_event_loop_is_there_nothing_is_left_to_complain_about(tmp_path: Path) -> None:
    assert_ended_well(signalled(tmp_path, Moment(1, "import uvloop"), signal.SIGINT))


def test_a_sweep_that_is_interrupted_again_and_again_goes_on_from_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "cellmeter-demo" / "cellmeter.db"
    for count in WHILE_RUNNING:
        assert_ended_well(signalled(tmp_path, Moment(count), signal.SIGINT))
        if log.exists():
            with Log.read(log) as reading:
                assert all(cell.ended_at is not None for cell in reading.rows(Cell))
                assert not list(reading.rows(Call, "state = 'open'"))
    done = subprocess.run(
        [sys.executable, "-m", "cellmeter_harness", "demo"], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert verify(log) == []
    with Log.read(log) as reading:
        classes = Counter(cell.failure_class for cell in reading.rows(Cell))
    assert classes["cancelled"] > 0
    assert sum(classes.values()) - classes["cancelled"] == 24


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_an_agent_runs_either_signal_completes_its_row_and_ends_the_program(
    tmp_path: Path, number: signal.Signals
) -> None:
    assert_ended_well(signalled(tmp_path, start_of_cell(2), number))
    with Log.read(tmp_path / "cellmeter-demo" / "cellmeter.db") as reading:
        cells = list(reading.rows(Cell))
        assert cells
        assert all(cell.ended_at is not None for cell in cells)
        assert not list(reading.rows(Call, "state = 'open'"))


def test_a_key_that_is_pressed_many_times_ends_it_in_the_same_way(tmp_path: Path) -> None:
    assert_ended_well(signalled(tmp_path, start_of_cell(3), *[signal.SIGINT] * 20))


def test_where_it_was_started_to_ignore_the_key_it_goes_on(tmp_path: Path) -> None:
    ignoring = ("bash", "-c", 'trap "" INT; exec "$@"', "bash")
    done = signalled(tmp_path, Moment(100), signal.SIGINT, command=("tasks", "list"), under=ignoring)
    assert (done.returncode, done.stderr) == (0, "")
    assert "polyglot/" in done.stdout
