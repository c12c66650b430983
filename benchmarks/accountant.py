"""What the accountant does to the event loop: ``python benchmarks/accountant.py``.

A loop that wants to run every millisecond notes how late it is: first alone, then while the first call that lacks its
usage has the table of prices loaded and the estimator's process started, then while calls of 100 KB are estimated, and
while calls are priced. The log is a real one in a temporary directory.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from pydoc_data import topics
from typing import Final

from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from cellmeter_proxy.accountant import Accountant
from cellmeter_proxy.log import Log, digest_of, make_blob
from cellmeter_proxy.record import Call, new_id, now_us
from cellmeter_proxy.writer import LogWriter

TICK_S: Final = 0.001
CALLS: Final = 200
ANSWER: Final = b'{"choices":[{"message":{"role":"assistant","content":"done"},"finish_reason":"stop"}]}'


async def late(until: Awaitable[object]) -> list[float]:
    """How late each tick was, in milliseconds, until something is done."""
    waiting = asyncio.ensure_future(until)
    found: list[float] = []
    while not waiting.done():
        before = time.perf_counter()
        await asyncio.sleep(TICK_S)
        found.append((time.perf_counter() - before - TICK_S) * 1000)
    await waiting
    return found


async def store(writer: LogWriter, count: int, body: bytes, *, reported: bool) -> list[Call]:
    """Closed calls of that body in the log."""
    common = Call(
        call_id="",
        session="benchmark",
        writer="benchmark",
        state="closed",
        dialect="chat.completions",
        upstream="https://api.openai.com/v1",
        request_model="gpt-4o",
        body_hash=digest_of(body),
        request_blob=digest_of(body),
        request_bytes=len(body),
        response_blob=digest_of(ANSWER),
        status=200,
        outcome="ok",
        usage_source="provider" if reported else "none",
        prompt_tokens=20_000 if reported else None,
        completion_tokens=1 if reported else None,
        started_at=now_us(),
    )
    calls = [replace(common, call_id=new_id()) for _ in range(count)]

    def write(log: Log, _: None) -> None:
        for content in (body, ANSWER):
            log.put_blob(make_blob(content))
        for call in calls:
            log.open_call(call)

    await writer.submit(lambda: None, write)
    return calls


async def worked_off(accountant: Accountant, writer: LogWriter, calls: list[Call], column: str) -> None:
    """Hand the calls over, and wait until the last one's number is in the log."""
    for call in calls:
        accountant.take(call)
    query = f"SELECT {column} FROM calls WHERE call_id = ?"
    while True:
        found = await writer.read(lambda log: log.conn.execute(query, (calls[-1].call_id,)).fetchone())
        if found[0] is not None:
            return
        await asyncio.sleep(0.02)


async def measure(path: Path) -> dict[str, list[float]]:
    """The lateness of the loop in each situation."""
    text = "\n".join(topics.topics.values())[:100_000]
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}).encode()
    writer = await LogWriter.open(path)
    accountant = await Accountant.start(writer)
    silent = await store(writer, CALLS, body, reported=False)
    told = await store(writer, CALLS * 10, body, reported=True)
    work: dict[str, Callable[[], Awaitable[object]]] = {
        "nothing else to do": lambda: asyncio.sleep(3),
        "the first call, which loads everything": lambda: worked_off(accountant, writer, silent[:1], "estimate_method"),
        f"{CALLS - 1} calls of 100 KB estimated": lambda: worked_off(accountant, writer, silent[1:], "estimate_method"),
        f"{CALLS * 10} calls priced": lambda: worked_off(accountant, writer, told, "cost"),
    }
    found = {label: await late(begin()) for label, begin in work.items()}
    await accountant.aclose(10)
    await writer.aclose()
    return found


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measure(Path(directory) / "benchmark.db"))
    table = Table("while", "s", "median ms late", "99 %", "worst")
    for label, ticks in found.items():
        hundredths = statistics.quantiles(ticks, n=100)
        seconds = (sum(ticks) + len(ticks) * TICK_S * 1000) / 1000
        figures = (statistics.median(ticks), hundredths[98], max(ticks))
        table.add_row(label, f"{seconds:.2f}", *(f"{figure:.2f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
