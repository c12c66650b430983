"""Agents are manifests that can be expanded, or a sentence says what is wrong where."""

import json
import tomllib
from pathlib import Path

import pytest

import cellmeter_harness
from cellmeter_harness.agent import (
    Agent,
    ReportedTotals,
    builtin_agents,
    expand,
    find_agent,
    load_agent,
    resolve_programs,
    with_additions,
)
from cellmeter_proxy.errors import CellmeterError

MANIFEST = r"""
name = "painter"
version = "1.2.3"
description = "A test agent"
kind = "command"
command = ["{painter}", "--url", "{base_url}", "--model", "openai/{model}", "--say", "{prompt}"]
version_command = ["{painter}", "--version"]
home = "workspace"
git = "marker"
state_files = [".painter/**"]
[programs]
painter = { env = "CELLMETER_PAINTER", path = "painter", hint = "pip install painter" }
[env]
PAINTER_KEY = "{api_key}"
[reported]
stream = "stdout"
pattern = 'Tokens: (?P<prompt>[\d.,]+[kM]?) sent, (?P<completion>[\d.,]+[kM]?) received'
combine = "sum"
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "painter.toml"
    path.write_text(MANIFEST)
    return path


def test_a_manifest_is_read_with_everything_that_it_says(manifest: Path) -> None:
    agent = load_agent(manifest)
    assert (agent.name, agent.version, agent.kind, agent.home, agent.git) == (
        "painter",
        "1.2.3",
        "command",
        "workspace",
        "marker",
    )
    assert agent.expects_calls
    assert agent.directory is None
    assert agent.programs["painter"].hint == "pip install painter"


def test_the_directory_of_an_agents_own_files_is_the_one_beside_its_manifest_and_part_of_its_digest(
    manifest: Path,
) -> None:
    alone = load_agent(manifest)
    own = manifest.with_suffix("")
    own.mkdir()
    (own / "agent.py").write_text("print(1)")
    with_files = load_agent(manifest)
    assert with_files.directory == own
    (own / "agent.py").write_text("print(2)")
    assert len({alone.digest, with_files.digest, load_agent(manifest).digest}) == 3


def test_what_a_sweep_adds_is_part_of_an_agents_digest(manifest: Path) -> None:
    agent = load_agent(manifest)
    assert with_additions(agent, {}, []) == agent
    added = with_additions(agent, {"PAINTER_MODE": "fast"}, ["--fast"])
    assert (added.extra_env, added.extra_args) == ({"PAINTER_MODE": "fast"}, ["--fast"])
    assert added.digest != agent.digest


@pytest.mark.parametrize(
    ("old", "new", "sentence", "hint"),
    [
        ('kind = "command"', 'kind = "program"', "kind: value is not allowed", 'allowed: "command", "null", "oracle"'),
        ('kind = "command"', 'kind = "null"', 'command: not allowed for kind = "null"', ""),
        ("{prompt}", "{promt}", "command: unknown placeholder {promt}", "agent_dir, api_key"),
        ("{api_key}", "{key}", "env: unknown placeholder {key}", "api_key"),
        ("{prompt}", "{agent_dir}", "{agent_dir} is used, but there is no directory", ""),
        ("(?P<prompt>", "(?P<in>", "reported.pattern: lacks a group named prompt or completion", ""),
        ("(?P<prompt>", "(?P<prompt>(", "reported.pattern: not a regular expression", ""),
        ('git = "marker"', 'git = "yes"', "git: value is not allowed", '"repository"'),
        ('hint = "pip', 'tip = "pip', "programs[...]: unknown key `tip`", "allowed keys: path, env, hint"),
        ('name = "painter"', 'name = "Painter/2"', "name: not made of", ""),
    ],
)
def test_what_is_wrong_with_a_manifest_is_named_by_file_and_key(
    manifest: Path, old: str, new: str, sentence: str, hint: str
) -> None:
    manifest.write_text(MANIFEST.replace(old, new, 1))
    with pytest.raises(CellmeterError) as caught:
        load_agent(manifest)
    assert str(manifest) in caught.value.message
    assert sentence in caught.value.message
    assert hint in (caught.value.hint or "")


def test_programs_are_found_by_their_variable_first_and_then_on_path(manifest: Path, tmp_path: Path) -> None:
    agent = load_agent(manifest)
    for directory in ("one", "two"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "painter").write_text("#!/bin/sh\n")
        (tmp_path / directory / "painter").chmod(0o755)
    on_path = {"PATH": str(tmp_path / "one")}
    assert resolve_programs(agent, on_path) == {"painter": tmp_path / "one" / "painter"}
    named = {**on_path, "CELLMETER_PAINTER": str(tmp_path / "two" / "painter")}
    assert resolve_programs(agent, named) == {"painter": tmp_path / "two" / "painter"}


def test_a_program_that_is_not_here_gives_the_manifests_own_hint(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(CellmeterError, match="the agent painter cannot run here: painter is not on PATH") as caught:
        resolve_programs(load_agent(manifest), {"PATH": str(tmp_path)})
    assert caught.value.hint == "pip install painter"


def test_placeholders_are_replaced_once_and_other_braces_are_left_alone() -> None:
    values = {"prompt": "say {model}", "model": "m"}
    assert expand('{prompt} {"a": {}} {unknown} {model}', values) == 'say {model} {"a": {}} {unknown} m'


def test_reported_totals_are_read_as_agents_round_them(manifest: Path) -> None:
    reported = load_agent(manifest).reported
    assert reported is not None
    two = "Tokens: 1.3k sent, 15 received.\nTokens: 1,400 sent, 1M received. Cost: $1\n"
    totals = reported.read(two)
    assert totals is not None
    assert (totals.prompt_tokens, totals.completion_tokens, totals.source) == (2700, 1_000_015, "stdout")
    odd = reported.read("Tokens: ., sent, 3 received")
    assert odd is not None
    assert (odd.prompt_tokens, odd.completion_tokens) == (None, 3)
    assert reported.read("nothing of the kind") is None


def test_totals_that_are_printed_in_parts_are_added_up() -> None:
    pattern = (
        r"in (?P<prompt>\d+) cached (?P<prompt_cached>\d+)"
        r" out (?P<completion>\d+)(?: thought (?P<completion_thought>\d+))?"
    )
    said = "in 10 cached 5 out 3\nin 20 cached 0 out 4 thought 6\n"
    both = ReportedTotals(pattern=pattern, combine="sum").read(said)
    last = ReportedTotals(pattern=pattern, combine="last").read(said)
    assert both is not None
    assert last is not None
    assert (both.prompt_tokens, both.completion_tokens) == (35, 13)
    assert (last.prompt_tokens, last.completion_tokens) == (20, 10)


@pytest.mark.parametrize("place", ["/etc/painter", "../painter", "a/../../painter", ""])
def test_settings_files_stay_inside_home(manifest: Path, place: str) -> None:
    manifest.write_text(MANIFEST.replace('home = "workspace"', "") + f'[files]\n"{place}" = "colour"\n')
    with pytest.raises(CellmeterError, match="is not a path inside HOME"):
        load_agent(manifest)


def test_settings_files_are_refused_where_home_is_the_workspace(manifest: Path) -> None:
    manifest.write_text(MANIFEST + '[files]\n".painter" = "colour"\n')
    with pytest.raises(CellmeterError, match="files: not allowed with home"):
        load_agent(manifest)


def test_settings_files_may_name_what_a_command_may_name_and_nothing_else(manifest: Path) -> None:
    private = MANIFEST.replace('home = "workspace"', "")
    manifest.write_text(private + '[files]\n".painter/set.json" = \'{"url": "{base_url}", "a": {}}\'\n')
    assert load_agent(manifest).files == {".painter/set.json": '{"url": "{base_url}", "a": {}}'}
    manifest.write_text(private + '[files]\n".painter" = "{colour}"\n')
    with pytest.raises(CellmeterError, match=r"files: unknown placeholder \{colour\}"):
        load_agent(manifest)


def test_agents_are_found_by_path_and_an_unknown_name_is_an_error(manifest: Path, tmp_path: Path) -> None:
    assert find_agent("./painter.toml", base=tmp_path) == load_agent(manifest)
    with pytest.raises(CellmeterError, match="there is no agent named nobody"):
        find_agent("nobody")
    with pytest.raises(CellmeterError, match="there is no file"):
        find_agent("./nobody.toml", base=tmp_path)


def test_every_agent_that_ships_can_be_loaded_under_the_name_of_its_file() -> None:
    shipped = sorted(path.stem for path in (Path(cellmeter_harness.__file__).parent / "agents").glob("*.toml"))
    assert [agent.name for agent in builtin_agents()] == shipped


@pytest.mark.parametrize("agent", [agent for agent in builtin_agents() if agent.files], ids=lambda agent: agent.name)
def test_the_settings_files_that_ship_are_json_or_toml_once_they_are_filled_in(agent: Agent) -> None:
    values = {"model": "org/model", "base_url": "http://127.0.0.1:1/v1", "api_root": "http://127.0.0.1:1"}
    for name, text in agent.files.items():
        read = tomllib.loads if name.endswith(".toml") else json.loads
        settings = json.dumps(read(expand(text, values)))
        assert "{" + "base_url}" not in settings
        assert "api_key}" not in settings


AT_THE_END: dict[str, tuple[str, int, int]] = {
    "aider": ("Tokens: 1.2k sent, 10 received.\nTokens: 1.3k sent, 451 received.\n", 2500, 461),
    "claude-code": (
        (
            '{"type":"result","usage":{"input_tokens":7,"cache_creation_input_tokens":20,"cache_read_input_tokens":300,'
            '"output_tokens":42,"service_tier":"standard"},"modelUsage":{}}'
        ),
        327,
        42,
    ),
    "codex": (
        (
            '{"type":"turn.completed","usage":{"input_tokens":43034,"cached_input_tokens":9,"cache_write_input_tokens":0,'
            '"output_tokens":130,"reasoning_output_tokens":8}}'
        ),
        43034,
        130,
    ),
    "opencode": (
        (
            '{"type":"step_finish","part":{"tokens":{"total":136,"input":10,"output":20,"reasoning":3,'
            '"cache":{"write":1,"read":100}},"cost":0}}\n'
            '{"type":"step_finish","part":{"tokens":{"input":5,"output":6,"reasoning":0,"cache":{"write":0,"read":0}}}}\n'
        ),
        116,
        29,
    ),
    "qwen-code": (
        (
            '[{"type":"assistant","message":{"usage":{"input_tokens":1,"output_tokens":2}}},'
            '{"type":"result","subtype":"success","result":"Done","usage":{"input_tokens":80609,"output_tokens":244}}]'
        ),
        80609,
        244,
    ),
    "reference": ("tokens: prompt=12 completion=3\n", 12, 3),
}
"""What agents print at the end of a run, in their own forms, with numbers of ours."""


def test_the_totals_that_agents_print_are_read_with_cached_input_and_reasoning() -> None:
    reporting = {agent.name: agent.reported for agent in builtin_agents() if agent.reported}
    assert reporting.keys() == AT_THE_END.keys()
    for name, (text, prompt, completion) in AT_THE_END.items():
        read = reporting[name].read(text)
        assert read is not None, name
        assert (name, read.prompt_tokens, read.completion_tokens) == (name, prompt, completion)
