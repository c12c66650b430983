"""Two real sweeps and a recorded session, joined: the one log says what its parts said."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cellmeter_harness.conduct import conduct
from cellmeter_harness.events import Event
from cellmeter_harness.sweep import load_sweep
from cellmeter_proxy.log import Log
from cellmeter_proxy.merge import merge
from cellmeter_proxy.record import BlobRow, Call, Cell
from cellmeter_scoring import audit, leaderboard, rescore, verify
from cellmeter_scoring.leaderboard import Row

SWEEP = (
    'name = "{name}"\nagents = ["reference", "null"]\nmodels = ["m"]\ntasks = ["polyglot/python-*", "integrity/*"]\n'
    'isolation = "process"\nlog = "{name}.db"\n[upstream]\nscripted = true\n'
)


def quiet(_event: Event) -> None:
    pass


def builtins(values: Any) -> list[Any]:
    return sorted(msgspec.to_builtins(values), key=repr)


def numbers(rows: list[Row]) -> list[Any]:
    """Rows of the leaderboard less how they name each other, which depends on how many sweeps there are."""
    return builtins([msgspec.structs.replace(row, not_separable_from=[], one_of_sweeps=False) for row in rows])


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The logs of two sweeps of six cells, the first one with its scores."""
    directory = tmp_path_factory.mktemp("parts")
    logs = []
    for name in ("monday", "tuesday"):
        (directory / f"{name}.toml").write_text(SWEEP.format(name=name))
        spec = load_sweep(directory / f"{name}.toml")
        asyncio.run(conduct(spec, quiet, durability="process"))
        logs.append(spec.log)
    rescore(logs[0], "cab-0.1")
    return logs


@pytest.fixture
def joined(parts: list[Path], tmp_path: Path) -> Path:
    merge(tmp_path / "all.db", parts)
    return tmp_path / "all.db"


def test_the_joined_log_is_sound(parts: list[Path], joined: Path) -> None:
    assert [verify(log) for log in (*parts, joined)] == [[], [], []]


def test_scores_and_audits_are_those_of_the_parts(parts: list[Path], joined: Path) -> None:
    for methodology in ("cab-0.1", "cellmeter-1"):
        apart = [rescore(part, methodology, append=False) for part in parts]
        together = rescore(joined, methodology, append=False)
        assert together == [score for part in apart for score in part]
        assert numbers(leaderboard(together)) == numbers([row for part in apart for row in leaderboard(part)])
    apart_calls = [call for part in parts for call in audit(part).calls]
    assert builtins(audit(joined).calls) == builtins(apart_calls)
    assert audit(joined).totals.prompt_tokens.sum == sum(audit(part).totals.prompt_tokens.sum or 0 for part in parts)


def test_every_body_is_there_to_its_last_byte_and_once(parts: list[Path], joined: Path) -> None:
    with Log.read(joined) as log:
        digests = [row.digest for row in log.rows(BlobRow) if row.digest]
        assert len(set(digests)) == len(digests)
        known = set()
        for part in parts:
            with Log.read(part) as one:
                for row in one.rows(BlobRow):
                    known.add(row.digest)
                    assert log.blob(row.digest) == one.blob(row.digest)
        assert known == set(digests)


def test_a_log_that_is_copied_at_any_moment_of_a_sweep_is_completed_by_its_end(tmp_path: Path) -> None:
    """Rows as the harness and the proxy really complete them are progress, never a conflict."""
    (tmp_path / "live.toml").write_text(SWEEP.format(name="live"))
    spec = load_sweep(tmp_path / "live.toml")
    moments = 0

    async def run() -> None:
        nonlocal moments
        sweep = asyncio.create_task(conduct(spec, quiet, durability="process"))
        while not sweep.done():
            if spec.log.exists():
                await asyncio.to_thread(merge, tmp_path / "all.db", [spec.log])
                moments += 1
            await asyncio.wait([sweep], timeout=0.05)
        await sweep

    asyncio.run(run())
    final = merge(tmp_path / "all.db", [spec.log])
    merge(tmp_path / "whole.db", [spec.log])
    assert moments > 5
    assert final[0].known > 0
    with Log.read(tmp_path / "all.db") as log, Log.read(tmp_path / "whole.db") as whole:
        for type_ in (Call, Cell, BlobRow):
            assert builtins(list(log.rows(type_))) == builtins(list(whole.rows(type_)))
    assert verify(tmp_path / "all.db") == []
