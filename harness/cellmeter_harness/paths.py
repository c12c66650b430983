"""Where the files of one cell are while it runs: every scratch path of a cell is made here.

Invariant: they are all below one directory, which goes when the cell is over. The run and the grading have
rooms of their own, so that nothing that the agent wrote beside its workspace is there when it is judged.
"""

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import Final, Self

import msgspec

from cellmeter_harness.sandbox import Room
from cellmeter_harness.workspace import copy_tree, remove_tree

_OWNER: Final = re.compile(r"cellmeter-(?P<space>[0-9a-f]+)\.(?P<pid>[0-9a-f]+)\.[0-9a-f]+-")


class Scratch(msgspec.Struct, frozen=True):
    """The scratch directory of one cell."""

    root: Path

    @classmethod
    def create(cls, label: str) -> Self:
        """A fresh scratch directory where the machine keeps temporary files, named for people who look there."""
        prefix = f"{scratch_prefix(os.getpid())}{label.replace('/', '_')}-"
        return cls(Path(tempfile.mkdtemp(prefix=prefix)).resolve())

    @property
    def workspace(self) -> Path:
        """What the agent works in."""
        return self.root / "workdir"

    @property
    def graded_workspace(self) -> Path:
        """The copy that the grader works in."""
        return self.root / "grading" / "workdir"

    def agent_room(self, agent_files: Path | None, *, home_is_workspace: bool) -> Room:
        """The room of the run; its workspace is filled by the caller."""
        copy = self.root / "agent" if agent_files is not None else None
        if agent_files is not None and copy is not None:
            copy_tree(agent_files, copy)
        home = self.workspace if home_is_workspace else self.root / "home"
        return _furnished(Room(workspace=self.workspace, home=home, **_beside(self.root), agent=copy))

    def grading_room(self) -> Room:
        """The room of the grader; its workspace is filled by the caller."""
        beside = self.root / "grading"
        return _furnished(Room(workspace=self.graded_workspace, home=beside / "home", **_beside(beside)))

    def remove(self) -> None:
        """Remove everything, whatever rights were taken away in it."""
        remove_tree(self.root)


def scratch_prefix(pid: int) -> str:
    """How the names of a process's scratch directories start: with what tells it from every other process."""
    return f"cellmeter-{_pid_space():x}.{pid:x}.{_start_of(pid) or 0:x}-"


def remove_dead_scratch() -> list[Path]:
    """Remove the scratch directories of processes that were killed, and say which.

    Those of another user, and of processes that cannot be seen from here, are left alone.
    """
    removed = []
    for path in sorted(Path(tempfile.gettempdir()).glob("cellmeter-*")):
        named = _OWNER.match(path.name)
        if named is None or int(named["space"], 16) != _pid_space():
            continue
        if path.name.startswith(scratch_prefix(int(named["pid"], 16))):
            continue
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.getuid():
                remove_tree(path)
                removed.append(path)
    return removed


def _pid_space() -> int:
    """Within which process ids mean the same (pid_namespaces(7)); 0 where there are no such spaces."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _start_of(pid: int) -> int | None:
    """When a process was started, in ticks since the machine was (proc(5)); None where there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _beside(root: Path) -> dict[str, Path]:
    return {"tmp": root / "tmp", "cache": root / "cache"}


def _furnished(room: Room) -> Room:
    for directory in (room.home, room.tmp, room.cache):
        if directory != room.workspace:
            directory.mkdir(parents=True)
    return room
