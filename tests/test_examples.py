"""Every example is executed, as its first lines say.

``aider.toml`` needs the real aider: it is only read here, and run by ``tests/live/test_aider.py``.
"""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cellmeter_harness.sweep import load_sweep
from cellmeter_proxy.scripted import Script, ScriptedProvider, Turn

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr if "cellmeter_harness" not in arguments else "") == (0, ""), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def example_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("examples")
    shutil.copy(EXAMPLES / "sweep.toml", directory)
    assert "leaderboard" in run("-m", "cellmeter_harness", "run", "sweep.toml", cwd=directory)
    return directory / "example.db"


def test_the_sweep_fills_a_log_that_can_be_rescored(example_log: Path) -> None:
    lines = run(str(EXAMPLES / "rescore.py"), str(example_log), cwd=example_log.parent).splitlines()
    assert lines[0] == "cell\tcab-0.1\tcellmeter-1"
    assert len(lines) == 1 + 3 * 2 * 2
    assert all(line.count("\t") == 2 for line in lines)


def test_the_audit_counts_every_session(example_log: Path) -> None:
    *sessions, price = run(str(EXAMPLES / "audit.py"), str(example_log), cwd=example_log.parent).splitlines()
    assert len(sessions) == 4
    assert all(line.endswith("complete") for line in sessions)
    assert price == "no price: 20 calls: not priced (scripted/small)"


async def test_a_program_can_record_its_own_calls(tmp_path: Path) -> None:
    async with ScriptedProvider([Script(name="x", turns=[Turn(content="hello")])]) as provider:
        arguments = (str(EXAMPLES / "record_calls.py"), provider.url, "calls.db")
        printed = await asyncio.to_thread(lambda: run(*arguments, cwd=tmp_path))
        billed = provider.ledger[0].billed
    assert billed is not None
    assert printed.split() == ["1", "ok", str(billed.prompt_tokens), str(billed.completion_tokens), "provider"]


def test_the_aider_sweep_is_one_that_can_be_run() -> None:
    spec = load_sweep(EXAMPLES / "aider.toml")
    assert [task.id for task in spec.tasks] == ["mutations/rust-error-negated"]


def test_no_example_is_left_out() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(path.name in text for path in EXAMPLES.iterdir() if path.is_file())
