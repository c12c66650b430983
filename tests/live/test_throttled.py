"""Real agents on the published cells that a provider's rate limit ended, at a provider that throttles.

Five cells of ``tests/data`` carry the banner "Provider rate limit (HTTP 429)" on https://codingagentbench.com: they are
scored as the agent's failures, with nothing recorded that proves it. Two of them are run again here: one whose numbers
are known in full, and one where a refusal was due. The others cost minutes of compilers and show nothing else.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from cellmeter_harness.agent import Agent
from cellmeter_harness.conduct import Provider, conduct_with, scripted_provider
from cellmeter_harness.events import Event
from cellmeter_harness.sweep import Limits, Retry, SweepSpec, Upstream
from cellmeter_harness.task import find_tasks
from cellmeter_proxy.absorb import On429
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt, Call, Cell
from cellmeter_proxy.scripted import Fault, RateLimit, Script, ScriptedProvider, Turn
from cellmeter_scoring import CellScore, compose, leaderboard, rescore, verify

pytestmark = pytest.mark.live

FindAgent = Callable[[str], Awaitable[Agent]]
KEY = "sk-live-0123456789abcdef0123456789abcdef"
CELLS = {
    "polyglot/rust-lifetime-fix": "free-20260527/openhands/mistralai/mistral-small-4-119b-2603",
    "integrity/ambiguous-ticket": "newmodels-20260620/openhands/minimaxai/minimax-m3",
}
"""The sweep, agent and model of the published cell, by its task."""
AGENTS = ["aider", "codex"]
PUBLISHED = Path(__file__).parents[1] / "data" / "published_cells.jsonl"
REFUSES_ALL = Script(name="throttled", turns=[Turn(fault=Fault(status=429, retry_after="1"))])
REFUSES_MOST = RateLimit(requests=3, window_s=2.0)
Rows = tuple[list[Cell], list[Call], list[Attempt]]


@pytest.fixture
async def agents(find: FindAgent, need: Callable[..., str]) -> list[Agent]:
    need("cargo")
    # Their versions are known by now; aider takes seconds to say its own.
    return [msgspec.structs.replace(await find(name), version_command=[]) for name in AGENTS]


async def run(agents: list[Agent], provider: ScriptedProvider, log: Path, mode: On429, timeout_s: float) -> Rows:
    """Every agent on every cell, all at once, each cell with the model of its page."""
    sweeps = [
        SweepSpec(
            name=task.replace("/", "-"),
            agents=agents,
            models=[published.split("/", 2)[2]],
            tasks=find_tasks([task], base=Path()),
            log=log,
            isolation="process",
            concurrency=len(agents),
            upstream=Upstream(scripted=True, on_429=mode),
            limits=Limits(timeout_s=timeout_s),
            retry=Retry(infrastructure=0),
        )
        for task, published in CELLS.items()
    ]
    async with provider:
        key = Provider(provider.url, KEY)
        await asyncio.gather(*(conduct_with(key, sweep, list[Event]().append) for sweep in sweeps))
    assert verify(log) == []
    with Log.read(log) as reading:
        return list(reading.rows(Cell)), list(reading.rows(Call)), list(reading.rows(Attempt))


def assert_published_number(score: CellScore, cell: Cell) -> None:
    """The published formula scores the refused run, and to the published number: only the clock was another one."""
    task = f"{cell.category}/{cell.task}"
    pages = [json.loads(line) for line in PUBLISHED.read_text().splitlines()]
    (shown,) = [page for page in pages if page["cell_id"] == f"{CELLS[task]}/{task}"]
    given = msgspec.structs.asdict(score.axes.composite.components)
    assert score.composite == compose(given, methodology="cab-0.1").composite
    for name in ("pass_rate", "integrity", "expected_refusal"):
        assert given[name] == shown.get(name, 0)
    assert given["tokens_per_correct_task"] == 0
    given["wall_clock_ms"] = shown["wall_clock_ms"]
    if cell.state_files:
        # aider leaves state files behind whatever happens, which the formula counts; openhands, of the page, left none.
        assert given["blast_radius"] == 1
        given["blast_radius"] = shown["blast_radius"]
    again = compose(given, methodology="cab-0.1").composite
    assert again is not None
    assert (again if shown["composite_digits"] == "full" else round(again, 3)) == shown["composite"]


async def test_under_observe_a_throttled_cell_is_rate_limited_by_its_calls_and_scored_by_the_published_formula_alone(
    agents: list[Agent], tmp_path: Path
) -> None:
    log = tmp_path / "observe.db"
    provider = ScriptedProvider([REFUSES_ALL], key=KEY)
    # aider would go on for a minute and a half; its time ends it. codex gives up by itself.
    cells, calls, _ = await run(agents, provider, log, "observe", timeout_s=25)

    assert [cell.failure_class for cell in cells] == ["rate_limited"] * 4
    for cell in cells:
        own = [call.call_id for call in calls if call.cell_id == cell.cell_id]
        assert len(own) > 1
        assert sorted(cell.evidence) == sorted(own)
        assert cell.failure_reason == f"all {len(own)} calls ended in the provider's rate limit (HTTP 429)"
    assert {(call.status, call.outcome) for call in calls} == {(429, "http_error")}

    unscored = rescore(log, methodology="cellmeter-1")
    assert [(score.composite, score.values.pass_rate) for score in unscored] == [(None, None)] * 4
    assert [row.excluded for row in leaderboard(unscored)] == [{"rate_limited": 1}] * 4
    rows = {cell.cell_id: cell for cell in cells}
    for score in rescore(log, methodology="cab-0.1"):
        assert_published_number(score, rows[score.cell_id])


@pytest.mark.parametrize("mode", ["absorb", "pace"])
async def test_under_absorb_and_pace_the_same_agents_finish_the_same_tasks_and_meet_no_429(
    agents: list[Agent], tmp_path: Path, mode: On429
) -> None:
    log = tmp_path / f"{mode}.db"
    provider = scripted_provider(find_tasks(list(CELLS), base=Path()), KEY, limit=REFUSES_MOST)
    cells, calls, attempts = await run(agents, provider, log, mode, timeout_s=90)

    assert [(cell.failure_class, cell.grade and cell.grade.passed) for cell in cells] == [("none", True)] * 4
    assert [score.values.pass_rate for score in rescore(log, methodology="cellmeter-1")] == [1] * 4
    assert {(call.status, call.outcome) for call in calls} == {(200, "ok")}
    refused = [attempt for attempt in attempts if attempt.status == 429]
    assert len(refused) == len([served for served in provider.ledger if served.status == 429])
    if mode == "absorb":
        assert refused
    else:
        assert any((call.queue_ms or 0) > 500 for call in calls)
