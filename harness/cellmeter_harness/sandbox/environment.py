"""The environment of a command: an allow-list, never the environment of the harness.

Invariant: apart from where tools are installed, nothing of the user's environment reaches a command; no
key, no proxy setting, no locale, no editor. What tools build and fetch goes to the room's cache, so that a
change in the workspace is a change that the agent made.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cellmeter_harness.sandbox.base import View
from cellmeter_harness.sandbox.supervised import interpreter

LOOPBACK = "127.0.0.1,localhost"


def environment(view: View, additions: Mapping[str, str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command in a room.

    Args:
        view: the room as the command sees it.
        additions: what the agent's manifest and the sweep add; they win.
        environ: the environment of the harness, from which only the places of tools are taken.

    """
    environ = os.environ if environ is None else environ
    own = {
        "PATH": os.pathsep.join(str(path) for path in search_path(environ)),
        "HOME": view.home,
        "TMPDIR": view.tmp,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TZ": "UTC",
        "USER": "agent",
        "LOGNAME": "agent",
        # Agents send loopback addresses to a proxy otherwise, where their HTTP library reads such settings.
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
        "PYTHONDONTWRITEBYTECODE": "1",
        "CARGO_HOME": f"{view.cache}/cargo",
        "CARGO_TARGET_DIR": f"{view.cache}/cargo-target",
        "GOCACHE": f"{view.cache}/go-build",
        "GOPATH": f"{view.cache}/go",
        "GOTOOLCHAIN": "local",
    }
    return own | toolchain_homes(environ) | dict(additions)


def toolchain_homes(environ: Mapping[str, str]) -> dict[str, str]:
    """Where toolchains are that do not follow from PATH: their variables, as this machine has them."""
    homes = {name: environ[name] for name in ("GOROOT", "JAVA_HOME", "RUSTUP_TOOLCHAIN") if environ.get(name)}
    rustup = Path(environ.get("RUSTUP_HOME") or Path(environ.get("HOME", "/"), ".rustup"))
    if rustup.is_dir():
        homes["RUSTUP_HOME"] = str(rustup)
    return homes


def search_path(environ: Mapping[str, str]) -> list[Path]:
    """The directories of PATH, less this program's own virtual environment, with its base interpreter's in front.

    The base interpreter's stays where it is if it is on PATH already.
    """
    listed = [Path(entry) for entry in environ.get("PATH", os.defpath).split(os.pathsep) if Path(entry).is_absolute()]
    own = Path(sys.prefix, "bin") if sys.prefix != sys.base_prefix else None
    kept = [path for path in dict.fromkeys(listed) if path != own]
    base = interpreter().parent
    return kept if base in kept else [base, *kept]
