"""A sweep at a provider that takes few requests, in each of the ways in which its file can meet that."""

from pathlib import Path

import pytest

from cellmeter_harness.conduct import Provider, conduct_with, scripted_provider
from cellmeter_harness.events import Event, SweepFinished, SweepThrottled
from cellmeter_harness.sweep import load_sweep
from cellmeter_proxy.absorb import On429
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt, Call
from cellmeter_proxy.scripted import RateLimit

KEY = "sk-throttled-0123456789abcdef0123456789"
SWEEP = """
name = "s"
agents = ["reference"]
models = ["scripted/small"]
tasks = ["mutations/python-comparator-swap"]
repeats = 3
concurrency = 2
isolation = "process"
[upstream]
scripted = true
on_429 = "MODE"
"""


async def run(tmp_path: Path, mode: On429, limit: RateLimit) -> list[Event]:
    path = tmp_path / "s.toml"
    path.write_text(SWEEP.replace("MODE", mode))
    spec, events = load_sweep(path), list[Event]()
    async with scripted_provider(spec.tasks, KEY, limit=limit) as provider:
        await conduct_with(Provider(provider.url, KEY), spec, events.append, durability="process")
    return events


def rows(tmp_path: Path) -> tuple[list[Call], list[Attempt]]:
    with Log.read(tmp_path / "cellmeter.db") as log:
        return list(log.rows(Call)), list(log.rows(Attempt))


@pytest.mark.parametrize("mode", ["observe", "absorb", "pace"])
async def test_whether_an_agent_sees_the_429s_of_a_provider_is_what_its_sweep_says(tmp_path: Path, mode: On429) -> None:
    events = await run(tmp_path, mode, RateLimit(requests=5, window_s=1.5))
    assert events[-1] == SweepFinished(sweep_id="s", cells=3, passed=3, infrastructure=0)
    calls, attempts = rows(tmp_path)
    refused = [attempt for attempt in attempts if attempt.status == 429]
    assert len([call for call in calls if call.status == 429]) == (len(refused) if mode == "observe" else 0)
    assert len([call for call in calls if call.status == 200]) == 15
    assert any(call.queue_ms for call in calls) == (mode == "pace")
    if mode != "pace":
        assert refused
        assert [(e.status, e.at_once) for e in events if isinstance(e, SweepThrottled)] == [(429, 1)]
