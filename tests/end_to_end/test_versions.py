"""Every command meets logs of other versions: an older one is read or brought up to date, a newer one refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cellmeter_harness.cli import cellmeter, invoke
from cellmeter_proxy.log import Log
from cellmeter_proxy.schema import SCHEMA_VERSION

SWEEP = (
    'name = "x"\nagents = ["null"]\nmodels = ["m"]\ntasks = ["polyglot/python-reverse-string"]\nlog = "log.db"\n'
    'isolation = "process"\n[upstream]\nscripted = true\n'
)
READERS = {
    "audit": ["audit", "log.db"],
    "score": ["score", "log.db", "--methodology", "cab-0.1"],
    "verify": ["verify", "log.db"],
    "export": ["export", "log.db", "--to", "jsonl"],
    "merge": ["merge", "out.db", "log.db"],
}
WRITERS = {
    "merge into": ["merge", "log.db", "other.db"],
    "run": ["run", "sweep.toml"],
    "proxy": ["proxy", "--upstream", "http://127.0.0.1:9/v1", "--listen", "127.0.0.1:0", "--log", "log.db"],
    "record": ["record", "--upstream", "http://127.0.0.1:9/v1", "--log", "log.db", "--", "true"],
}
WITHOUT_A_LOG = {"demo", "doctor", "tasks", "agents"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Log.create("other.db").close()
    Path("sweep.toml").write_text(SWEEP)


def test_every_command_that_takes_a_log_is_tried_here() -> None:
    tried = {arguments[0] for arguments in (*READERS.values(), *WRITERS.values())}
    assert tried | WITHOUT_A_LOG == set(cellmeter.commands)


@pytest.mark.parametrize("arguments", [*READERS.values(), *WRITERS.values()], ids=[*READERS, *WRITERS])
def test_a_newer_log_is_refused_with_one_sentence_and_left_as_it_is(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with Log.create("log.db") as newer:
        newer.set_meta("schema_version", "999")
    before = Path("log.db").read_bytes()
    assert invoke(arguments) == 1
    out, err = capsys.readouterr()
    said = [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]
    assert out == ""
    log = Path("log.db").absolute() if arguments[0] == "run" else "log.db"
    versions = f"its schema is version 999, this one reads {SCHEMA_VERSION}"
    assert said == [
        f"error: {log} was written by a newer cellmeter: {versions}",
        "hint: upgrade with `pip install -U cellmeter`",
    ]
    assert Path("log.db").read_bytes() == before
    assert not Path("out.db").exists()


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("arguments", READERS.values(), ids=READERS)
def test_an_older_log_is_read(
    capsys: pytest.CaptureFixture[str], old_log: Callable[[int], Path], arguments: list[str], version: int
) -> None:
    old_log(version).rename("log.db")
    assert invoke(arguments) == 0
    out, err = capsys.readouterr()
    assert "error" not in err
    if arguments[0] == "audit":
        assert "21" in out
    if arguments[0] == "export":
        assert [json.loads(line)["prompt_tokens"] for line in out.splitlines()] == [21, None]


def test_a_sweep_goes_on_in_an_older_log(capsys: pytest.CaptureFixture[str], old_log: Callable[[int], Path]) -> None:
    old_log(1).rename("log.db")
    assert invoke(WRITERS["run"]) == 0
    capsys.readouterr()
    assert invoke(["verify", "log.db"]) == 0
    with Log.read("log.db") as log:
        assert log.meta("schema_version") == str(SCHEMA_VERSION)
