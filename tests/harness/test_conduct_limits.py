"""Limits and grants of a sweep's file, from the file to the verdict, with real agents and the scripted provider."""

from pathlib import Path

import pytest

from cellmeter_harness.conduct import conduct
from cellmeter_harness.events import CellsLeft, Event, SweepFinished
from cellmeter_harness.sweep import load_sweep
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call, Cell
from cellmeter_proxy.scripted import Fault, Script, ScriptedProvider, Turn
from cellmeter_scoring import leaderboard, rescore

SWEEP = """
name = "s"
agents = ["reference"]
models = ["scripted/small"]
tasks = ["mutations/python-comparator-swap"]
repeats = 2
isolation = "process"
[upstream]
scripted = true
"""
SEARCHER = """
name = "searcher"
version = "1"
description = "Asks the provider to search, once"
kind = "command"
command = ["{python}", "-c", '''
import sys, urllib.request
url, key = sys.argv[1:]
body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"web_search"}]}'
request = urllib.request.Request(url + "/chat/completions", body, {"Authorization": "Bearer " + key})
urllib.request.urlopen(request).read()
''', "{base_url}", "{api_key}"]
"""


async def run(path: Path, text: str) -> tuple[list[Cell], list[Call], list[Event]]:
    path.write_text(text)
    events: list[Event] = []
    spec = load_sweep(path)
    await conduct(spec, events.append, durability="process")
    with Log.read(spec.log) as log:
        return (
            list(log.rows(Cell, "1 ORDER BY run, attempt")),
            list(log.rows(Call, "1 ORDER BY started_at, seq")),
            events,
        )


async def test_a_cell_that_reaches_its_budget_ends_as_such_with_the_calls_that_prove_it(tmp_path: Path) -> None:
    cells, calls, _ = await run(tmp_path / "s.toml", SWEEP + "[limits]\ncalls = 2\n")
    assert [cell.failure_class for cell in cells] == ["budget_exceeded"] * 2
    assert [cell.attempt for cell in cells] == [1, 1]
    sentence = "the budget of 2 calls of this cell is spent (2 made)"
    assert {cell.failure_reason for cell in cells} == {f"a budget ended the run: {sentence}"}
    refused = [call for call in calls if call.outcome == "rejected"]
    assert [call.call_id for call in refused] == [call_id for cell in cells for call_id in cell.evidence]
    assert {call.error for call in refused} == {sentence}
    (row,) = leaderboard(rescore(tmp_path / "cellmeter.db", "cellmeter-1"))
    # The agent spent it: that is no fault of the infrastructure, and leaving the rate would be a way out of it.
    assert (row.pass_rate, row.excluded) == (0.0, {})
    assert [call.cell_id for call in calls if call.outcome == "ok"] == [cells[0].cell_id] * 2 + [cells[1].cell_id] * 2


async def test_a_sweep_that_has_spent_its_budget_leaves_the_rest_unrun_and_knows_so_in_its_next_run(
    tmp_path: Path,
) -> None:
    text = SWEEP.replace("repeats = 2", "repeats = 4") + "[limits.sweep]\ncalls = 6\n"
    cells, calls, events = await run(tmp_path / "s.toml", text)
    assert [cell.failure_class for cell in cells] == ["none", "budget_exceeded"]
    assert sum(call.outcome == "ok" for call in calls) == 6
    sentence = "the budget of 6 calls of this sweep is spent (6 made)"
    assert [event for event in events if isinstance(event, CellsLeft)] == [
        CellsLeft(reason=sentence, cells=[cells[0].cell_id.replace("run1", f"run{run}") for run in (3, 4)])
    ]
    again, _, events = await run(tmp_path / "s.toml", text)
    assert again == cells
    assert any(isinstance(event, CellsLeft) and event.reason == sentence for event in events)
    more, _, events = await run(tmp_path / "s.toml", text.replace("calls = 6", "calls = 60"))
    # The cell that was cut short had less than the others: it is run again, and the old attempt is kept.
    assert [(cell.run, cell.attempt, cell.failure_class) for cell in more] == [
        (1, 1, "none"),
        (2, 1, "budget_exceeded"),
        (2, 2, "none"),
        (3, 1, "none"),
        (4, 1, "none"),
    ]
    assert events[-1] == SweepFinished(sweep_id="s", cells=4, passed=4, infrastructure=0)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_the_provider_refuses_stops_each_pair_after_three_cells_with_a_sentence(
    tmp_path: Path, status: int
) -> None:
    script = Script(name="refused", turns=[Turn(fault=Fault(status=status))])
    async with ScriptedProvider([script]) as provider:
        text = SWEEP.replace("scripted = true", f'url = "{provider.url}"').replace("repeats = 2", "repeats = 6")
        cells, _, events = await run(tmp_path / "s.toml", text)
    assert [cell.failure_class for cell in cells] == ["provider_error"] * 3
    (left,) = [event for event in events if isinstance(event, CellsLeft)]
    why = f"the only call ended in the provider's refusal of the credentials (HTTP {status})"
    assert left.reason == f"reference with scripted/small is stopped after 3 provider_error in a row: {why}"
    assert [cell_id[-4:] for cell_id in left.cells] == ["run4", "run5", "run6"]


@pytest.mark.parametrize(
    ("grants", "outcome", "verdict"),
    [("", "rejected", "incompatible"), ('[grants]\nprovider_tools = ["web_search"]\n', "ok", "none")],
)
async def test_a_cell_that_uses_a_provider_side_tool_needs_a_grant(
    tmp_path: Path, grants: str, outcome: str, verdict: str
) -> None:
    (tmp_path / "searcher.toml").write_text(SEARCHER)
    text = SWEEP.replace('"reference"', '"./searcher.toml"').replace("repeats = 2", "retry.infrastructure = 0")
    (cell,), (call,), _ = await run(tmp_path / "s.toml", text + grants)
    assert (call.outcome, call.provider_tools) == (outcome, ["web_search"])
    assert cell.failure_class == verdict


PRICES = """
[[price]]
model = "scripted/*"
input = 1000.0
output = 2000.0
"""


async def test_calls_are_priced_by_the_file_that_the_sweep_names(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    text = SWEEP.replace("repeats = 2", 'prices = "prices.toml"')
    _, calls, _ = await run(tmp_path / "s.toml", text)
    assert len(calls) > 1
    for call in calls:
        assert (call.price_source or "").startswith("prices.toml sha256:")
        assert call.cost == pytest.approx(((call.prompt_tokens or 0) + 2 * (call.completion_tokens or 0)) / 1000)


async def test_a_file_of_prices_that_is_not_there_stops_the_sweep_before_its_first_cell(tmp_path: Path) -> None:
    with pytest.raises(CellmeterError, match=r"the prices .*gone\.toml cannot be read"):
        await run(tmp_path / "s.toml", SWEEP.replace("repeats = 2", 'prices = "gone.toml"'))
