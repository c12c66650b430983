"""A task: a directory that holds what the agent sees, what grades it, and a solution that passes.

``task.toml`` says what the task is; ``workdir/`` is what the agent finds, with ``README.md`` as the
full prompt; ``tests/`` holds the pristine graders, laid over the workspace before grading;
``solution/`` is laid over the workspace by the oracle.

Invariant: a ``Task`` that exists is complete. Everything about it was checked when it was loaded.
"""

import difflib
import fnmatch
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from cellmeter_harness.toml_file import convert_toml, read_toml, wrong
from cellmeter_harness.workspace import content_digest
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import Constraint, TaskFacts

Seconds = Annotated[float, msgspec.Meta(gt=0)]
_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*")
_PARTS: Final = ("workdir", "tests", "solution")


class Grader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the collected workspace is judged."""

    command: Annotated[list[str], msgspec.Meta(min_length=1)]
    """Run in the workspace; ``{python}`` as its first element is the sandbox's interpreter."""
    timeout_s: Seconds = 120
    require_stdout: list[str] = []
    """Each of these must be on the grader's stdout: an exit code alone does not show that tests ran."""
    image: str | None = None
    """The container image that it runs in; read by nothing as long as there is no container sandbox."""


class _ConstraintTable(Constraint, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _TaskFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    version: str
    category: str
    language: str
    description: str
    timeout_s: Seconds = 600
    expected_changes: list[str] = []
    expected_refusal: bool = False
    refusal_documents: list[str] = []
    requires: list[str] = []
    grader: Grader
    constraints: list[_ConstraintTable] = []


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was read from its directory and found complete."""

    id: str
    """``<category>/<name>``"""
    version: str
    category: str
    language: str
    description: str
    """One line: what the agent is told. The full prompt is ``workdir/README.md``."""
    timeout_s: float
    expected_changes: list[str]
    expected_refusal: bool
    refusal_documents: list[str]
    requires: list[str]
    """Programs that the agent and the grader need."""
    grader: Grader
    constraints: list[Constraint]
    directory: Path
    digest: str
    """Over the content of every file of the task: two tasks with the same digest are the same task."""

    @property
    def name(self) -> str:
        """The id without its category."""
        return self.id.partition("/")[2]

    @property
    def workdir(self) -> Path:
        """What the agent sees."""
        return self.directory / "workdir"

    @property
    def tests(self) -> Path:
        """The pristine graders."""
        return self.directory / "tests"

    @property
    def solution(self) -> Path:
        """The files that make the grader pass."""
        return self.directory / "solution"

    def facts(self) -> TaskFacts:
        """What scoring needs to know, for the cell's row."""
        return TaskFacts(
            language=self.language,
            description=self.description,
            timeout_s=self.timeout_s,
            expected_changes=self.expected_changes,
            expected_refusal=self.expected_refusal,
            refusal_documents=self.refusal_documents,
            constraints=self.constraints,
        )


def load_task(directory: Path) -> Task:
    """Read and check a task.

    Raises:
        CellmeterError: a file or a part is missing, or ``task.toml`` says something that is not allowed.

    """
    path = directory / "task.toml"
    table = convert_toml(read_toml(path), _TaskFile, path)
    _check(table, path)
    for part in _PARTS:
        if not (directory / part).is_dir():
            raise CellmeterError(f"the task {table.id} has no directory {directory / part}", exit_code=2)
    if not (directory / "workdir" / "README.md").is_file():
        raise CellmeterError(f"the task {table.id} has no workdir/README.md, which is its full prompt", exit_code=2)
    values = msgspec.structs.asdict(table)
    values["constraints"] = [msgspec.convert(one, Constraint, from_attributes=True) for one in table.constraints]
    return Task(**values, directory=directory.absolute(), digest=content_digest(directory))


def builtin_tasks() -> list[Task]:
    """The tasks that ship with cellmeter, ordered by id."""
    return _tasks_below(Path(__file__).parent / "tasks")


def find_tasks(patterns: Sequence[str], extra_dirs: Sequence[Path] = (), *, base: Path | None = None) -> list[Task]:
    """The tasks that patterns name, in the order of the patterns and then of their ids, each once.

    Args:
        patterns: globs over task ids (``polyglot/*``), or paths of a task or of a directory of tasks
            (anything that starts with ``.``, ``/`` or ``~``).
        extra_dirs: directories whose tasks can be named by id beside the built-in ones.
        base: where relative paths start; the current directory if not given.

    Raises:
        CellmeterError: a pattern names nothing, a task is not complete, or one id names two different tasks.

    """
    corpus = builtin_tasks() + [task for extra in extra_dirs for task in _tasks_below(extra)]
    found: dict[str, Task] = {}
    for pattern in patterns:
        for task in _named(pattern, corpus, base or Path()):
            if found.setdefault(task.id, task).digest != task.digest:
                raise CellmeterError(
                    f"two different tasks have the id {task.id}: {found[task.id].directory} and {task.directory}",
                    hint="give one of them another id in its task.toml",
                    exit_code=2,
                )
    return list(found.values())


def _named(pattern: str, corpus: list[Task], base: Path) -> list[Task]:
    if pattern.startswith((".", "/", "~")):
        directory = (base / Path(pattern).expanduser()).absolute()
        tasks = _tasks_below(directory)
        hint = "a task is a directory with a task.toml"
    else:
        tasks = [task for task in corpus if fnmatch.fnmatchcase(task.id, pattern)]
        ids = [task.id for task in corpus]
        near = difflib.get_close_matches(pattern, ids, n=3) or ids
        hint = f"known: {', '.join(near)}" if near else "a path starts with ./ or /"
    if not tasks:
        raise CellmeterError(f"no task is named by {pattern}", hint=hint, exit_code=2)
    return tasks


def _tasks_below(directory: Path) -> list[Task]:
    return sorted((load_task(found) for found in _directories(directory)), key=lambda task: task.id)


def _directories(directory: Path) -> Iterator[Path]:
    """Task directories at or below a directory; what lies inside a task is never looked at."""
    if (directory / "task.toml").is_file():
        yield directory
    elif directory.is_dir():
        for child in sorted(directory.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _directories(child)


def _check(table: _TaskFile, path: Path) -> None:
    if not _ID.fullmatch(table.id):
        raise wrong(path, "id", "not of the form <category>/<name> in lower case, as in polyglot/rust-lifetime-fix")
    if table.id.partition("/")[0] != table.category:
        raise wrong(path, "category", f"not the first part of the id {table.id}")
    if "\n" in table.description or not table.description.strip():
        raise wrong(path, "description", "not one line")
    if table.expected_refusal and not table.refusal_documents:
        raise wrong(path, "refusal_documents", "empty, although a refusal is expected")
    for constraint in table.constraints:
        _check_constraint(constraint, path)


def _check_constraint(constraint: Constraint, path: Path) -> None:
    wanted = {"file-not-touched": "path", "file-pattern-required-in-diff": "paths"}.get(constraint.kind)
    for key in ("path", "paths"):
        given = bool(getattr(constraint, key))
        if given != (key == wanted):
            raise wrong(path, f"constraints.{key}", f"{'not allowed' if given else 'missing'} for {constraint.kind}")
