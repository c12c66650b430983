"""What was done to a tree, as a patch that ``git apply`` takes.

Invariant: the patch is bounded, whatever is in the trees. A file that is binary, too long or beyond the
bound is named in it with its size, never silently left out. Headers follow git's extended form
(https://git-scm.com/docs/diff-format).
"""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cellmeter_harness.workspace import Entry, Snapshot

MAX_PATCH_BYTES: Final = 1_048_576
MAX_FILE_BYTES: Final = 262_144
MAX_FILE_LINES: Final = 5_000
"""Comparing line by line is more than linear work: longer files are named, not compared."""

_NO_NEWLINE: Final = "\\ No newline at end of file\n"


def make_patch(before: Path, old: Snapshot, after: Path, new: Snapshot) -> bytes:
    """The difference of two trees whose snapshots are given, ordered by path.

    Raises:
        OSError: a file that a snapshot lists cannot be read.

    """
    whole = bytearray()
    for path in sorted(old.entries.keys() | new.entries.keys()):
        entries = old.entries.get(path), new.entries.get(path)
        if entries[0] == entries[1]:
            continue
        header = _header(path, *entries)
        body = _body(path, _content(before / path, entries[0]), _content(after / path, entries[1]))
        if len(whole) + len(header) + len(body) > MAX_PATCH_BYTES:
            body = b"# left out: the patch is at its bound\n"
        whole += header + body
    return bytes(whole)


def _header(path: str, old: Entry | None, new: Entry | None) -> bytes:
    lines = [b"diff --git %s %s" % (_quoted("a/" + path), _quoted("b/" + path))]
    if old is None and new is not None:
        lines.append(b"new file mode " + _mode(new))
    elif new is None and old is not None:
        lines.append(b"deleted file mode " + _mode(old))
    elif old is not None and new is not None and _mode(old) != _mode(new):
        lines += [b"old mode " + _mode(old), b"new mode " + _mode(new)]
    return b"\n".join(lines) + b"\n"


def _mode(entry: Entry) -> bytes:
    if entry.kind == "symlink":
        return b"120000"
    return b"100755" if entry.executable else b"100644"


def _content(path: Path, entry: Entry | None) -> bytes | int | None:
    """The content of a leaf; its size where that is too large to be compared; None where there is nothing."""
    if entry is None or entry.kind == "special":
        return None
    if entry.kind == "symlink":
        return os.fsencode(path.readlink())
    size = path.stat().st_size
    return size if size > MAX_FILE_BYTES else path.read_bytes()


def _body(path: str, old: bytes | int | None, new: bytes | int | None) -> bytes:
    if old == new:
        return b""
    before, after = _lines(old), _lines(new)
    if before is None or after is None:
        sizes = ", ".join(f"{word} {_size(value)} bytes" for word, value in (("from", old), ("to", new)))
        return f"# binary or too long to be compared: {sizes}\n".encode()
    names = ["/dev/null" if old is None else "a/" + path, "/dev/null" if new is None else "b/" + path]
    head = b"--- %s\n+++ %s\n" % tuple(_quoted(name) for name in names)
    hunks = "".join(_marked(list(difflib.unified_diff(before, after))[2:]))
    return head + hunks.encode("utf-8", "surrogateescape") if hunks else b""


def _marked(lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}"


def _lines(content: bytes | int | None) -> list[str] | None:
    """Lines of text, each with its newline; None where the content is no text or too long for comparing."""
    if content is None:
        return []
    if isinstance(content, int) or b"\0" in content or content.count(b"\n") > MAX_FILE_LINES:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1].removesuffix("\n")
    return [line for line in lines if line]


def _size(content: bytes | int | None) -> int:
    return content if isinstance(content, int) else len(content or b"")


def _quoted(path: str) -> bytes:
    """A path as git writes it: in quotes with C escapes where a plain one would be ambiguous."""
    raw = os.fsencode(path)
    if all(0x20 < byte < 0x7F and byte not in b'"\\' for byte in raw):
        return raw
    return b'"' + b"".join(_escaped(byte) for byte in raw) + b'"'


def _escaped(byte: int) -> bytes:
    if byte in b'"\\':
        return b"\\" + bytes([byte])
    return bytes([byte]) if 0x20 <= byte < 0x7F else b"\\%03o" % byte
