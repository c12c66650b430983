"""Isolation by bubblewrap: name spaces of its own, a read-only system, no network but the way to the proxy.

Inside, every cell looks alike: the workspace is ``/workspace``, the proxy is ``http://127.0.0.1:31415``, which
``bridge.py`` forwards to the proxy's Unix socket. The command is nobody in particular (uid 1000, no capabilities).
What is visible read-only is the system and the programs that the command needs; solutions of tasks never are.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import cellmeter_harness
from cellmeter_harness.sandbox.base import Command, Gate, Room, View
from cellmeter_harness.sandbox.environment import environment
from cellmeter_harness.sandbox.supervised import Launch, SupervisedExecution, interpreter, supervised
from cellmeter_harness.sandbox.visible import program_trees, system_paths
from cellmeter_proxy.record import Isolation

PORT: Final = 31415
_INSIDE: Final = "/run/cellmeter"
_SOCKET: Final = f"{_INSIDE}/proxy.sock"
_NAMESPACES: Final = (
    *("--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"),
    *("--hostname", "sandbox", "--die-with-parent", "--new-session"),
    # The supervisor is the first process of the name space: nothing inside can kill it, and all ends with it.
    "--as-pid-1",
)
LIMITS: Final = ("NPROC=4096", "DATA=17179869184", "FSIZE=4294967296", "CORE=0")
"""For each process inside (setrlimit(2)): far more than work needs, less than what takes a machine down.

Memory is bounded by what is written (RLIMIT_DATA): address space alone is reserved by the terabyte by some runtimes."""
_PROBE_S: Final = 10.0


class BubblewrapSandbox:
    """Runs commands inside bubblewrap.

    Args:
        private: trees that are hidden even where they lie in a tree that is visible; cellmeter's own if not given,
            for its tasks and their solutions.

    """

    isolation: Isolation = "bubblewrap"

    def __init__(self, private: Sequence[Path] | None = None) -> None:
        self._private = [Path(cellmeter_harness.__file__).parent] if private is None else list(private)

    def view(self, room: Room, gate: Gate | None) -> View:
        """The same paths and the same address for every cell."""
        return View(
            workspace="/workspace",
            home="/workspace" if room.home == room.workspace else "/home/agent",
            tmp="/tmp",  # noqa: S108 - the sandbox's own
            cache="/var/cache/agent",
            agent_dir="/opt/agent" if room.agent else "",
            python=str(interpreter()),
            api_root=f"http://127.0.0.1:{PORT}" if gate else "",
        )

    def execute(self, room: Room, command: Command, gate: Gate | None) -> SupervisedExecution:
        """An execution inside a fresh set of name spaces."""
        view = self.view(room, gate)
        python = str(interpreter())
        argv = [python, "-I", "-S", f"{_INSIDE}/bridge.py", _SOCKET, str(PORT), "--"] if gate else []
        inner = supervised([*argv, *command.argv], python, f"{_INSIDE}/supervisor.py", limits=LIMITS)
        return SupervisedExecution(
            Launch(
                argv=[shutil.which("bwrap") or "bwrap", *self._arguments(room, view, command, gate), "--", *inner],
                env=environment(view, command.env),
                cwd=room.workspace,
                timeout_s=command.timeout_s,
            )
        )

    def _arguments(self, room: Room, view: View, command: Command, gate: Gate | None) -> list[str]:
        """Everything between ``bwrap`` and the command."""
        trees = program_trees(command.programs, os.environ)
        return [
            *_NAMESPACES,
            *("--proc", "/proc", "--dev", "/dev"),
            *_system(),
            *_identity(),
            *_own_directories(room, view),
            *(word for tree in trees for word in ("--ro-bind", str(tree), str(tree))),
            *(word for tree in self._private if _is_visible(tree, trees) for word in ("--tmpfs", str(tree))),
            *_way_to_the_proxy(gate),
            *("--remount-ro", "/"),
            *("--chdir", view.workspace),
        ]


def problem() -> str | None:
    """Why bubblewrap does not work on this machine, or None if it does."""
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    probe = ["bwrap", *_NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    try:
        done = subprocess.run(probe, capture_output=True, timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip()


def _system() -> Iterator[str]:
    for path in system_paths():
        if path.is_symlink() and path.parent == Path("/"):
            yield from ("--symlink", str(path.readlink()), str(path))
        else:
            yield from ("--ro-bind", str(path), str(path))


def _identity() -> Iterator[str]:
    """Who the command is, for programs that ask: a name for its uid and for its host."""
    for name in ("passwd", "group", "hosts"):
        yield from ("--ro-bind", str(Path(__file__).with_name("etc") / name), f"/etc/{name}")


def _is_visible(tree: Path, trees: list[Path]) -> bool:
    return tree.is_dir() and any(top in tree.parents for top in (Path("/usr"), *trees))


def _own_directories(room: Room, view: View) -> Iterator[str]:
    yield from ("--bind", str(room.tmp), view.tmp)
    yield from ("--bind", str(room.cache), view.cache)
    yield from ("--bind", str(room.workspace), view.workspace)
    if room.home != room.workspace:
        yield from ("--bind", str(room.home), view.home)
    if room.agent is not None:
        yield from ("--ro-bind", str(room.agent), view.agent_dir)


def _way_to_the_proxy(gate: Gate | None) -> Iterator[str]:
    scripts = ("supervisor.py", "bridge.py") if gate else ("supervisor.py",)
    for name in scripts:
        yield from ("--ro-bind", str(Path(__file__).with_name(name)), f"{_INSIDE}/{name}")
    if gate is not None:
        if gate.socket is None:
            raise ValueError("a sandbox without a network needs the proxy's Unix socket")
        yield from ("--ro-bind", str(gate.socket), _SOCKET)
