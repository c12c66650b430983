"""Trees of files: what is in one, what differs between two, copying one, laying one over another.

Invariants: a symbolic link is never followed, so nothing outside a tree is read into it or written
through it; what lies in a ``.git`` is never listed, only that one is there. Every function runs on
the host while no process of the agent is alive, and is synchronous: the caller gives it a thread.
"""

import errno
import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from cellmeter_proxy.record import Workspace

Kind = Literal["file", "symlink", "special"]
_CACHES: Final = frozenset({"__pycache__"})


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at one path."""

    kind: Kind
    digest: str = ""
    """SHA-256 of a file's content or of a link's target; empty for pipes, sockets and devices."""
    executable: bool = False


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A tree at one moment: its files, links and other leaves by relative path."""

    entries: dict[str, Entry]
    has_git: bool


def snapshot(tree: Path) -> Snapshot:
    """What is in a tree now. Directories count by what they hold, as in git.

    Raises:
        OSError: something in it cannot be read.

    """
    entries: dict[str, Entry] = {}
    has_git = False
    for path in _walk(tree):
        if path.name == ".git":
            has_git = True
        elif not _is_directory(path):
            entries[path.relative_to(tree).as_posix()] = _entry(path)
    return Snapshot(entries=entries, has_git=has_git)


def differences(before: Snapshot, after: Snapshot) -> Workspace:
    """What was done to a tree between two snapshots: the paths, ordered, in the form of the cell's row."""
    old, new = before.entries, after.entries
    return Workspace(
        added=sorted(printable(path) for path in new.keys() - old.keys()),
        removed=sorted(printable(path) for path in old.keys() - new.keys()),
        modified=sorted(printable(path) for path in old.keys() & new.keys() if old[path] != new[path]),
        extra_git_dir=after.has_git,
    )


def printable(path: str) -> str:
    """A path as text that every JSON reader takes: a byte that is not UTF-8 becomes its escape in hexadecimal."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def content_digest(tree: Path) -> str:
    """``sha256:<hex>`` over the paths and contents of a tree's files, whatever their order, modes and times.

    Interpreter caches are no part of it: running a task's own files must not change what task it is.
    """
    whole = hashlib.sha256()
    for path, entry in sorted(snapshot(tree).entries.items()):
        if not _CACHES & set(Path(path).parts):
            whole.update(f"{entry.kind}\0{entry.digest}\0".encode() + os.fsencode(path) + b"\n")
    return f"sha256:{whole.hexdigest()}"


def copy_tree(source: Path, target: Path) -> list[str]:
    """Copy a tree's files and inner links into a directory that is created for it.

    A link that leads out of the tree, and whatever is neither a file, a link nor a directory, is left behind;
    so are a ``.git`` and interpreter caches.

    Returns:
        The paths of the links and special files left behind.

    """
    target.mkdir(parents=True)
    left = []
    for path in _walk(source):
        relative = path.relative_to(source)
        if path.name == ".git" or _CACHES & set(relative.parts):
            continue
        if _is_directory(path):
            (target / relative).mkdir()
        elif path.is_symlink() and _stays_inside(path, source):
            (target / relative).symlink_to(path.readlink())
        elif _is_file(path):
            _copy_file(path, target / relative)
        else:
            left.append(printable(relative.as_posix()))
    return left


def overlay(source: Path, target: Path) -> None:
    """Lay a tree over another: each of its files takes the place of whatever stands there.

    Links and files on the way to it give way to directories, so that nothing is written through a link.
    """
    for path in _walk(source):
        relative = path.relative_to(source)
        if not _is_file(path) or _CACHES & set(relative.parts):
            continue
        _make_way(target, relative)
        _copy_file(path, target / relative)


def restore_tests(tests: Path, workdir: Path, target: Path) -> None:
    """Put the pristine graders of a task over a collected workspace.

    A directory whose files in the task's ``workdir`` are all the graders' own is theirs: whatever else the
    agent put there (a ``conftest.py``, another test) is removed first. A directory that they share with source stays.
    """
    graders = set(snapshot(tests).entries)
    given = set(snapshot(workdir).entries)
    for directory in {parent for path in graders for parent in list(Path(path).parents)[:-1]}:
        inside = {path for path in given if directory in Path(path).parents}
        if inside <= graders:
            _make_way(target, directory)
    overlay(tests, target)


def open_up(tree: Path) -> None:
    """Give the owner back the rights to read and change everything in a tree.

    Raises:
        OSError: the tree is not a directory, or holds a path that is too long for this system.

    """
    _require_directory(tree)
    for path in itertools.chain([tree], _walk(tree, into_git=True)):
        mode = path.lstat().st_mode
        wanted = stat.S_IRWXU if stat.S_ISDIR(mode) else stat.S_IRUSR | stat.S_IWUSR
        if not stat.S_ISLNK(mode) and (mode & wanted) != wanted:
            path.chmod(stat.S_IMODE(mode) | wanted)


def remove_tree(tree: Path) -> None:
    """Remove a tree, whatever rights were taken away in it. One that is gone already is no error.

    Every directory is moved up to the top before it is emptied, so that no path is longer than what is there
    to be removed: how deep a tree is, and how long its names, is the agent's choice.
    """
    if not tree.is_symlink() and tree.is_dir():
        numbers, waiting = itertools.count(), [tree]
        while waiting:
            directory = waiting.pop()
            directory.chmod(stat.S_IRWXU)
            for path in list(directory.iterdir()):
                if not _is_directory(path):
                    path.unlink()
                    continue
                path.chmod(stat.S_IRWXU)
                waiting.append(path.rename(_free_name(tree, numbers)))
            if directory != tree:
                directory.rmdir()
        tree.rmdir()
    else:
        tree.unlink(missing_ok=True)


def _free_name(tree: Path, numbers: Iterator[int]) -> Path:
    return next(path for path in (tree / f".removed-{number}" for number in numbers) if not os.path.lexists(path))


def _require_directory(tree: Path) -> None:
    """An agent may have put a link in the place of its workspace; it is not followed."""
    if not _is_directory(tree):
        raise NotADirectoryError(errno.ENOTDIR, "no directory is there any more", str(tree))


def _walk(tree: Path, *, into_git: bool = False) -> Iterator[Path]:
    """Every path below a tree, a directory before what it holds; what a ``.git`` holds only where asked for.

    Without recursion: how deep a tree is, is the agent's choice.
    """
    _require_directory(tree)
    waiting = sorted(tree.iterdir(), reverse=True)
    while waiting:
        path = waiting.pop()
        yield path
        if _is_directory(path) and (into_git or path.name != ".git"):
            waiting.extend(sorted(path.iterdir(), reverse=True))


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _entry(path: Path) -> Entry:
    if path.is_symlink():
        return Entry(kind="symlink", digest=hashlib.sha256(os.fsencode(path.readlink())).hexdigest())
    if not _is_file(path):
        return Entry(kind="special")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(kind="file", digest=digest, executable=bool(path.stat().st_mode & stat.S_IXUSR))


def _copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    target.chmod(stat.S_IMODE(source.stat().st_mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR)


def _stays_inside(link: Path, tree: Path) -> bool:
    """Whether a link's target is within the tree; judged without looking at what is there.

    A ``..`` after a name could leave through another link, and is refused. With those only in front, every
    inner link ends inside, so a chain of them does.
    """
    parts = link.readlink().parts
    names = [part for part in parts if part != ".."]
    ups = len(parts) - len(names)
    depth = len(link.relative_to(tree).parts) - 1
    return parts[:1] != ("/",) and ups <= depth and ".." not in parts[ups:]


def _make_way(target: Path, relative: Path) -> None:
    """Leave nothing at a path of a tree, and only true directories on the way to it."""
    for depth in range(1, len(relative.parts)):
        step = target.joinpath(*relative.parts[:depth])
        if step.is_symlink() or (step.exists() and not step.is_dir()):
            step.unlink()
        step.mkdir(exist_ok=True)
    place = target / relative
    if place.is_dir() and not place.is_symlink():
        remove_tree(place)
    else:
        place.unlink(missing_ok=True)
