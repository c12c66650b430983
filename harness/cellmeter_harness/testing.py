"""What tests of cells and sweeps need: a recorder without a proxy, and the smallest task and agent.

Nothing here pretends: the log is a real file, the task is graded by running its grader, the agent is a program.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from cellmeter_harness.agent import Agent, load_agent
from cellmeter_harness.task import Task, load_task
from cellmeter_proxy.budget import Budget
from cellmeter_proxy.log import Log, make_blob
from cellmeter_proxy.record import Record
from cellmeter_proxy.throttle import Throttle

T = TypeVar("T")


class LogRecorder:
    """Writes to a log of its own, at once. Its address is whatever the test serves, or nothing."""

    def __init__(self, path: Path, url: str = "http://127.0.0.1:9", socket_path: Path | None = None) -> None:
        self.log = Log.create(path, durability="process")
        self.keys: dict[str, tuple[str, int]] = {}
        """Every key that was issued, with its cell and attempt."""
        self.valid: set[str] = set()
        self.budgets: list[Budget | None] = []
        """Of every key, in the order of their issue."""
        self.spent: str | None = None
        """What ``sweep_spent`` says."""
        self.throttle = Throttle()
        self._url = url
        self._socket_path = socket_path

    @property
    def url(self) -> str:
        return self._url

    @property
    def socket_path(self) -> Path | None:
        return self._socket_path

    def sweep_spent(self) -> str | None:
        return self.spent

    def issue_key(self, cell_id: str, attempt: int, budget: Budget | None = None) -> str:
        self.budgets.append(budget)
        key = f"cm-{len(self.keys):032d}"
        self.keys[key] = (cell_id, attempt)
        self.valid.add(key)
        return key

    def revoke_key(self, key: str) -> None:
        self.valid.discard(key)

    async def append(self, *records: Record) -> None:
        self.log.append(*records)

    async def replace(self, record: Record) -> None:
        self.log.replace(record)

    async def store(self, content: bytes) -> str:
        blob = make_blob(content)
        self.log.put_blob(blob)
        return blob.digest

    async def read(self, query: Callable[[Log], T]) -> T:
        return query(self.log)

    def close(self) -> None:
        self.log.close()


TASK_TOML: Final = """
id = "tiny/{name}"
version = "v0.1"
category = "tiny"
language = "text"
description = "Write fixed into the file named state"
timeout_s = 20
expected_changes = ["state"]
requires = {requires}
[grader]
command = {grader}
timeout_s = 20
require_stdout = ["state is fixed"]
"""


def tiny_task(directory: Path, *, grader: str = '["sh", "tests/grade.sh"]', requires: str = '["sh"]') -> Task:
    """The smallest task with every part, written into a directory: a file to change, and a shell script that looks."""
    for part in ("workdir/tests", "tests/tests", "solution"):
        (directory / part).mkdir(parents=True)
    toml = TASK_TOML.format(name=directory.name, grader=grader, requires=requires)
    files = {
        "task.toml": toml,
        "workdir/README.md": "The file named state says broken. Make it say fixed.\n",
        "workdir/state": "broken\n",
        "workdir/tests/grade.sh": _GRADER,
        "tests/tests/grade.sh": _GRADER,
        "solution/state": "fixed\n",
    }
    for name, content in files.items():
        (directory / name).write_text(content)
    return load_task(directory)


_GRADER: Final = "[ -e tests/hook ] && . tests/hook\ngrep -qx fixed state && echo state is fixed\n"


def tiny_agent(path: Path, script: str, more: str = "") -> Agent:
    """An agent that is a shell script, written as a manifest; the script finds its prompt in ``$1``."""
    words = json.dumps(["sh", "-c", script, "tiny", "{prompt}"])
    head = f'name = "{path.stem}"\nversion = "1.0"\ndescription = "A shell script"\nkind = "command"\n'
    path.write_text(f"{head}command = {words}\n{more}\n")
    return load_agent(path)
