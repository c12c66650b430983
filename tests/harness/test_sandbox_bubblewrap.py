"""In bubblewrap the network is cut but for the proxy, the machine is out of reach, and nothing is left running."""

import asyncio
import os
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cellmeter_harness.sandbox import Command, Gate, Room, choose
from cellmeter_harness.sandbox.bubblewrap import PORT, BubblewrapSandbox, problem
from cellmeter_harness.sandbox.process import ProcessSandbox
from cellmeter_harness.sandbox.supervised import SupervisedExecution, interpreter
from cellmeter_harness.sandbox.visible import program_trees
from cellmeter_proxy.errors import CellmeterError

TROUBLE = problem()
needs_bubblewrap = pytest.mark.skipif(TROUBLE is not None, reason=f"bubblewrap does not work here: {TROUBLE}")
PYTHON = str(interpreter())


@pytest.fixture
def room(tmp_path: Path) -> Room:
    paths = {name: tmp_path / name for name in ("workspace", "home", "tmp", "cache", "agent")}
    for path in paths.values():
        path.mkdir()
    return Room(**paths)


async def run(
    room: Room, *argv: str, gate: Gate | None = None, timeout_s: float = 20, programs: list[Path] | None = None
) -> SupervisedExecution:
    command = Command(argv=list(argv), timeout_s=timeout_s, programs=programs or [])
    async with BubblewrapSandbox().execute(room, command, gate) as execution:
        await execution.wait()
    return execution


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    return await asyncio.start_unix_server(handler, path)


@needs_bubblewrap
async def test_the_workspace_can_be_written_and_the_system_cannot(room: Room) -> None:
    script = "pwd; echo x > made; id -un; touch /usr/x /etc/x /x; ls -d /home/*; exit 5"
    done = await run(room, "sh", "-c", script)
    assert done.exit_code == 5
    assert done.stdout.text() == "/workspace\nagent\n/home/agent\n"
    assert done.stderr.text().count("Read-only file system") == 3
    assert (room.workspace / "made").read_text() == "x\n"


@needs_bubblewrap
async def test_what_belongs_to_the_user_is_out_of_reach(room: Room, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    done = await run(room, "sh", "-c", f"cat {tmp_path}/secret /etc/shadow; ls /tmp; ls -A $HOME")
    assert done.stdout.text() == ""


@needs_bubblewrap
async def test_the_environment_is_the_allow_list_with_the_paths_of_the_inside(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "sk-secret")
    done = await run(room, "sh", "-c", "env; cat /proc/1/environ /proc/2/environ | tr '\\0' '\\n'")
    assert "sk-secret" not in done.stdout.text()
    variables = dict(line.split("=", 1) for line in done.stdout.text().splitlines())
    assert (variables["HOME"], variables["TMPDIR"]) == ("/home/agent", "/tmp")
    assert variables["CARGO_TARGET_DIR"] == "/var/cache/agent/cargo-target"


@needs_bubblewrap
async def test_a_home_that_is_the_workspace_is_the_workspace(room: Room) -> None:
    both = Room(workspace=room.workspace, home=room.workspace, tmp=room.tmp, cache=room.cache)
    assert (await run(both, "sh", "-c", "echo $HOME; echo x > $HOME/state")).stdout.text() == "/workspace\n"
    assert (room.workspace / "state").exists()


TRY_CONNECT = """
import socket, sys
def attempt(family, address):
    with socket.socket(family) as connection:
        connection.settimeout(3)
        try:
            connection.connect(address)
            print("connected", address)
        except OSError as error:
            print("refused", address)
for address in sys.argv[1:]:
    host, port = address.split(":")
    attempt(socket.AF_INET, (host, int(port)))
try:
    socket.getaddrinfo("example.com", 80)
    print("resolved")
except OSError:
    print("no names")
"""


@needs_bubblewrap
async def test_the_network_is_cut(room: Room) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("0.0.0.0", 0)) as outer:
        port, outer_port = server.getsockname()[1], outer.getsockname()[1]
        addresses = [f"127.0.0.1:{port}", f"10.0.0.1:{outer_port}", "1.1.1.1:53", f"127.0.0.1:{PORT}"]
        done = await run(room, PYTHON, "-c", TRY_CONNECT, *addresses)
    assert done.stdout.text().splitlines().count("no names") == 1
    assert "connected" not in done.stdout.text()


CALL = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(b"question")
    connection.shutdown(socket.SHUT_WR)
    while chunk := connection.recv(100):
        print(chunk.decode(), flush=True)
print("end")
"""


@needs_bubblewrap
async def test_the_bridge_is_the_one_way_out_and_passes_bytes_on_as_they_come(room: Room, tmp_path: Path) -> None:
    read_first = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"question"
        writer.write(b"first")
        await writer.drain()
        await read_first.wait()
        writer.write(b"second")
        writer.close()
        await writer.wait_closed()

    path = tmp_path / "proxy.sock"
    server = await serve(path, answer)
    gate = Gate(url="http://127.0.0.1:1", socket=path)
    command = Command(argv=[PYTHON, "-c", CALL, str(PORT)], timeout_s=20)
    assert BubblewrapSandbox().view(room, gate).api_root == f"http://127.0.0.1:{PORT}"
    async with server, BubblewrapSandbox().execute(room, command, gate) as execution:
        async with asyncio.timeout(10):
            while execution.stdout.text() != "first\n":
                await asyncio.sleep(0.01)
        read_first.set()
        await execution.wait()
    assert execution.exit_code == 0
    assert execution.stdout.text() == "first\nsecond\nend\n"


@needs_bubblewrap
async def test_a_client_that_goes_away_is_seen_by_the_proxy(room: Room, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        assert await reader.read() == b""
        (room.workspace / "gone").touch()
        writer.close()
        await writer.wait_closed()

    path = tmp_path / "proxy.sock"
    server = await serve(path, answer)
    # The client leaves and its command stays, for the gate ends with the command.
    leaving = (
        "import os, socket, time\n"
        f"with socket.create_connection(('127.0.0.1', {PORT})) as s: s.sendall(b'question')\n"
        "while not os.path.exists('gone'): time.sleep(0.01)"
    )
    async with server:
        done = await run(room, PYTHON, "-c", leaving, gate=Gate(url="http://127.0.0.1:1", socket=path))
    assert done.exit_code == 0


@needs_bubblewrap
async def test_a_proxy_that_breaks_off_breaks_the_clients_connection(room: Room, tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(10)

    def break_off() -> None:
        connection, _ = listener.accept()
        with connection:
            # The question has come and is left unread: closing then is what the other end sees as a reset (unix(7)).
            connection.recv(1, socket.MSG_PEEK)
            connection.sendall(b"half an")

    script = (
        "import socket, time\n"
        f"s = socket.create_connection(('127.0.0.1', {PORT}))\n"
        "s.sendall(b'q' * 1000)\n"
        "try:\n"
        "    while s.recv(100): pass\n"
        "    print('orderly end')\n"
        "except ConnectionResetError: print('reset')\n"
    )
    with listener:
        answering = asyncio.create_task(asyncio.to_thread(break_off))
        done = await run(room, PYTHON, "-c", script, gate=Gate(url="http://127.0.0.1:1", socket=path))
        await answering
    assert done.stdout.text() == "reset\n"


@needs_bubblewrap
async def test_a_command_that_waits_for_all_of_its_children_is_not_held_up_by_the_bridge(
    room: Room, tmp_path: Path
) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    path = tmp_path / "proxy.sock"
    server = await serve(path, answer)
    script = "import os\ntry:\n    while True: os.wait()\nexcept ChildProcessError: print('none')"
    async with server:
        done = await run(room, PYTHON, "-c", script, gate=Gate(url="http://127.0.0.1:1", socket=path))
    assert done.stdout.text() == "none\n"


def processes_with(marker: str) -> list[int]:
    """Processes of this machine whose command line has a marker, whatever name space they are in."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@needs_bubblewrap
@pytest.mark.parametrize("timeout_s", [20, 1])
async def test_children_that_detached_themselves_die_with_the_command(room: Room, timeout_s: int) -> None:
    marker = f"60{os.getpid()}{timeout_s}"
    wait = "exit 0" if timeout_s == 20 else "wait; sleep 600"
    script = f"setsid sh -c 'trap : TERM; echo > up; sleep {marker}' & while [ ! -e up ]; do sleep 0.01; done; {wait}"
    done = await run(room, "sh", "-c", script, timeout_s=timeout_s)
    assert done.timed_out == (timeout_s == 1)
    assert processes_with(marker) == []


@needs_bubblewrap
async def test_what_is_private_is_hidden_even_in_a_tree_that_is_visible(room: Room, tmp_path: Path) -> None:
    for directory in ("prefix/bin", "prefix/tasks", "prefix/lib"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "prefix/tasks/solution").write_text("answer")
    tool = tmp_path / "prefix/bin/tool"
    tool.write_text("#!/bin/sh\nls -A $(dirname $0)/../lib/.. $(dirname $0)/../tasks\n")
    tool.chmod(0o755)
    command = Command(argv=[str(tool)], timeout_s=20, programs=[tool])
    async with BubblewrapSandbox(private=[tmp_path / "prefix/tasks"]).execute(room, command, None) as done:
        await done.wait()
    assert done.exit_code == 0
    assert "lib" in done.stdout.text()
    assert "solution" not in done.stdout.text()


@needs_bubblewrap
async def test_an_agents_own_files_and_interpreter_can_be_used_and_not_changed(room: Room) -> None:
    assert room.agent is not None
    (room.agent / "agent.py").write_text("import json, ssl, sys; print(sys.argv[1])")
    view = BubblewrapSandbox().view(room, None)
    done = await run(room, view.python, f"{view.agent_dir}/agent.py", "hello")
    assert done.stdout.text() == "hello\n"
    assert (await run(room, "sh", "-c", f"echo > {view.agent_dir}/agent.py")).exit_code != 0


def test_the_trees_of_a_program_are_its_installation_and_that_of_its_interpreter(tmp_path: Path) -> None:
    base = tmp_path / "base"
    venv = tmp_path / "tools/venv"
    node = tmp_path / "node"
    for directory in (base / "bin", venv / "bin", node / "bin", node / "lib/node_modules/pkg", tmp_path / ".local/bin"):
        directory.mkdir(parents=True)
    (base / "bin/python3").write_bytes(b"\x7fELF")
    (venv / "pyvenv.cfg").write_text(f"home = {base}/bin\n")
    (venv / "bin/python3").symlink_to(base / "bin/python3")
    (venv / "bin/tool").write_text(f"#!{venv}/bin/python3\n")
    (tmp_path / ".local/bin/tool").symlink_to(venv / "bin/tool")
    (node / "lib/node_modules/pkg/cli.js").write_text("#!/usr/bin/env node\n")
    (node / "bin/cli").symlink_to("../lib/node_modules/pkg/cli.js")
    (node / "bin/node").write_bytes(b"\x7fELF")
    (node / "bin/node").chmod(0o755)
    environ = {"PATH": str(node / "bin"), "HOME": str(tmp_path)}

    trees = program_trees([tmp_path / ".local/bin/tool"], environ)
    assert set(trees) >= {base, venv, tmp_path / ".local/bin"}
    assert tmp_path / ".local" not in trees
    assert node in program_trees([node / "bin/cli"], environ)
    assert not {tmp_path, Path.home(), Path("/")} & set(trees)


def test_toolchains_that_are_found_by_a_variable_are_visible(tmp_path: Path) -> None:
    (tmp_path / ".rustup").mkdir()
    assert tmp_path / ".rustup" in program_trees([], {"PATH": "/usr/bin", "HOME": str(tmp_path)})


@needs_bubblewrap
@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not on PATH")
async def test_a_toolchain_under_the_users_home_works(room: Room) -> None:
    (room.workspace / "Cargo.toml").write_text('[package]\nname = "x"\nversion = "0.1.0"\nedition = "2021"\n')
    (room.workspace / "src").mkdir()
    (room.workspace / "src/lib.rs").write_text("#[test]\nfn passes() {}\n")
    cargo = Path(shutil.which("cargo") or "")
    done = await run(room, "cargo", "test", "--offline", "--lib", programs=[cargo], timeout_s=120)
    assert "test passes ... ok" in done.stdout.text()
    assert sorted(path.name for path in room.workspace.iterdir()) == ["Cargo.lock", "Cargo.toml", "src"]


def test_a_kind_that_was_asked_for_is_given_or_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(choose("process"), ProcessSandbox)
    assert choose("auto").isolation == ("bubblewrap" if TROUBLE is None else "process")
    monkeypatch.setenv("PATH", "/nowhere")
    assert choose("auto").isolation == "process"
    with pytest.raises(CellmeterError, match="bubblewrap does not work here: bwrap is not installed") as caught:
        choose("bubblewrap")
    assert "apt-get install bubblewrap" in (caught.value.hint or "")


ATTACKS_ITS_SUPERVISOR = """
import ctypes, os, resource
os.kill(1, 9)
libc = ctypes.CDLL(None, use_errno=True)
descriptor = libc.syscall(438, libc.syscall(434, 1, 0), 0, 0)
print(os.getppid(), descriptor, os.strerror(ctypes.get_errno()))
print(resource.getrlimit(resource.RLIMIT_NPROC)[1], resource.getrlimit(resource.RLIMIT_FSIZE)[1])
"""


@needs_bubblewrap
async def test_the_supervisor_can_neither_be_killed_nor_robbed_of_its_lifeline(room: Room) -> None:
    done = await run(room, PYTHON, "-c", ATTACKS_ITS_SUPERVISOR)
    assert done.exit_code == 0, done.stderr.text()
    assert done.stdout.text() == "1 -1 Operation not permitted\n4096 4294967296\n"
