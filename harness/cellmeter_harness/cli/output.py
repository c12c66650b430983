"""How results reach stdout: a table for people; JSON, JSON lines or CSV for programs.

The three machine formats carry every field of a row, under its name in the log; a table shows a choice of columns.
"""

import csv
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

Format = Literal["table", "json", "jsonl", "csv"]
_PIPE_WIDTH: Final = 240
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and the text of its cell for a row."""

    heading: str
    text: Callable[[Any], str]
    right: bool = False


def format_option(command: F) -> F:
    """Give a command ``--format``."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(["table", "json", "jsonl", "csv"]),
        default="table",
        show_default=True,
        help="How to write the result.",
    )(command)


def log_argument(command: F) -> F:
    """Give a command its LOG argument; ``-`` reads the log from stdin."""
    return click.argument("log", callback=_stdin_as_file, metavar="LOG", default="cellmeter.db")(command)


def prices_option(command: F) -> F:
    """Give a command ``--prices``."""
    return click.option(
        "--prices",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Your own prices, which win over the built-in table: TOML with [[price]] host, model, input, output, …",
    )(command)


def emit(rows: Sequence[R], format_: Format, columns: Sequence[Column]) -> None:
    """Write rows (msgspec structs) to stdout in the format that was asked for."""
    match format_:
        case "table":
            show_table(columns, rows)
        case "json":
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
        case "jsonl":
            for row in rows:
                sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
        case "csv":
            _write_csv([msgspec.to_builtins(row) for row in rows])


def show_table(
    columns: Sequence[Column], rows: Iterable[Any], title: str | None = None, *, narrow: bool = False
) -> None:
    """Write a table to stdout; a narrow one has less room between its columns."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, collapse_padding=narrow)
    for column in columns:
        table.add_column(column.heading, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(column.text(row) for column in columns))
    console = stdout_console()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as text:
        console.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in text.get().strip("\n").split("\n")).lstrip("\n") + "\n")


def stdout_console() -> Console:
    """A console on stdout; into a pipe it writes wide lines and no colours."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def stderr_console() -> Console:
    """A console on stderr, for talk and progress."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def number(value: float | None, digits: int = 0) -> str:
    """A number for a table; what was not measured is a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def _write_csv(rows: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _csv_value(value) for name, value in row.items()})


def _csv_value(value: object) -> object:
    return msgspec.json.encode(value).decode() if isinstance(value, (list, dict)) else value


def _stdin_as_file(context: click.Context, _: click.Parameter, value: str) -> Path:
    if value != "-":
        return Path(value)
    directory = Path(context.with_resource(tempfile.TemporaryDirectory(prefix="cellmeter-")))
    with (directory / "stdin.db").open("wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    return directory / "stdin.db"
