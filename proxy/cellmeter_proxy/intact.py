"""Whether a log in use still has its files, and how those beside it are made anew.

Invariant: what is written goes into the file that stands under the log's name. SQLite goes on writing into a file that
has lost its name, and those rows would be gone with the process.
"""

import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

_BESIDE: Final = ("-wal", "-shm")
_logger: Final = logging.getLogger("cellmeter")


class Files:
    """The files of a log that is open: its own, and the two beside it."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._inodes = {self._path: _inode(self._path)}

    def moved(self) -> list[str]:
        """Those that no longer stand where they did."""
        moved = [path for path, inode in self._inodes.items() if _inode(path) != inode]
        if not moved and len(self._inodes) <= len(_BESIDE):
            beside = {self._path + suffix: _inode(self._path + suffix) for suffix in _BESIDE}
            self._inodes |= {path: inode for path, inode in beside.items() if inode is not None}
        return moved

    def renew(self, moved: list[str], conn: sqlite3.Connection) -> None:
        """Bring into the log what only files without a name hold, and have SQLite make them anew.

        Leaving the write-ahead mode does both. SQLite does it only where no other process has the log open, which is
        what makes it safe: nobody can be writing by what was deleted (https://sqlite.org/pragma.html#pragma_journal_mode).

        Args:
            moved: what ``moved`` gave.
            conn: the connection that still holds them; its ``busy_timeout`` is 0 afterwards.

        Raises:
            OSError: it cannot be done without risk to a row.

        """
        for path in map(Path, moved):
            if str(path) == self._path or not _can_be_spared(path):
                raise OSError(f"{path.name} is gone, and {'another file' if path.exists() else 'nothing'} in its place")
        names = " and ".join(Path(path).name for path in moved)
        try:
            conn.execute("PRAGMA busy_timeout=0")
            conn.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError as error:
            raise OSError(f"{names} was deleted while another process has the log open, too ({error})") from None
        self._inodes = {self._path: self._inodes[self._path]}
        conn.execute("PRAGMA journal_mode=WAL")
        _logger.warning("%s was deleted; every row is in %s", names, Path(self._path).name)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino  # noqa: PTH116 - three for every commit, and a Path takes four times as long
    except FileNotFoundError:
        return None


def _can_be_spared(path: Path) -> bool:
    """Whether what stands in the place of a file beside the log, if anything does, holds no rows."""
    return not path.exists() or path.name.endswith("-shm") or path.stat().st_size == 0
