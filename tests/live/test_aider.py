"""The real aider on the cell of codingagentbench.com whose published token axis is zero, as a user types it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cellmeter_harness.agent import Agent
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_scoring import compose
from cellmeter_scoring.components import Components

pytestmark = pytest.mark.live

FindAgent = Callable[[str], Awaitable[Agent]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "aider.toml"
CELL = "aider/aider/mistralai/mistral-small-4-119b-2603/mutations/rust-error-negated#run1"
STATE_FILES = [
    ".aider.chat.history.md",
    ".aider.input.history",
    ".aider.tags.cache.v4/cache.db",
    ".aider/analytics.json",
    ".aider/caches/model_prices_and_context_window.json",
    ".aider/installs.json",
]
"""The unexpected changes of https://codingagentbench.com's page of this cell."""


def cellmeter(directory: Path, *arguments: str) -> str:
    """What the program writes to stdout."""
    command = [sys.executable, "-m", "cellmeter_harness", *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def calls_in(log: Path) -> list[Call]:
    with Log.read(log) as reading:
        return list(reading.rows(Call, "1 ORDER BY seq"))


async def test_the_published_cell_is_run_again_with_its_model_calls(
    tmp_path: Path, find: FindAgent, need: Callable[..., str]
) -> None:
    need("cargo")
    await find("aider")
    shutil.copy(EXAMPLE, tmp_path)
    cellmeter(tmp_path, "run", "aider.toml")
    (cell,) = json.loads(cellmeter(tmp_path, "score", "aider.db", "--methodology", "cab-0.1", "--format", "json"))
    axes: dict[str, Any] = cell["axes"]

    assert (cell["cell_id"], cell["failure_class"]) == (CELL, "none")
    assert axes["pass_rate"]["pass"] == 1
    assert "4 passed; 0 failed" in axes["pass_rate"]["stdout_tail"]
    assert axes["blast_radius"]["blast_radius"] == 6 / 7
    assert axes["blast_radius"]["unexpected_changes"] == STATE_FILES
    assert axes["blast_radius"]["modified"] == axes["blast_radius"]["expected_changes"] == ["src/lib.rs"]
    assert axes["blast_radius"]["extra_git_dir"] is True

    calls = calls_in(tmp_path / "aider.db")
    prompt, completion = (
        sum(getattr(call, count) for call in calls) for count in ("prompt_tokens", "completion_tokens")
    )
    assert (prompt, completion) > (0, 0)
    assert axes["tokens"]["model_calls"] == len(calls) == 2
    assert axes["tokens"]["tokens_per_correct_task"] == axes["tokens"]["total_tokens"] == prompt + completion
    assert axes["latency"]["wall_clock_ms"] > axes["latency"]["model_call_ms"] > 0
    components = Components(
        pass_rate=1.0,
        integrity=1.0,
        blast_radius=6 / 7,
        tokens_per_correct_task=float(prompt + completion),
        wall_clock_ms=axes["latency"]["wall_clock_ms"],
        expected_refusal=False,
        refusal_produced=False,
    )
    assert cell["composite"] == pytest.approx(compose(components, methodology="cab-0.1").composite, abs=1e-12)

    printed = [line for line in cellmeter(tmp_path, "audit", "aider.db").splitlines() if "agent printed" in line]
    for line, recorded in zip(printed, (prompt, completion), strict=True):
        assert f"recorded {recorded:,}: agrees" in line
    cellmeter(tmp_path, "verify", "aider.db")
