"""What a session costs on disk, and storing it on the processor: ``python benchmarks/storage.py``.

Sessions of 100 turns, in three dialects, streamed and not, go through the recorder into a real log. ``unique`` is what
each turn says for the first time (instructions and tools once, each new message once, each answer once) as one zstd
stream of level 3; ``apart`` is what the log would hold with each body compressed by itself. ``bodies`` is what the
tables of bodies take of the file, pages, keys, timelines and all; ``file`` is the whole log.
"""

import asyncio
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, get_args

import zstandard
from multidict import CIMultiDict
from rich.console import Console
from rich.table import Table

from cellmeter_proxy.log import Log, make_content, writer_name
from cellmeter_proxy.outcome import Head
from cellmeter_proxy.record import Attempt, Call, new_id, now_us
from cellmeter_proxy.recording import Answer
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.scripted.session import AgentDialect, Exchanged, session
from cellmeter_proxy.watch import watch
from cellmeter_proxy.writer import LogWriter
from cellmeter_proxy.writing import close_call, open_call

TURNS: Final = 100
LEVEL: Final = 3
USAGE: Final = '{"prompt_tokens":12345,"completion_tokens":321,"total_tokens":12666}'


class Sizes(NamedTuple):
    """Bytes."""

    logical: int
    unique: int
    apart: int
    bodies: int
    file: int


async def record(path: Path, dialect: AgentDialect, turns: list[Exchanged], *, streamed: bool) -> None:
    """Have a session recorded, each chunk of a stream some milliseconds after the one before it."""
    chance = random.Random(1)
    writer = await LogWriter.open(path, durability="process")
    kind = "text/event-stream" if streamed else "application/json"
    for turn in turns:
        call = Call(
            call_id=new_id(),
            session="fp:0123456789abcdef",
            writer=writer_name(),
            endpoint="/v1/agent",
            dialect=dialect,
            upstream="https://api.example.com/v1",
            user_agent="agent/1.0",
            started_at=now_us(),
        )
        row = await open_call(writer, call, turn.request, Redactor())
        watcher, at = watch(dialect, CIMultiDict({"content-type": kind})), 200.0
        for frame in turn.frames:
            watcher.feed(frame, at)
            at += chance.uniform(5, 30)
        watcher.finish()
        answer = Answer(Head(200, 200.0, kind, None, "req_0123456789abcdef"), watcher)
        attempt = Attempt(call_id=call.call_id, n=1, started_at=now_us(), status=200, latency_ms=at)
        await close_call(writer, row, [attempt], answer, Redactor())
    await writer.aclose()


def sizes(path: Path, turns: list[Exchanged]) -> Sizes:
    """What a recorded session takes; the log is copied for it."""
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    bodies = [body for turn in turns for body in (turn.request, turn.answer)]
    stripped = path.with_suffix(".stripped")
    stripped.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(stripped, isolation_level=None)) as conn:
        conn.executescript("DELETE FROM blobs; VACUUM")
    file = path.stat().st_size
    return Sizes(
        logical=sum(map(len, bodies)),
        unique=len(compressor.compress(b"".join(turn.news + turn.answer for turn in turns))),
        apart=sum(len(compressor.compress(body)) for body in bodies),
        bodies=file - stripped.stat().st_size,
        file=file,
    )


def write_us(path: Path, turns: list[Exchanged]) -> float:
    """Processor time of storing a request and its answer, digests included, transactions not."""
    with Log.create(path, "process") as log:
        log.conn.execute("BEGIN IMMEDIATE")
        began, before = time.process_time(), None
        for turn in turns:
            request = make_content(turn.request, grows=True)
            log.keep(request, "session", before)
            log.keep(make_content(turn.answer), "session")
            before = request.digest
        took = time.process_time() - began
        log.conn.execute("COMMIT")
    return took / len(turns) * 1e6


def read_us(path: Path) -> tuple[float, float]:
    """Time of reading a body by whoever has just opened the log, at worst, and of each when all are read in turn."""
    with Log.read(path) as log:
        began = time.perf_counter()
        digests = [digest for digest, _ in log.stored()]
        for digest in digests:
            log.blob(digest)
        each = (time.perf_counter() - began) / len(digests) * 1e6
    worst = 0.0
    for digest in digests[-6:]:
        with Log.read(path) as log:
            began = time.perf_counter()
            log.blob(digest)
            worst = max(worst, time.perf_counter() - began)
    return worst * 1e6, each


def main() -> None:
    table = Table(title=f"sessions of {TURNS} turns, KB")
    for name in ("session", "logical", "unique", "apart", "bodies", "ratio", "file", "ratio"):
        table.add_column(name, justify="left" if name == "session" else "right")
    for name in ("write µs/call", "read µs, worst", "read µs, in turn"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as directory:
        for dialect in get_args(AgentDialect):
            for streamed in (True, False):
                path = Path(directory) / f"{dialect}{streamed}.db"
                turns = list(session(dialect, TURNS, streamed=streamed))
                asyncio.run(record(path, dialect, turns, streamed=streamed))
                found = sizes(path, turns)
                worst, each = read_us(path)
                kb = [f"{value / 1000:,.0f}" for value in found]
                ratios = [f"{value / found.unique:.2f}" for value in (found.bodies, found.file)]
                table.add_row(
                    f"{dialect}{', streamed' if streamed else ''}",
                    *(*kb[:4], ratios[0], kb[4], ratios[1]),
                    *(f"{write_us(path.with_suffix('.again'), turns):.0f}", f"{worst:.0f}", f"{each:.0f}"),
                )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
