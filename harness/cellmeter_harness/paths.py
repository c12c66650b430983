"""Where the files of one cell are while it runs: every scratch path of a cell is made here.

Invariant: they are all below one directory, which goes when the cell is over. The run and the grading have
rooms of their own, so that nothing that the agent wrote beside its workspace is there when it is judged.
"""

import tempfile
from pathlib import Path
from typing import Self

import msgspec

from cellmeter_harness.sandbox import Room
from cellmeter_harness.workspace import copy_tree, remove_tree


class Scratch(msgspec.Struct, frozen=True):
    """The scratch directory of one cell."""

    root: Path

    @classmethod
    def create(cls, label: str) -> Self:
        """A fresh scratch directory where the machine keeps temporary files, named for people who look there."""
        return cls(Path(tempfile.mkdtemp(prefix=f"cellmeter-{label.replace('/', '_')}-")).resolve())

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


def _beside(root: Path) -> dict[str, Path]:
    return {"tmp": root / "tmp", "cache": root / "cache"}


def _furnished(room: Room) -> Room:
    for directory in (room.home, room.tmp, room.cache):
        if directory != room.workspace:
            directory.mkdir(parents=True)
    return room
