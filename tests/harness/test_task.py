"""Tasks are complete when they are loaded, or a sentence says what is wrong where."""

import shutil
from pathlib import Path

import pytest

from cellmeter_harness.task import builtin_tasks, find_tasks, load_task
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import Constraint

TASK = """
id = "mutations/flip"
version = "v0.1"
category = "mutations"
language = "python"
description = "A comparison is the wrong way round"
timeout_s = 30
expected_changes = ["flip.py"]
requires = []
[grader]
command = ["{python}", "tests/check.py"]
timeout_s = 20
require_stdout = ["ok"]
[[constraints]]
kind = "file-not-touched"
path = "tests/*"
"""


def write_task(directory: Path, toml: str = TASK) -> Path:
    for part in ("workdir", "tests/tests", "solution"):
        (directory / part).mkdir(parents=True)
    (directory / "task.toml").write_text(toml)
    (directory / "workdir" / "README.md").write_text("Fix it.\n")
    (directory / "workdir" / "flip.py").write_text("def less(a, b): return a > b\n")
    (directory / "tests" / "tests" / "check.py").write_text("print('ok')\n")
    (directory / "solution" / "flip.py").write_text("def less(a, b): return a < b\n")
    return directory


def test_a_task_is_read_with_everything_that_its_file_says(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path / "flip"))

    assert (task.id, task.category, task.name, task.timeout_s) == ("mutations/flip", "mutations", "flip", 30)
    assert task.grader.command == ["{python}", "tests/check.py"]
    assert task.constraints == [Constraint(kind="file-not-touched", path="tests/*")]
    facts = task.facts()
    assert (facts.language, facts.expected_changes, facts.constraints) == ("python", ["flip.py"], task.constraints)


def test_the_digest_is_of_the_content_and_of_nothing_else(tmp_path: Path) -> None:
    first = write_task(tmp_path / "a" / "flip")
    before = load_task(first).digest
    elsewhere = tmp_path / "b" / "flip"
    shutil.copytree(first, elsewhere)
    (elsewhere / "workdir" / "flip.py").chmod(0o755)
    (elsewhere / "workdir" / "__pycache__").mkdir()
    (elsewhere / "workdir" / "__pycache__" / "flip.pyc").write_bytes(b"cache")
    assert load_task(elsewhere).digest == before

    (elsewhere / "solution" / "flip.py").write_text("def less(a, b): return b > a\n")
    assert load_task(elsewhere).digest != before


@pytest.mark.parametrize(
    ("old", "new", "sentence", "hint"),
    [
        ('version = "v0.1"', "", "missing key `version`", None),
        ("timeout_s = 30", "timeout_s = '30'", "timeout_s: Expected `float`, got `str`", None),
        ("timeout_s = 30", "timeout_s = 0", "timeout_s: Expected `float` > 0", None),
        ("timeout_s = 30", "timeouts = 30", "unknown key `timeouts`", "allowed keys: id, version, category"),
        ("timeout_s = 20", "timeout = 20", "grader: unknown key `timeout`", "allowed keys: command, timeout_s"),
        ('kind = "file-not-touched"', 'kind = "no"', "constraints[0].kind: value is not", '"file-not-touched"'),
        ('kind = "file-not-touched"', 'kind = "no-new-dependency"', "constraints.path: not allowed for no-new", None),
        ('path = "tests/*"', "", "constraints.path: missing for file-not-touched", None),
        ('id = "mutations/flip"', 'id = "flip"', "id: not of the form <category>/<name>", None),
        ('category = "mutations"', 'category = "other"', "category: not the first part of the id", None),
        ("requires = []", "expected_refusal = true", "refusal_documents: empty", None),
        ("[grader]", "[grader", "is not TOML", None),
    ],
)
def test_what_is_wrong_with_a_task_is_named_by_file_and_key(
    tmp_path: Path, old: str, new: str, sentence: str, hint: str | None
) -> None:
    directory = write_task(tmp_path / "flip", TASK.replace(old, new, 1))
    with pytest.raises(CellmeterError) as caught:
        load_task(directory)
    assert str(directory / "task.toml") in caught.value.message
    assert sentence in caught.value.message
    assert (hint or "") in (caught.value.hint or "")


@pytest.mark.parametrize("part", ["task.toml", "workdir", "tests", "solution", "workdir/README.md"])
def test_a_part_that_is_missing_is_named(tmp_path: Path, part: str) -> None:
    directory = write_task(tmp_path / "flip")
    path = directory / part
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(CellmeterError, match=part):
        load_task(directory)


def test_tasks_are_found_by_glob_over_extra_directories_and_by_path(tmp_path: Path) -> None:
    write_task(tmp_path / "corpus" / "mutations" / "flip")
    write_task(tmp_path / "corpus" / "mutations" / "swap", TASK.replace("/flip", "/swap"))
    extra = [tmp_path / "corpus"]

    assert [
        task.name for task in find_tasks(["mutations/s*", "mutations/*"], extra) if task.name in {"flip", "swap"}
    ] == [
        "swap",
        "flip",
    ]
    assert [task.name for task in find_tasks(["./corpus"], base=tmp_path)] == ["flip", "swap"]
    assert [task.name for task in find_tasks([str(tmp_path / "corpus/mutations/swap")])] == ["swap"]


def test_a_pattern_that_names_nothing_is_an_error_with_near_names(tmp_path: Path) -> None:
    write_task(tmp_path / "flip")
    with pytest.raises(CellmeterError, match="no task is named by mutations/flop") as caught:
        find_tasks(["mutations/flop"], [tmp_path])
    assert "mutations/flip" in (caught.value.hint or "")
    with pytest.raises(CellmeterError, match=r"no task is named by \./nowhere"):
        find_tasks(["./nowhere"], base=tmp_path)


def test_one_id_cannot_name_two_different_tasks(tmp_path: Path) -> None:
    write_task(tmp_path / "a" / "flip")
    write_task(tmp_path / "b" / "flip", TASK.replace("v0.1", "v0.2"))
    with pytest.raises(CellmeterError, match="two different tasks have the id mutations/flip"):
        find_tasks(["./a", "./b"], base=tmp_path)


def test_every_task_that_ships_is_complete() -> None:
    tasks = builtin_tasks()
    assert [task.id for task in tasks] == sorted(task.id for task in tasks)
