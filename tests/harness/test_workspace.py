"""Trees are read, compared, copied and overlaid without anything outside of them being touched."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_harness.workspace import (
    content_digest,
    copy_tree,
    differences,
    open_up,
    overlay,
    remove_tree,
    restore_tests,
    snapshot,
)
from cellmeter_proxy.record import Workspace

NAMES = st.sampled_from(["a", "b", "c.py", "Ä", "with space", ".hidden", "-x"])
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=20), max_size=8)


def write(root: Path, files: dict[str, bytes]) -> Path:
    """Write what can stand side by side: a path below a file is left out."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_was_added_removed_and_modified_is_told_by_path(tmp_path: Path) -> None:
    tree = write(tmp_path / "w", {"src/lib.rs": b"old", "gone.txt": b"x", "run.sh": b"echo", "same": b"="})
    before = snapshot(tree)
    write(tree, {"src/lib.rs": b"new", "new/deep/file": b""})
    (tree / "gone.txt").unlink()
    (tree / "run.sh").chmod(0o755)
    (tree / "empty").mkdir()
    (tree / "link").symlink_to("/etc/passwd")
    os.mkfifo(tree / "pipe")
    assert differences(before, snapshot(tree)) == Workspace(
        added=["link", "new/deep/file", "pipe"], removed=["gone.txt"], modified=["run.sh", "src/lib.rs"]
    )


def test_a_git_directory_is_noted_and_never_listed(tmp_path: Path) -> None:
    tree = write(tmp_path / "w", {"a": b"1"})
    before = snapshot(tree)
    write(tree, {".git/config": b"", "sub/.git/HEAD": b""})
    assert differences(before, snapshot(tree)) == Workspace(extra_git_dir=True)


def test_a_name_that_is_not_utf_8_is_told_in_escapes(tmp_path: Path) -> None:
    tree = write(tmp_path / "w", {})
    before = snapshot(tree)
    Path(os.fsdecode(bytes(tree) + b"/caf\xe9")).write_text("")
    assert differences(before, snapshot(tree)).added == ["caf\\xe9"]


def test_a_link_into_the_tree_is_copied_and_one_out_of_it_is_left_behind(tmp_path: Path) -> None:
    write(tmp_path, {"secret": b"s"})
    tree = write(tmp_path / "w", {"a/b/file": b"1"})
    (tree / "a/b/up").symlink_to("../../a/b/file")
    (tree / "a/root").symlink_to("..")
    (tree / "out").symlink_to("../secret")
    (tree / "absolute").symlink_to(tmp_path / "secret")
    # Through "a/root", which is the tree itself, this one would end beside the tree.
    (tree / "a/b/tricky").symlink_to("../root/../secret")
    os.mkfifo(tree / "pipe")

    assert sorted(copy_tree(tree, tmp_path / "copy")) == ["a/b/tricky", "absolute", "out", "pipe"]
    assert (tmp_path / "copy/a/b/up").read_bytes() == b"1"
    assert (tmp_path / "copy/a/root").readlink() == Path("..")


def test_a_copy_leaves_repositories_and_interpreter_caches_behind_and_can_be_written(tmp_path: Path) -> None:
    tree = write(tmp_path / "w", {".git/hooks/x": b"", "p/__pycache__/m.pyc": b"", "p/m.py": b"1"})
    (tree / "p/m.py").chmod(0o400)
    assert copy_tree(tree, tmp_path / "copy") == []
    assert contents(tmp_path / "copy") == {"p/m.py": b"1"}
    assert (tmp_path / "copy/p/m.py").stat().st_mode & 0o777 == 0o600


def test_an_overlay_takes_the_place_of_whatever_stands_there_and_writes_through_no_link(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"keep": b"k"})
    over = write(tmp_path / "over", {"tests/test_a.py": b"good", "check": b"good", "dir/x": b"good"})
    tree = write(tmp_path / "w", {"check/was/a/directory": b"", "dir": b"was a file"})
    (tree / "tests").symlink_to(outside, target_is_directory=True)

    overlay(over, tree)

    assert contents(tree) == {"tests/test_a.py": b"good", "check": b"good", "dir/x": b"good"}
    assert not (tree / "tests").is_symlink()
    assert contents(outside) == {"keep": b"k"}


def test_pristine_tests_come_back_and_hooks_beside_them_go(tmp_path: Path) -> None:
    tests = write(tmp_path / "tests", {"tests/test_a.py": b"pristine", "src/b_test.go": b"pristine"})
    workdir = write(tmp_path / "workdir", {"tests/test_a.py": b"pristine", "src/b_test.go": b"", "src/b.go": b""})
    collected = write(
        tmp_path / "collected",
        {
            "tests/test_a.py": b"assert True",
            "tests/conftest.py": b"cheat",
            "tests/sub/__init__.py": b"cheat",
            "src/b.go": b"work of the agent",
            "src/helper.go": b"work of the agent",
        },
    )
    restore_tests(tests, workdir, collected)
    assert contents(collected) == {
        "tests/test_a.py": b"pristine",
        "src/b_test.go": b"pristine",
        "src/b.go": b"work of the agent",
        "src/helper.go": b"work of the agent",
    }


def test_a_tree_whose_rights_were_taken_away_can_be_read_again_and_removed(tmp_path: Path) -> None:
    tree = write(tmp_path / "w", {"a/b/file": b"1", ".git/objects/x": b""})
    for path in (tree / "a/b/file", tree / "a/b", tree / "a", tree / ".git/objects", tree):
        path.chmod(0)
    open_up(tree)
    assert (tree / "a/b/file").stat().st_mode & 0o600 == 0o600
    assert (tree / ".git/objects").stat().st_mode & 0o700 == 0o700
    remove_tree(tree)
    remove_tree(tree)
    assert not tree.exists()


def test_a_tree_deeper_than_the_interpreters_stack_is_read_copied_and_removed(tmp_path: Path) -> None:
    deep = tmp_path / "w"
    deep.mkdir()
    # Shorter than PATH_MAX, deeper than sys.getrecursionlimit().
    subprocess.run(["mkdir", "-p", "/".join(["d"] * 1100)], cwd=deep, check=True)
    try:
        assert snapshot(deep).entries == {}
        assert copy_tree(deep, tmp_path / "c") == []
        remove_tree(deep)
        assert not deep.exists()
    finally:  # the test runner cannot remove such trees
        subprocess.run(["rm", "-rf", tmp_path / "w", tmp_path / "c"], check=True)


def test_removing_a_tree_does_not_follow_its_links(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"keep": b"k"})
    tree = write(tmp_path / "w", {})
    (tree / "link").symlink_to(outside, target_is_directory=True)
    remove_tree(tree)
    assert contents(outside) == {"keep": b"k"}


@settings(max_examples=60, deadline=None)
@given(before=TREES, after=TREES)
def test_copies_are_equal_and_differences_are_the_set_differences(
    before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        old, new = write(root / "old", before), write(root / "new", after)
        assert copy_tree(old, root / "copy") == []
        assert contents(root / "copy") == contents(old)
        assert content_digest(root / "copy") == content_digest(old)
        found = differences(snapshot(old), snapshot(new))
        first, second = contents(old), contents(new)
        assert set(found.added) == second.keys() - first.keys()
        assert set(found.removed) == first.keys() - second.keys()
        assert set(found.modified) == {path for path in first.keys() & second.keys() if first[path] != second[path]}

        overlay(new, root / "copy")
        assert second.items() <= contents(root / "copy").items()


def test_a_tree_that_is_deeper_than_a_path_may_be_long_is_refused_and_removed(tmp_path: Path) -> None:
    tree = write(tmp_path / "w", {"file": b""})
    name, level = "d" * 200, os.open(tree, os.O_RDONLY)
    for _ in range(60):
        os.mkdir(name, dir_fd=level)
        below = os.open(name, os.O_RDONLY, dir_fd=level)
        os.close(level)
        level = below
    os.mkdir("locked", mode=0, dir_fd=level)
    os.close(level)
    with pytest.raises(OSError, match="File name too long"):
        open_up(tree)
    remove_tree(tree)
    assert not tree.exists()


def test_a_link_in_the_place_of_a_tree_is_not_followed(tmp_path: Path) -> None:
    victim = write(tmp_path / "victim", {"secret": b"1"})
    (victim / "secret").chmod(0o400)
    tree = tmp_path / "w"
    tree.symlink_to(victim)
    for read in (open_up, snapshot, lambda tree: copy_tree(tree, tmp_path / "copy")):
        with pytest.raises(NotADirectoryError):
            read(tree)
    remove_tree(tree)
    assert not tree.is_symlink()
    assert (victim / "secret").stat().st_mode & 0o777 == 0o400
