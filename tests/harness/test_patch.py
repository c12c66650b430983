"""A patch says what was done to a tree, in a form that git applies, within its bound."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_harness.patch import MAX_FILE_BYTES, MAX_PATCH_BYTES, make_patch
from cellmeter_harness.workspace import differences, snapshot

LINES = st.lists(st.sampled_from(["a\n", "b\n", "\r\n", "\x0cform\n", "end", "é\u2028x\n"]), max_size=12).map("".join)


def patch_of(old: Path, new: Path) -> bytes:
    return make_patch(old, snapshot(old), new, snapshot(new))


def applied(old: Path, patch: bytes) -> Path:
    subprocess.run(["git", "apply", "--whitespace=nowarn", "-"], cwd=old, input=patch, check=True)
    return old


def test_git_applies_the_patch_and_gets_the_same_tree(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "src").mkdir(parents=True)
    (old / "src/lib.rs").write_text("fn a() {}\nfn b() {}\n")
    (old / "gone").write_text("no newline at the end")
    (old / "run.sh").write_text("echo\n")
    shutil.copytree(old, new)
    (new / "src/lib.rs").write_text("fn a() {}\nfn c() {}")
    (new / "gone").unlink()
    (new / "run.sh").chmod(0o755)
    (new / 'na"me\twith\nlines').write_text("x\n")
    (new / "empty").touch()
    (new / "link").symlink_to("src/lib.rs")

    patch = patch_of(old, new)

    assert b"-fn b() {}\n+fn c() {}\n\\ No newline at end of file\n" in patch
    assert b'"b/na\\"me\\011with\\012lines"' in patch
    assert differences(snapshot(applied(old, patch)), snapshot(new)).modified == []
    assert snapshot(old) == snapshot(new)


def test_what_cannot_be_compared_is_named_with_its_size(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    (new / "data.bin").write_bytes(b"\0\1")
    (new / "latin").write_bytes(b"caf\xe9")
    (new / "long").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (new / "lines").write_bytes(b"x\n" * 5001)
    patch = patch_of(old, new).decode()
    for name, size in (("data.bin", 2), ("latin", 4), ("long", MAX_FILE_BYTES + 1), ("lines", 10_002)):
        start = patch.index(f"diff --git a/{name} b/{name}\nnew file mode 100644\n")
        assert f"from 0 bytes, to {size} bytes" in patch[start : start + 200]


def test_a_patch_keeps_its_bound_and_still_names_every_file(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    for number in range(8):
        (new / f"file{number}").write_text("y" * (MAX_FILE_BYTES - 10))
    patch = patch_of(old, new)
    assert len(patch) < MAX_PATCH_BYTES + 8 * 200
    assert patch.count(b"diff --git") == 8
    assert patch.count(b"# left out") == 5


@settings(max_examples=25, deadline=None)
@given(before=LINES, after=LINES)
def test_any_two_texts_make_a_patch_that_git_applies(before: str, after: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        old, new = Path(directory, "old"), Path(directory, "new")
        old.mkdir()
        new.mkdir()
        (old / "f").write_bytes(before.encode())
        (new / "f").write_bytes(after.encode())
        patch = patch_of(old, new)
        assert (patch == b"") == (before == after)
        if patch:
            assert (applied(old, patch) / "f").read_bytes() == after.encode()
