"""A sweep's file says which cells are run, and its mistakes are named by file and key."""

from pathlib import Path

import pytest

from cellmeter_harness.sweep import describe, load_sweep, plan_cells, read_document, spec_json
from cellmeter_proxy.absorb import Patience
from cellmeter_proxy.budget import Budget
from cellmeter_proxy.errors import CellmeterError

TASK = """
id = "mutations/NAME"
version = "v0.1"
category = "mutations"
language = "python"
description = "One line"
timeout_s = 30
[grader]
command = ["{python}", "check.py"]
"""
SWEEP = """
name = "demo"
agents = ["./doer.toml", { name = "./other.toml", args = ["--fast"], env = { MODE = "x" } }]
models = ["scripted/small", "large"]
tasks = ["./tasks"]
repeats = 2
log = "out/log.db"
isolation = "process"
concurrency = 2
[upstream]
url = "https://api.example.com/v1"
key_env = "PROVIDER_KEY"
[limits]
timeout_s = 20
[retry]
infrastructure = 3
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for name in ("flip", "swap"):
        directory = tmp_path / "tasks" / name
        for part in ("workdir", "tests", "solution"):
            (directory / part).mkdir(parents=True)
        (directory / "workdir" / "README.md").write_text("Fix it.\n")
        (directory / "task.toml").write_text(TASK.replace("NAME", name))
    for name in ("doer", "other"):
        manifest = f'name = "{name}"\nversion = "1"\ndescription = "d"\nkind = "command"\ncommand = ["true"]\n'
        (tmp_path / f"{name}.toml").write_text(manifest)
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP)
    return path


def test_a_sweep_is_read_with_its_paths_relative_to_its_file(sweep: Path) -> None:
    spec = load_sweep(sweep)
    assert spec.log == sweep.parent / "out" / "log.db"
    assert [agent.name for agent in spec.agents] == ["doer", "other"]
    assert (spec.agents[1].extra_args, spec.agents[1].extra_env) == (["--fast"], {"MODE": "x"})
    assert [task.id for task in spec.tasks] == ["mutations/flip", "mutations/swap"]
    assert (spec.concurrency, spec.isolation, spec.retry.infrastructure) == (2, "process", 3)


def test_the_cells_come_repeat_by_repeat_and_then_by_task_model_and_agent(sweep: Path) -> None:
    cells = plan_cells(load_sweep(sweep))
    assert len(cells) == 16
    assert [cell.cell_id for cell in cells[:5]] == [
        "demo/doer/scripted/small/mutations/flip#run1",
        "demo/other/scripted/small/mutations/flip#run1",
        "demo/doer/large/mutations/flip#run1",
        "demo/other/large/mutations/flip#run1",
        "demo/doer/scripted/small/mutations/swap#run1",
    ]
    assert [cell.run for cell in cells] == [1] * 8 + [2] * 8
    assert {cell.timeout_s for cell in cells} == {20}


def test_a_task_keeps_its_own_timeout_where_that_is_smaller_or_nothing_else_is_said(sweep: Path) -> None:
    sweep.write_text(SWEEP.replace("timeout_s = 20", "timeout_s = 500"))
    assert {cell.timeout_s for cell in plan_cells(load_sweep(sweep))} == {30}
    sweep.write_text(SWEEP.replace("timeout_s = 20", ""))
    assert {cell.timeout_s for cell in plan_cells(load_sweep(sweep))} == {30}


def test_what_is_not_said_has_a_default(sweep: Path) -> None:
    sweep.write_text(
        'name = "demo"\nagents = ["./doer.toml"]\nmodels = ["m"]\ntasks = ["./tasks"]\n[upstream]\nscripted = true\n'
    )
    spec = load_sweep(sweep)
    assert (spec.repeats, spec.concurrency, spec.isolation, spec.retry.infrastructure) == (1, 1, "auto", 1)
    assert spec.log == sweep.parent / "cellmeter.db"


def test_the_description_of_a_sweep_survives_the_log_and_follows_its_agents_and_tasks(sweep: Path) -> None:
    first = describe(load_sweep(sweep))
    assert read_document(spec_json(first).decode()) == first
    assert first.upstream == "https://api.example.com/v1"
    sweep.write_text(SWEEP.replace("--fast", "--slow"))
    second = describe(load_sweep(sweep))
    assert first.agents["doer"] == second.agents["doer"]
    assert first.agents["other"] != second.agents["other"]


def test_what_cells_and_the_sweep_may_spend_and_what_is_granted_is_read_and_described(sweep: Path) -> None:
    bare = load_sweep(sweep)
    assert (bare.limits.budget(), bare.limits.sweep.budget(), bare.grants.tools) == (None, None, [])
    limits = "timeout_s = 20\ncalls = 5\ntokens = 900\n[limits.sweep]\ncost_usd = 2.5\ntimeout_s = 60\n"
    sweep.write_text(SWEEP.replace("timeout_s = 20\n", limits) + '[grants]\nprovider_tools = ["web_search", "mcp"]\n')
    spec = load_sweep(sweep)
    assert {cell.budget for cell in plan_cells(spec)} == {Budget(calls=5, tokens=900)}
    assert spec.limits.sweep.budget() == Budget(cost_usd=2.5, seconds=60)
    assert (describe(spec).budget, describe(spec).granted_tools) == (Budget(calls=5, tokens=900), ["mcp", "web_search"])
    assert read_document(spec_json(describe(spec)).decode()) == describe(spec)


def test_what_becomes_of_429s_is_read_and_described_and_a_sweep_that_says_nothing_sees_what_the_provider_said(
    sweep: Path,
) -> None:
    bare = load_sweep(sweep)
    assert (bare.upstream.on_429, bare.upstream.patience, bare.prices) == ("observe", Patience(), None)
    sweep.write_text(SWEEP.replace("[limits]", 'on_429 = "pace"\npatience_s = 90\n[limits]'))
    paced = load_sweep(sweep)
    assert (paced.upstream.on_429, paced.upstream.patience) == ("pace", Patience(budget_s=90))
    assert (describe(paced).on_429, describe(paced).patience_s) == ("pace", 90)
    assert read_document(spec_json(describe(paced)).decode()) == describe(paced)
    assert spec_json(describe(paced)) != spec_json(describe(bare))


def test_a_file_of_prices_is_found_beside_the_sweep(sweep: Path) -> None:
    sweep.write_text(SWEEP.replace("concurrency = 2", 'concurrency = 2\nprices = "prices.toml"'))
    assert load_sweep(sweep).prices == sweep.parent / "prices.toml"


def test_all_provider_side_tools_can_be_granted(sweep: Path) -> None:
    sweep.write_text(SWEEP + '[grants]\nprovider_tools = "all"\n')
    assert load_sweep(sweep).grants.tools == ["all"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("timeout_s = 20", "calls = 0", "limits.calls: Expected `int` >= 1"),
        ("timeout_s = 20", "cost = 1", "limits: unknown key `cost`"),
        ("[retry]", '[grants]\nprovider_tools = "some"\n[retry]', "grants.provider_tools: "),
        ("repeats = 2", "repeats = 0", "repeats: Expected `int` >= 1"),
        ("repeats = 2", "repeat = 2", "unknown key `repeat`"),
        ('name = "demo"', 'name = "a/b"', "name: not made of"),
        ('isolation = "process"', 'isolation = "vm"', "isolation: value is not allowed here"),
        ('"large"', '"lar ge"', "models: 'lar ge' is not a model's name"),
        ('"large"', '"scripted/small"', "models: one model is named twice"),
        ('"./doer.toml"', '"./other.toml"', "agents: other is named twice"),
        ('"./doer.toml"', "3", "agents[0]: Expected `str | object`, got `int`"),
        ("args =", "arg =", "agents[1]: unknown key `arg`"),
        ("[upstream]", "[upstream]\nscripted = true", "upstream: needs either url or scripted = true, and not both"),
        ("https://api.example.com/v1", "api.example.com", "upstream.url: not a URL"),
        ("https://api", "https://me:word@api", "upstream.url: carries more than an address"),
        ('"PROVIDER_KEY"', '"$KEY"', "upstream.key_env: not the name of an environment variable"),
        ("[upstream]", '[upstream]\non_429 = "ignore"', "upstream.on_429: value is not allowed here"),
        ("[upstream]", '[upstream]\non_429 = "pace"\npatience_s = 0', "upstream.patience_s: Expected `float` > 0"),
        ("[upstream]", "[upstream]\npatience_s = 9", "upstream.patience_s: nothing is tried again without on_429"),
        ("infrastructure = 3", "infrastructure = -1", "retry.infrastructure: Expected `int` >= 0"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_named_by_file_and_key(sweep: Path, old: str, new: str, sentence: str) -> None:
    sweep.write_text(SWEEP.replace(old, new, 1))
    with pytest.raises(CellmeterError) as caught:
        load_sweep(sweep)
    assert caught.value.message.startswith(f"{sweep}: ")
    assert sentence in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('key_env = "PROVIDER_KEY"', 'key = "hunter2-hunter2-hunter2"', "upstream.key"),
        ('"PROVIDER_KEY"', '"sk-hunter2hunter2hunter2"', "upstream.key_env"),
        ('MODE = "x"', 'MODE = "Bearer sk-hunter2hunter2hunter2"', "agents[1].env.MODE"),
    ],
)
def test_a_key_in_the_file_is_refused_and_not_repeated(sweep: Path, old: str, new: str, key: str) -> None:
    sweep.write_text(SWEEP.replace(old, new, 1))
    with pytest.raises(CellmeterError) as caught:
        load_sweep(sweep)
    assert f"{key}: holds a key" in caught.value.message
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"
    assert "upstream.key_env" in (caught.value.hint or "")


def test_an_unknown_agent_or_task_is_an_error(sweep: Path) -> None:
    sweep.write_text(SWEEP.replace("./doer.toml", "nobody"))
    with pytest.raises(CellmeterError, match="there is no agent named nobody"):
        load_sweep(sweep)
    sweep.write_text(SWEEP.replace("./tasks", "nothing/*"))
    with pytest.raises(CellmeterError, match=r"no task is named by nothing/\*"):
        load_sweep(sweep)
