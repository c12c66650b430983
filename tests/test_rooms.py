"""The house rules that no linter knows: arrows between the rooms, imports without effects, short modules."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "cellmeter_proxy": ROOT / "proxy" / "cellmeter_proxy",
    "cellmeter_scoring": ROOT / "scoring" / "cellmeter_scoring",
    "cellmeter_harness": ROOT / "harness" / "cellmeter_harness",
}
MAY_IMPORT = {
    "cellmeter_proxy": {"cellmeter_proxy"},
    "cellmeter_scoring": {"cellmeter_proxy", "cellmeter_scoring"},
    "cellmeter_harness": {"cellmeter_proxy", "cellmeter_scoring", "cellmeter_harness"},
}
# click is not among them: sqlite-utils loads it.
HEAVY = ("aiohttp", "mitmproxy", "tiktoken", "genai_prices", "uvloop", "rich")
MODULE_LINES = 400
SLOW = ("aiohttp", "genai_prices", "prometheus_client", "rich.console", "sqlite_utils", "tiktoken", "uvloop")


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of ours with the name of its room; what is handed to agents is not ours to import."""
    for room, directory in ROOMS.items():
        for path in sorted(directory.rglob("*.py")):
            if not {"tasks", "agents"} & set(path.relative_to(directory).parts[:1]) or path.name == "__init__.py":
                yield room, path


def module_name(room: str, path: Path) -> str:
    parts = path.relative_to(ROOMS[room].parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports when it is imported, or in a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


ALL = [pytest.param(room, path, id=module_name(room, path)) for room, path in sources()]


@pytest.mark.parametrize(("room", "path"), ALL)
def test_data_flows_one_way_between_the_rooms(room: str, path: Path) -> None:
    ours = {name.partition(".")[0] for name in imports_of(path)} & set(ROOMS)
    assert ours <= MAY_IMPORT[room]


@pytest.mark.parametrize(("room", "path"), ALL)
def test_a_module_is_short_enough_to_be_read(room: str, path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES, room


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {module_name(room, path): path for room, path in sources()}
    graph = {name: {other for other in imports_of(path) if other in names} - {name} for name, path in names.items()}
    packages = {name for name, path in names.items() if path.name == "__init__.py"}
    # A module's own package is imported before it; that is no arrow between two of them.
    for name, others in graph.items():
        others -= {package for package in packages if name.startswith(package + ".")}
    while leaves := {name for name, others in graph.items() if not others}:
        graph = {name: others - leaves for name, others in graph.items() if name not in leaves}
    assert graph == {}


ALONE = f"""
import os, sys
import {", ".join(SLOW)}

for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        __import__(name)
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{{name}} cannot be imported")
"""
"""Each module in a process that has none of ours yet. What is slow and not ours is imported once for all, and no
process takes the time to clean up: both are most of a process's cost."""


def test_every_module_imports_alone_without_a_warning_or_a_word() -> None:
    names = [module_name(room, path) for room, path in sources() if path.name != "__main__.py"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, *names], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def loaded_by(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sorted(sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_scoring_loads_none_of_what_it_does_not_need() -> None:
    assert not loaded_by("cellmeter_scoring") & set(HEAVY)


@pytest.mark.parametrize("module", ["cellmeter_proxy", "cellmeter_scoring", "cellmeter_harness"])
def test_importing_a_room_is_cheap(module: str) -> None:
    """Counted in modules rather than in seconds, which depend on the machine: the interpreter alone loads about 60."""
    assert len(loaded_by(module)) < 340


def test_importing_a_room_leaves_nothing_behind(tmp_path: Path) -> None:
    program = "import threading, os, cellmeter_proxy.server, cellmeter_scoring, cellmeter_harness.cli\n"
    program += "print(threading.active_count(), os.listdir('.'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "1 []"
