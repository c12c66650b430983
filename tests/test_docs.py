"""What the documents say is there, and what is there they say."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from cellmeter_harness.cli import cellmeter

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(group: click.Group = cellmeter, prefix: str = "cellmeter") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        path = f"{prefix} {name}"
        if isinstance(command, click.Group):
            yield from commands(command, path)
        else:
            yield path, command


ALL = [pytest.param(path, command, id=path) for path, command in commands()]


@pytest.mark.parametrize(("path", "command"), ALL)
def test_every_command_has_help_and_so_has_every_option(path: str, command: click.Command) -> None:
    assert command.help
    undocumented = [
        parameter.name for parameter in command.params if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert undocumented == [], path


@pytest.mark.parametrize(("path", "command"), ALL)
def test_every_command_stands_in_the_readme(path: str, command: click.Command) -> None:
    group, _, name = path.removeprefix("cellmeter ").rpartition(" ")
    pattern = rf"cellmeter {group} [a-z|]*\b{name}\b" if group else rf"cellmeter {name}\b"
    assert re.search(pattern, README), command.name


def test_every_command_that_the_readme_names_is_there() -> None:
    known = set(cellmeter.commands)
    named = set(re.findall(r"^\s*(?:\.venv/bin/)?cellmeter ([a-z]+)", README, re.MULTILINE))
    assert named <= known


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version("cellmeter") == project["version"]
    newest = re.search(
        r"^## \[(?!Unreleased)([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert newest is not None
    assert newest[1] == project["version"]


@pytest.mark.parametrize(
    "document", [path.relative_to(ROOT) for path in ROOT.glob("**/*.md") if ".venv" not in path.parts]
)
def test_the_files_that_a_document_links_to_exist(document: Path) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text):
        assert (ROOT / document.parent / target).exists(), f"{document} links to {target}"
