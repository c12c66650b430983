"""``cellmeter run`` as a user types it, where the provider refuses the key."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cellmeter_harness.conduct import scripted_provider
from cellmeter_harness.task import find_tasks
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call, Cell, Sweep

TASK = "polyglot/python-reverse-string"
RIGHT, WRONG = "sk-right-0123456789abcdef", "sk-wrong-0123456789abcdef"
CELL = f"keyed/reference/m/{TASK}#run1"


@pytest.fixture
async def sweep(tmp_path: Path) -> AsyncIterator[Path]:
    """A sweep of one cell at a provider that takes one key."""
    async with scripted_provider(find_tasks([TASK]), RIGHT) as provider:
        path = tmp_path / "keyed.toml"
        path.write_text(
            f'name = "keyed"\nagents = ["reference"]\nmodels = ["m"]\ntasks = ["{TASK}"]\nisolation = "process"\n'
            f'[upstream]\nurl = "{provider.url}"\nkey_env = "PROVIDER_KEY"\n[retry]\ninfrastructure = 0\n'
        )
        yield path


async def run(sweep: Path, key: str, *options: str) -> subprocess.CompletedProcess[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cellmeter_harness", "run", sweep.name, *options),
        cwd=sweep.parent,
        env={"PROVIDER_KEY": key, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return subprocess.CompletedProcess(sweep.name, process.returncode or 0, out.decode(), err.decode())


async def test_a_wrong_key_is_named_each_time_until_it_is_mended_and_the_cell_tried_again(sweep: Path) -> None:
    for _ in range(2):
        refused = await run(sweep, WRONG)
        assert refused.returncode == 1
        assert f"{CELL} (1 attempt): provider_error: " in refused.stderr
        assert "the provider's refusal of the credentials (HTTP 401)" in refused.stderr
        assert "nothing was measured" in refused.stderr
        assert "cellmeter run keyed.toml --retry-failed" in refused.stderr
        assert WRONG not in refused.stderr + refused.stdout
    mended = await run(sweep, RIGHT, "--retry-failed")
    assert (mended.returncode, "--retry-failed" in mended.stderr) == (0, False)
    assert "1/1" in mended.stdout
    assert "rows of agent × model" not in mended.stderr
    with Log.read(sweep.parent / "cellmeter.db") as log:
        assert [(cell.attempt, cell.failure_class) for cell in log.rows(Cell)] == [(1, "provider_error"), (2, "none")]


async def test_what_becomes_of_429s_can_be_said_on_the_command_line(sweep: Path) -> None:
    sweep.write_text(sweep.read_text() + "[limits]\ncalls = 2\n")
    assert (await run(sweep, RIGHT, "--on-429", "pace")).returncode == 0
    with Log.read(sweep.parent / "cellmeter.db") as log:
        queued = {call.outcome: call.queue_ms is not None for call in log.rows(Call)}
        (row,) = log.rows(Sweep)
    assert queued == {"ok": True, "rejected": False}
    assert '"on_429":"pace"' in row.spec
    assert (await run(sweep, RIGHT, "--on-429", "ignore")).returncode == 2


async def test_a_run_shows_the_cells_of_its_own_file_and_no_others_of_its_log(sweep: Path) -> None:
    await run(sweep, RIGHT)
    text = sweep.read_text()
    (sweep.parent / "other.toml").write_text(text.replace("keyed", "keyed-too").replace('"reference"', '"null"'))
    assert "reference" not in (await run(sweep.parent / "other.toml", RIGHT)).stdout
    sweep.write_text(text.replace('"reference"', '"oracle"'))
    shown = (await run(sweep, RIGHT)).stdout
    assert "oracle × m" in shown
    assert "reference" not in shown
    assert "null" not in shown


async def test_a_run_says_beforehand_what_it_will_be_able_to_tell(sweep: Path) -> None:
    sweep.write_text(sweep.read_text().replace('"reference"', '"null", "oracle"'))
    assert "1 task × 1 repeat: too few to tell 2 rows of agent × model apart" in (await run(sweep, RIGHT)).stderr
