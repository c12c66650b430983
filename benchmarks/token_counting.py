"""What counting tokens costs: ``python benchmarks/token_counting.py``.

Prints the throughput of both encodings on ordinary and on hostile text, and what it costs to estimate a call whose
prompt is 100 KB. The ordinary texts are what every Python carries: its manual, its library's source, and tool
definitions made of its functions. Times are CPU time of one thread, the best of some runs.
"""

import builtins
import inspect
import json
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from pydoc_data import topics
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from cellmeter_proxy.tokens import estimate
from cellmeter_proxy.tokens.counting import count
from cellmeter_proxy.tokens.ranks import DEFINITIONS, encoding

RUNS: Final = 3
SIZE: Final = 1_000_000
PROMPT: Final = 100_000


def texts() -> dict[str, str]:
    """Up to a million characters of each kind of text."""
    chance = random.Random(0)
    manual = "\n".join(topics.topics.values())
    library = sorted(Path(inspect.getfile(os)).parent.glob("*.py"))
    kinds = {
        "Python's manual": manual,
        "Python source": "".join(path.read_text(encoding="utf-8", errors="replace") for path in library[:80]),
        "tool definitions": json.dumps(tools(), separators=(",", ":")),
        "random Chinese": "".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(SIZE // 3)),
        "random letters": "".join(chr(chance.randrange(97, 123)) for _ in range(SIZE)),
        "one letter": "a" * SIZE,
        "blanks": " " * SIZE,
    }
    return {label: text[:SIZE] for label, text in kinds.items()}


def tools() -> list[dict[str, Any]]:
    """Definitions of tools, made of the functions that every Python has."""
    named = {**vars(builtins), **vars(os), **vars(inspect), **vars(Path)}
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": inspect.getdoc(value) or "",
                "parameters": {"type": "object", "properties": {"arguments": {"type": "string"}}},
            },
        }
        for name, value in named.items()
        if callable(value)
    ]


def cpu_seconds(work: Callable[[], object]) -> float:
    """The best CPU time of some runs."""
    best = float("inf")
    for _ in range(RUNS):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return best


def throughput() -> Table:
    """MB/s and bytes per token of each encoding on each kind of text."""
    table = Table("text", *(f"{name}, {unit}" for name in DEFINITIONS for unit in ("MB/s", "B/token")))
    for label, text in texts().items():
        size = len(text.encode())
        row: list[str] = []
        for name in DEFINITIONS:
            work = partial(count, encoding(name), text)
            row += [f"{size / cpu_seconds(work) / 1e6:.1f}", f"{size / work():.2f}"]
        table.add_row(label, *row)
    return table


def calls() -> Table:
    """What one estimate costs, of prompt and answer, where the prompt is 100 KB with 20 tools."""
    table = Table("call with a prompt of 100 KB", "CPU ms", "prompt tokens", "completion tokens")
    text = texts()
    history = [
        {"role": "user", "content": text["Python's manual"][: PROMPT // 2]},
        {"role": "assistant", "content": text["Python source"][: PROMPT // 2]},
    ]
    answer = json.dumps({"choices": [{"message": {"content": text["Python source"][-4_000:]}}]}).encode()
    for model in ("gpt-4o", "gpt-4", "claude-sonnet-4-5"):
        body = json.dumps({"model": model, "messages": history, "tools": tools()[:20]}).encode()
        work = partial(estimate, "chat.completions", body, answer)
        made = work()
        table.add_row(model, f"{cpu_seconds(work) * 1e3:.1f}", str(made.prompt_tokens), str(made.completion_tokens))
    return table


def main() -> None:
    """Print both tables, and what it costs to load each encoding."""
    console = Console()
    for name in DEFINITIONS:
        start = time.thread_time()
        encoding(name)
        console.print(f"loading {name}: {time.thread_time() - start:.2f} s of CPU, once per process")
    console.print(throughput(), calls())


if __name__ == "__main__":
    main()
