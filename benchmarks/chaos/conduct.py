"""One run of the chaos, from the first process to the evidence."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from benchmarks.chaos.agents import Agent, Weather
from benchmarks.chaos.evidence import BILLED, DEEDS, LOG, SENT, TALK, Deeds, save
from benchmarks.chaos.recorder import Recorder
from benchmarks.chaos.troubles import Troubles

ROOT: Final = Path(__file__).parents[2]


class Plan(NamedTuple):
    """What is asked for."""

    seed: int
    seconds: float
    clients: int
    options: tuple[str, ...]
    """More options of the recorders."""
    directory: Path


async def conduct(plan: Plan) -> None:
    """Run it, and leave the log and the evidence in the directory."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    log = plan.directory / LOG
    async with _provider(plan.directory / BILLED) as upstream:
        recorders = [Recorder(mode, upstream, log, "--on-429", mode, *plan.options) for mode in ("observe", "absorb")]
        weather = Weather([recorder.port for recorder in recorders])
        for recorder in recorders:
            await recorder.start()
        troubles = Troubles(plan.seed, recorders, weather, log)
        async with asyncio.TaskGroup() as group:
            for number in range(plan.clients):
                group.create_task(Agent(number, random.Random(f"{plan.seed} client {number}"), weather).run())
            await troubles.make(plan.seconds)
            weather.over = True
            # Both at once and in the midst of it, so that the last start has something to recover.
            await asyncio.gather(*(recorder.kill() for recorder in recorders))
        for recorder in recorders:
            await recorder.start()
            await recorder.terminate()
    save(plan.directory / SENT, weather.sent)
    complaints = [fault for recorder in recorders for fault in recorder.faults()]
    talk = [f"{recorder.name}: {line}\n" for recorder in recorders for line in recorder.talk]
    (plan.directory / TALK).write_text("".join(talk))
    deeds = Deeds(seed=plan.seed, seconds=plan.seconds, counts=dict(troubles.counts), complaints=complaints)
    (plan.directory / DEEDS).write_bytes(msgspec.json.encode(deeds))


@asynccontextmanager
async def _provider(ledger: Path) -> AsyncIterator[str]:
    """A provider in a process of its own; its ledger is written when the context ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.chaos.provider",
        str(ledger),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the provider's pipes are not there")
    yield (await process.stdout.readline()).decode().strip()
    process.stdin.close()
    await process.wait()
