"""Without isolation there is still a clean start, a bound, a time limit, and nothing left running."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from cellmeter_harness.sandbox import Command, Gate, Room
from cellmeter_harness.sandbox.capture import Capture
from cellmeter_harness.sandbox.process import ProcessSandbox
from cellmeter_harness.sandbox.supervised import Launch, SupervisedExecution, interpreter, supervised
from cellmeter_proxy.record import now_us

SUPERVISOR = Path(__file__).parents[2] / "harness/cellmeter_harness/sandbox/supervisor.py"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    paths = {name: tmp_path / name for name in ("workspace", "home", "tmp", "cache")}
    for path in paths.values():
        path.mkdir()
    return Room(**paths)


async def run(room: Room, *argv: str, timeout_s: float = 20, gate: Gate | None = None) -> SupervisedExecution:
    async with ProcessSandbox().execute(room, Command(argv=list(argv), timeout_s=timeout_s), gate) as execution:
        await execution.wait()
    return execution


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def seen(path: Path) -> str:
    """The content of a file once it is there and whole: its writer ends it with a newline."""
    while not path.exists() or not path.read_text().endswith("\n"):
        await asyncio.sleep(0.01)
    return path.read_text().strip()


async def test_a_command_runs_in_the_workspace_and_its_streams_and_exit_code_are_kept(room: Room) -> None:
    done = await run(room, "sh", "-c", "pwd; echo err >&2; echo made > file; exit 3")
    assert (done.exit_code, done.timed_out) == (3, False)
    assert done.stdout.text() == f"{room.workspace}\n"
    assert done.stderr.text() == "err\n"
    assert (room.workspace / "file").read_text() == "made\n"
    assert done.duration_ms is not None
    assert done.duration_ms > 0


async def test_the_environment_is_an_allow_list(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "sk-secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://example.com:1")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setattr(sys, "prefix", "/an/environment")
    monkeypatch.setenv("PATH", f"/an/environment/bin:{os.environ['PATH']}")
    done = await run(room, "env")
    variables = dict(line.split("=", 1) for line in done.stdout.text().splitlines())
    assert "sk-secret" not in done.stdout.text()
    assert not {"PROVIDER_KEY", "HTTPS_PROXY", "LD_PRELOAD", "VIRTUAL_ENV"} & variables.keys()
    assert variables["HOME"] == str(room.home)
    assert variables["TMPDIR"] == str(room.tmp)
    assert variables["NO_PROXY"] == variables["no_proxy"] == "127.0.0.1,localhost"
    assert (variables["TERM"], variables["LANG"], variables["TZ"]) == ("dumb", "C.UTF-8", "UTC")
    assert variables["CARGO_TARGET_DIR"].startswith(str(room.cache))
    assert "/an/environment/bin" not in variables["PATH"].split(":")


async def test_what_the_command_adds_to_the_environment_wins(room: Room) -> None:
    command = Command(argv=["sh", "-c", "echo $TZ $MORE"], env={"TZ": "Asia/Tokyo", "MORE": "x"}, timeout_s=20)
    async with ProcessSandbox().execute(room, command, None) as done:
        await done.wait()
    assert done.stdout.text() == "Asia/Tokyo x\n"


async def test_standard_input_is_empty_and_not_the_lifeline(room: Room) -> None:
    done = await run(room, "sh", "-c", "cat; readlink /proc/self/fd/0")
    assert done.stdout.text() == "/dev/null\n"


async def test_a_command_that_does_not_exist_is_an_error_that_names_it(room: Room) -> None:
    with pytest.raises(OSError, match=r"the command could not be started: nowhere: No such file or directory"):
        await run(room, "nowhere")
    (room.workspace / "plain").write_text("text")
    with pytest.raises(OSError, match=r"\./plain: Permission denied"):
        await run(room, "./plain")


async def test_death_by_a_signal_is_an_exit_code_as_shells_write_it(room: Room) -> None:
    assert (await run(room, "sh", "-c", "kill -SEGV $$")).exit_code == 128 + signal.SIGSEGV


async def test_a_command_that_takes_too_long_is_asked_to_end_and_has_no_exit_code(room: Room) -> None:
    script = "trap 'echo asked; exit 0' TERM; echo started; while :; do sleep 0.05; done"
    done = await run(room, "sh", "-c", script, timeout_s=0.5)
    assert (done.exit_code, done.timed_out) == (None, True)
    assert done.stdout.text() == "started\nasked\n"


async def test_a_command_that_does_not_listen_is_killed_after_the_grace(room: Room) -> None:
    argv = ["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.05; done"]
    launch = Launch(
        argv=supervised(argv, str(interpreter()), str(SUPERVISOR), grace_s=0.2),
        env=dict(os.environ),
        cwd=room.workspace,
        timeout_s=0.5,
        grace_s=0.2,
    )
    async with SupervisedExecution(launch) as done:
        await done.wait()
    assert done.timed_out
    assert not alive(int(done.stdout.text()))


DETACHED = r"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        for fd in (0, 1, 2):
            os.close(fd)
        with open("pid", "w") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists("pid"):
    time.sleep(0.01)
"""


async def test_a_child_that_detached_itself_dies_with_the_command(room: Room) -> None:
    done = await run(room, str(interpreter()), "-c", DETACHED)
    assert done.exit_code == 0
    assert not alive(int(await seen(room.workspace / "pid")))


async def test_a_background_child_does_not_keep_the_execution_waiting(room: Room) -> None:
    done = await run(room, "sh", "-c", "sleep 600 & echo $!")
    assert done.exit_code == 0
    assert not alive(int(done.stdout.text()))


async def test_a_cancelled_execution_leaves_nothing_running_and_keeps_its_output(room: Room) -> None:
    command = Command(argv=["sh", "-c", "sleep 600 & echo $!; echo $$ > pid; wait"], timeout_s=600)
    execution = ProcessSandbox().execute(room, command, None)

    async def enter() -> None:
        async with execution:
            await execution.wait()

    task = asyncio.create_task(enter())
    pid = int(await seen(room.workspace / "pid"))
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)
    assert not alive(int(execution.stdout.text()))
    assert (execution.exit_code, execution.timed_out) == (None, False)


async def test_nothing_survives_the_death_of_the_harness_itself(room: Room) -> None:
    harness = await asyncio.create_subprocess_exec(
        str(interpreter()),
        "-c",
        "import socket, subprocess, sys, time\n"
        "ours, theirs = socket.socketpair()\n"
        "subprocess.Popen(sys.argv[1:], stdin=theirs, start_new_session=True)\n"
        "theirs.close(); time.sleep(600)",
        *supervised(["sh", "-c", "echo $$ > pid; sleep 600"], str(interpreter()), str(SUPERVISOR), grace_s=0.2),
        cwd=room.workspace,
    )
    pid = int(await seen(room.workspace / "pid"))
    harness.kill()
    await harness.wait()
    async with asyncio.timeout(10):
        while alive(pid):
            await asyncio.sleep(0.01)


async def test_output_without_end_is_bounded_and_its_loss_is_counted(room: Room) -> None:
    done = await run(room, "sh", "-c", "echo first; head -c 9000000 /dev/zero; echo last")
    content = done.stdout.content()
    assert content.startswith(b"first\n")
    assert content.endswith(b"last\n")
    assert done.stdout.dropped == 9_000_011 - 4 * 1_048_576
    assert f"[{done.stdout.dropped} bytes of output dropped here]".encode() in content


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_the_head_and_the_tail_are_the_same_however_the_stream_is_cut(size: int) -> None:
    stream = bytes(range(100))
    capture = Capture(head_bytes=10, tail_bytes=15)
    for start in range(0, len(stream), size):
        capture.feed(stream[start : start + size])
    assert capture.content() == stream[:10] + b"\n[75 bytes of output dropped here]\n" + stream[-15:]


def test_a_stream_within_the_bound_is_kept_as_it_was() -> None:
    capture = Capture(head_bytes=4, tail_bytes=4)
    for chunk in (b"ab", b"cd", b"ef", b"gh"):
        capture.feed(chunk)
    assert (capture.content(), capture.dropped) == (b"abcdefgh", 0)


def test_the_view_is_the_room_itself_and_the_proxys_own_url(room: Room) -> None:
    view = ProcessSandbox().view(room, Gate(url="http://127.0.0.1:9"))
    assert (view.workspace, view.home, view.api_root) == (str(room.workspace), str(room.home), "http://127.0.0.1:9")


KILLS_ITS_SUPERVISOR = "setsid sleep 600 & echo $! > pid; kill -9 $PPID; sleep 600"


async def test_a_command_that_kills_its_supervisor_has_no_exit_code_and_leaves_nothing_running(room: Room) -> None:
    done = await run(room, "sh", "-c", KILLS_ITS_SUPERVISOR)
    assert (done.exit_code, done.timed_out) == (None, False)
    assert not working(int(await seen(room.workspace / "pid")))


def working(pid: int) -> bool:
    """Whether a process is there that is no zombie: what lost its parent is for others to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_the_grace_is_not_charged_to_the_command(room: Room) -> None:
    started_at = now_us()
    done = await run(room, "sh", "-c", "trap '' TERM; sleep 600 & while :; do wait; done", timeout_s=0.5)
    assert done.timed_out
    assert done.duration_ms is not None
    assert 500 <= done.duration_ms < 2_000
    assert done.ended_at is not None
    assert done.ended_at - started_at < 2_000_000 < now_us() - started_at


CHAINS = r"""
import os, time
for _ in range(10):
    if os.fork() == 0:
        os.setsid()
        end = time.time() + 60
        while time.time() < end:
            if os.fork():
                os._exit(0)
        os._exit(0)
time.sleep(0.3)
"""


async def test_chains_of_forks_are_ended(room: Room) -> None:
    async with asyncio.timeout(10):
        done = await run(room, str(interpreter()), "-c", CHAINS)
    assert done.exit_code == 0
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if room_is_cwd(pid, room)]


def room_is_cwd(process: Path, room: Room) -> bool:
    try:
        return (process / "cwd").readlink() == room.workspace
    except OSError:
        return False
