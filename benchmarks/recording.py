"""What recording costs: ``python benchmarks/recording.py [CALLS]``.

CPU per call of everything behind the relay: reading and hashing the bodies, redaction, the rows, the blobs, the
commits, the metrics and the prices, without any network. Every call has bodies of its own. Beside it, in the same run,
stands the limit: SHA-256 and zstd of the same bytes, and one INSERT of them for each call. Calls run 32 at a time,
committed in groups, with ``synchronous=FULL``.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics
from typing import Final

import uvloop
import zstandard
from rich.console import Console
from rich.table import Table

from cellmeter_proxy.accountant import Accountant
from cellmeter_proxy.log import Log, digest_of
from cellmeter_proxy.metrics import Metrics
from cellmeter_proxy.outcome import Head
from cellmeter_proxy.record import Attempt, Call, new_id, now_us
from cellmeter_proxy.recording import Answer, Prepared, prepare_close, prepare_open
from cellmeter_proxy.redact import Redactors
from cellmeter_proxy.resent import Resent
from cellmeter_proxy.watch import Watcher, watch
from cellmeter_proxy.writer import LogWriter
from cellmeter_proxy.writing import close_call, open_call

AT_ONCE: Final = 32
FRAMES: Final = 67
KEYS: Final = ("sk-bench-0123456789abcdefghijklmnop", "sk-proj-Zyxw9876543210fedcbaABCDEFGHIJ")
TEXT: Final = "\n".join(topics.topics.values())
JSON: Final = {"content-type": "application/json"}
EVENTS: Final = {"content-type": "text/event-stream"}


@dataclass(frozen=True)
class Load:
    """What one kind of call looks like."""

    name: str
    calls: int
    request: Callable[[random.Random, int], bytes]
    answer: Callable[[random.Random, int], list[bytes]]
    headers: dict[str, str]


def words(chance: random.Random, size: int) -> str:
    """A piece of prose and code that no other call has."""
    start = chance.randrange(len(TEXT))
    return f"{chance.random()} " + (TEXT[start:] + TEXT * (size // len(TEXT) + 1))[:size]


def request(chance: random.Random, size: int, *, stream: bool, messages: int = 4) -> bytes:
    """A request of an agent: instructions, a history with a tool call, tools."""
    history = [{"role": "system", "content": words(chance, size // 3)}]
    roles = [("user", "assistant")[number % 2] for number in range(messages - 1)]
    history += [{"role": role, "content": words(chance, size // 2 // messages)} for role in roles]
    parameters = {"type": "object", "properties": {"path": {"type": "string"}, "limit": {"type": "integer"}}}
    tools = [
        {"type": "function", "function": {"name": name, "description": words(chance, 120), "parameters": parameters}}
        for name in ("read_file", "write_file", "run_command")
    ]
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    body = {"model": "gpt-4o", "messages": history, "tools": tools, "temperature": 0.7, "max_tokens": 4096, **options}
    return json.dumps(body, indent=None if stream else 1).encode()


def json_answer(chance: random.Random, _: int) -> list[bytes]:
    """One JSON answer of 1.3 KB, in one piece."""
    message = {"role": "assistant", "content": words(chance, 900)}
    usage = {"prompt_tokens": 1400, "completion_tokens": 210, "total_tokens": 1610}
    answer = {
        "id": f"chatcmpl-{chance.getrandbits(64):x}",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 1024}},
    }
    return [json.dumps(answer).encode()]


def burst(chance: random.Random, _: int) -> list[bytes]:
    """A stream of 67 frames in one piece."""
    id_ = f"chatcmpl-{chance.getrandbits(64):x}"
    common: dict[str, object] = {"id": id_, "object": "chat.completion.chunk", "model": "gpt-4o"}
    deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
    deltas.extend({"content": word + " "} for word in words(chance, 2000).split()[: FRAMES - 2])
    choices: list[dict[str, object]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    usage = {"prompt_tokens": 1400, "completion_tokens": 65, "total_tokens": 1465}
    chunks: list[dict[str, object]] = [{**common, "choices": [choice]} for choice in choices]
    chunks.append({**common, "choices": [], "usage": usage})
    return [b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"]


def paced(chance: random.Random, number: int) -> list[bytes]:
    """The same stream, frame by frame."""
    (whole,) = burst(chance, number)
    return [frame + b"\n\n" for frame in whole.split(b"\n\n") if frame]


LOADS: Final = (
    Load("json", 2000, lambda chance, _: request(chance, 5000, stream=False), json_answer, JSON),
    Load("burst stream", 1000, lambda chance, _: request(chance, 5000, stream=True), burst, EVENTS),
    Load("paced stream", 1000, lambda chance, _: request(chance, 5000, stream=True), paced, EVENTS),
    Load("1 MB prompt", 60, lambda chance, _: request(chance, 1 << 20, stream=False, messages=40), json_answer, JSON),
)


class Clock:
    """CPU seconds by stage: of this thread, or of the whole process."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        before = time.thread_time()
        yield
        self.spent[stage] = self.spent.get(stage, 0.0) + time.thread_time() - before

    @contextmanager
    def of_process(self, stage: str) -> Iterator[None]:
        before = time.process_time()
        yield
        self.spent[stage] = time.process_time() - before


def a_call() -> Call:
    """What the relay knows of a call before it reads its body."""
    return Call(
        call_id=new_id(),
        session="benchmark",
        writer="benchmark",
        endpoint="/v1/chat/completions",
        dialect="chat.completions",
        upstream="https://api.openai.com/v1",
        started_at=now_us(),
        user_agent="OpenAI/Python 1.99.1",
    )


def attempts(call: Call) -> list[Attempt]:
    """The one try upstream."""
    return [Attempt(call_id=call.call_id, n=1, started_at=call.started_at, status=200, latency_ms=3.25)]


def closing(call: Call, load: Load, chunks: list[bytes]) -> tuple[Call, Answer]:
    """The answer as it was watched, and the row as the relay hands it over."""
    watcher = watched(load, chunks)
    head = Head(200, 3.25, load.headers["content-type"], None, "req_0123456789abcdef")
    return call, Answer(head, watcher)


def watched(load: Load, chunks: list[bytes]) -> Watcher:
    """The watcher of an answer, fed as the relay feeds it."""
    length = {"content-length": str(sum(map(len, chunks)))} if load.headers is JSON else {}
    watcher = watch("chat.completions", load.headers | length)
    for number, chunk in enumerate(chunks):
        watcher.feed(chunk, 3.0 + number)
    watcher.take_held()
    return watcher


def stages(load: Load, bodies: list[tuple[bytes, list[bytes]]], path: Path, clock: Clock) -> None:
    """Each stage alone, in one thread, a group at a time."""
    redactors, resent, metrics = Redactors(), Resent(), Metrics("benchmark")
    with Log.create(path) as log:
        for start in range(0, len(bodies), AT_ONCE):
            group = bodies[start : start + AT_ONCE]
            with clock.of("describe the call, find its redactor"):
                begun = [(a_call(), redactors.of(KEYS)) for _ in group]
            with clock.of("read, hash, mask and pack the request"):
                opened = [
                    prepare_open(call, body, mask, resent=resent)
                    for (call, mask), (body, _) in zip(begun, group, strict=True)
                ]
            with clock.of("write the open rows"):
                write(log, opened, lambda log, one: log.open_call(one.call))
            with clock.of("watch the answer"):
                ends = [closing(one.call, load, chunks) for one, (_, chunks) in zip(opened, group, strict=True)]
            with clock.of("read, hash, mask and pack the answer"):
                closed = [
                    prepare_close(call, answer, mask, attempts(call))
                    for (call, answer), (_, mask) in zip(ends, begun, strict=True)
                ]
            with clock.of("write the closed rows"):
                write(log, closed, lambda log, one: log.close_call(one.call, one.attempts))
            with clock.of("count for the metrics"):
                for one in closed:
                    metrics.recorded(one.call, 0.001)


def write(log: Log, group: list[Prepared], put: Callable[[Log, Prepared], object]) -> None:
    """One commit for a group."""
    log.conn.execute("BEGIN IMMEDIATE")
    for one in group:
        for blob in one.blobs:
            log.keep(blob, one.call.session)
        put(log, one)
    log.conn.execute("COMMIT")


async def everything(load: Load, bodies: list[tuple[bytes, list[bytes]]], path: Path, clock: Clock) -> None:
    """All of it as the relay does it, threads and commits included."""
    writer = await LogWriter.open(path)
    accountant, metrics = await Accountant.start(writer), Metrics("benchmark")
    redactors, resent = Redactors(), Resent()
    waiting = iter(bodies)

    async def calls() -> None:
        for body, chunks in waiting:
            mask = redactors.of(KEYS)
            opening = open_call(writer, a_call(), body, mask, resent=resent)
            await asyncio.sleep(0)  # the provider's time
            whole = len(chunks) == 1  # when its head came; else the row is committed before anything is released
            call, answer = closing(await (opening.described() if whole else opening), load, chunks)
            asked = time.perf_counter()
            row = await close_call(writer, call, attempts(call), answer, mask, price=accountant.priced, opening=opening)
            metrics.recorded(row, time.perf_counter() - asked)
            accountant.take(row)

    warm = closing(a_call(), load, bodies[0][1])
    accountant.take(await close_call(writer, warm[0], [], warm[1], redactors.of(KEYS)))
    await asyncio.sleep(1.0)  # the table of prices is loaded once
    with clock.of_process("all of it, as it runs: threads, commits, prices"):
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(calls())
        await accountant.aclose(30)
        await writer.aclose()


def limit(bodies: list[tuple[bytes, list[bytes]]], path: Path, clock: Clock) -> None:
    """The least that a record of these bytes can cost."""
    packer = zstandard.ZstdCompressor(level=3)
    with Log.create(path) as log, clock.of("limit: SHA-256, zstd and an INSERT"):
        log.conn.execute("CREATE TABLE least (request_hash, response_hash, request, response)")
        for start in range(0, len(bodies), AT_ONCE):
            log.conn.execute("BEGIN IMMEDIATE")
            for body, chunks in bodies[start : start + AT_ONCE]:
                answer = b"".join(chunks)
                row = (digest_of(body), digest_of(answer), packer.compress(body), packer.compress(answer))
                log.conn.execute("INSERT INTO least VALUES (?, ?, ?, ?)", row)
            log.conn.execute("COMMIT")


def measure(load: Load, calls: int) -> dict[str, float]:
    """Microseconds per call, by stage."""
    chance = random.Random(load.name)
    bodies = [(load.request(chance, number), load.answer(chance, number)) for number in range(calls)]
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        stages(load, bodies, Path(directory) / "stages.db", clock)
        uvloop.run(everything(load, bodies, Path(directory) / "all.db", clock))
        limit(bodies, Path(directory) / "limit.db", clock)
    return {stage: spent / calls * 1e6 for stage, spent in clock.spent.items()}


def main() -> None:
    """Measure and print."""
    scale = int(sys.argv[1]) / LOADS[0].calls if len(sys.argv) > 1 else 1.0
    results = {load.name: measure(load, max(int(load.calls * scale), AT_ONCE)) for load in LOADS}
    table = Table("CPU, microseconds per call", *results)
    for stage in results[LOADS[0].name]:
        table.add_row(stage, *(f"{result[stage]:,.0f}" for result in results.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
