"""Which trees of this machine a command must be able to read, so that the programs it needs work.

Invariant: what is made visible is named by the need for it: the system's own directories, the installation of
each program, toolchains. The user's home is never visible as a whole, nor are places where keys are kept.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from cellmeter_harness.sandbox.environment import search_path, toolchain_homes
from cellmeter_harness.sandbox.supervised import interpreter

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
CONFIGURATION: Final = (
    "alternatives",
    "ca-certificates",
    "fonts",
    "java*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pki",
    "protocols",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
"""Under ``/etc``: what programs read to work, and nothing that says who uses this machine."""

_SHEBANG_BYTES: Final = 256
_SHARED: Final = frozenset({".local", ".cargo", "home", "root", ""})
"""Directories that hold a ``bin`` beside other things that are none of a program's business."""


def system_paths(root: Path = Path("/")) -> list[Path]:
    """The directories and files of the system that are here, links among them as they are."""
    trees = [root / name.lstrip("/") for name in SYSTEM]
    etc = [path for pattern in CONFIGURATION for path in sorted((root / "etc").glob(pattern))]
    return [path for path in trees + etc if path.exists()]


def program_trees(programs: Iterable[Path], environ: Mapping[str, str]) -> list[Path]:
    """The trees, beside the system's, that programs and toolchains live in; outermost only, ordered."""
    homes = [Path(path) for name, path in toolchain_homes(environ).items() if name != "RUSTUP_TOOLCHAIN"]
    trees = {interpreter().parent.parent, *homes}
    for program in programs:
        trees.update(_installation(program, search_path(environ)))
    found = {tree for tree in trees if tree.is_dir() and not _is_system(tree)}
    return sorted(tree for tree in found if not any(parent in found for parent in tree.parents))


def _installation(program: Path, path: list[Path]) -> Iterator[Path]:
    """Where a program, what it links to and its interpreter are installed."""
    seen = {program, program.resolve()}
    for place in seen:
        yield _prefix(place)
        if (modules := _outermost_modules(place)) is not None:
            yield modules
    real = program.resolve()
    yield from _virtual_environment(real.parent.parent)
    yield from _virtual_environment(program.parent.parent)
    script = _interpreter_of(real, path)
    if script is not None and script not in seen:
        yield from _installation(script, path)


def _prefix(program: Path) -> Path:
    directory = program.parent
    prefix = directory.parent
    shared = prefix.name in _SHARED or prefix == Path.home()
    return prefix if directory.name == "bin" and not shared else directory


def _outermost_modules(place: Path) -> Path | None:
    """The topmost ``node_modules`` above a file: packages find each other there."""
    return next((parent for parent in reversed(place.parents) if parent.name == "node_modules"), None)


def _virtual_environment(prefix: Path) -> Iterator[Path]:
    """The installation that a virtual environment was made from (``home`` in its pyvenv.cfg, PEP 405)."""
    config = prefix / "pyvenv.cfg"
    if config.is_file():
        for line in config.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home":
                yield _prefix(Path(value.strip(), "python"))
                yield _prefix((Path(value.strip()) / "python3").resolve())


def _interpreter_of(program: Path, path: list[Path]) -> Path | None:
    """The program that a script names in its first line, directly or through ``env``."""
    with program.open("rb") as file:
        first = file.read(_SHEBANG_BYTES).partition(b"\n")[0]
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode("utf-8", "replace").split()
    if len(words) > 1 and Path(words[0]).name == "env":
        named = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), None)
        found = shutil.which(named, path=":".join(str(entry) for entry in path)) if named else None
        return Path(found) if found else None
    return Path(words[0]) if words and Path(words[0]).is_file() else None


def _is_system(tree: Path) -> bool:
    return any(tree == Path(top) or Path(top) in tree.parents for top in SYSTEM)
