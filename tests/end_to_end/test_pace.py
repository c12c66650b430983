"""Sixty cells at a provider that takes so many requests a minute: no agent sees a 429, and little is wasted."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import pytest

from cellmeter_harness.conduct import conduct
from cellmeter_harness.events import Event, SweepFinished
from cellmeter_harness.sweep import load_sweep
from cellmeter_harness.testing import tiny_task
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt, Call
from cellmeter_proxy.scripted import RateLimit, Script, ScriptedProvider, ToolCall, Turn

KEY = "sk-paced-0123456789abcdef0123456789abcdef"
LIMIT = RateLimit(requests=18, window_s=3.0)
"""Three hundred and sixty a minute, counted over any three seconds."""
CALLS = 3
WORK = Script(
    name="work",
    turns=[
        Turn(tool_calls=[ToolCall(name="read_file", arguments={"path": "README.md"})]),
        Turn(tool_calls=[ToolCall(name="write_file", arguments={"path": "state", "content": "fixed\n"})]),
        Turn(content="Done."),
    ],
)
SWEEP = """
name = "paced"
agents = ["reference"]
models = ["scripted/small"]
tasks = ["./tasks"]
repeats = 60
concurrency = 12
isolation = "process"
[upstream]
url = "URL"
key_env = "PACED_KEY"
on_429 = "pace"
"""


def unused_while_waited_for(calls: Sequence[Call], attempts: Sequence[Attempt]) -> float:
    """The share of the limit that was free while a call was held back for it; looked at every ten milliseconds.

    What nobody asks for, because the machine starts its agents slowly, is not wasted.
    """
    arrivals = sorted(attempt.started_at / 1e6 for attempt in attempts)
    sent = {attempt.call_id: attempt.started_at / 1e6 for attempt in attempts}
    held = [(sent[call.call_id] - (call.queue_ms or 0) / 1e3, sent[call.call_id]) for call in calls]
    free = [
        LIMIT.requests - (bisect_right(arrivals, at) - bisect_right(arrivals, at - LIMIT.window_s))
        for at in (arrivals[0] + tick / 100 for tick in range(int(100 * (arrivals[-1] - arrivals[0]))))
        if any(since < at < until for since, until in held)
    ]
    return sum(free) / (LIMIT.requests * len(free))


async def test_sixty_cells_under_pace_meet_no_429_and_use_the_providers_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACED_KEY", KEY)
    tiny_task(tmp_path / "tasks" / "quick")
    path, events = tmp_path / "paced.toml", list[Event]()
    async with ScriptedProvider([WORK], key=KEY, limit=LIMIT) as provider:
        path.write_text(SWEEP.replace("URL", provider.url))
        spec = load_sweep(path)
        await conduct(spec, events.append)
    with Log.read(spec.log) as log:
        calls, attempts = list(log.rows(Call)), list(log.rows(Attempt))

    assert events[-1] == SweepFinished(sweep_id="paced", cells=60, passed=60, infrastructure=0)
    assert {call.status for call in calls} == {200}
    assert len([attempt for attempt in attempts if attempt.status == 200]) == len(attempts) == len(calls) == 60 * CALLS
    assert sum((call.queue_ms or 0) > 100 for call in calls) > 60
    assert unused_while_waited_for(calls, attempts) <= 0.1
