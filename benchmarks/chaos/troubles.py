"""What is done to the recorders while they work; each kind of trouble keeps its own time, so that they meet."""

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.chaos.agents import Weather
from benchmarks.chaos.recorder import Recorder

_FULL_AT: Final = 4096
"""Bytes beyond which a recorder whose disk is full cannot write any file."""


class Troubles:
    """Makes trouble for some time.

    Args:
        seed: of what is done, and when.
        recorders: to which.
        weather: of their clients.
        log: the recorders' file.

    """

    def __init__(self, seed: int, recorders: Sequence[Recorder], weather: Weather, log: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._recorders = recorders
        self._weather = weather
        self._log = log

    async def make(self, seconds: float) -> None:
        """Make trouble for so long; when this returns, all recorders are back and can write."""
        end = time.monotonic() + seconds
        kinds: dict[str, tuple[float, Callable[[random.Random], Awaitable[None]]]] = {
            "kill -9": (5.0, self._kill),
            "kill -9 twice": (11.0, self._kill_twice),
            "SIGTERM": (9.0, self._terminate),
            "disk full": (6.0, self._fill),
            "lock": (8.0, self._lock),
            "429 storm": (7.0, self._storm),
        }
        async with asyncio.TaskGroup() as group:
            for name, (every_s, deed) in kinds.items():
                group.create_task(self._repeat(end, name, every_s, deed))

    async def _repeat(
        self, end: float, name: str, every_s: float, deed: Callable[[random.Random], Awaitable[None]]
    ) -> None:
        chance = random.Random(f"{self._seed} {name}")
        while True:
            pause = chance.uniform(0.3, 1.2) * every_s
            if time.monotonic() + pause > end:
                return
            await asyncio.sleep(pause)
            await deed(chance)
            self.counts[name] += 1

    async def _kill(self, chance: random.Random) -> None:
        recorder = chance.choice(self._recorders)
        async with recorder.turn:
            await recorder.kill()
            await recorder.start()

    async def _kill_twice(self, chance: random.Random) -> None:
        """The second time while it starts, or recovers, or has just begun to serve."""
        recorder = chance.choice(self._recorders)
        async with recorder.turn:
            await recorder.kill()
            await recorder.spawn()
            await asyncio.sleep(chance.uniform(0, 2.0))
            await recorder.kill()
            await recorder.start()

    async def _terminate(self, chance: random.Random) -> None:
        recorder = chance.choice(self._recorders)
        async with recorder.turn:
            await recorder.terminate()
            await recorder.start()

    async def _fill(self, chance: random.Random) -> None:
        for recorder in self._recorders:
            recorder.limit_files(_FULL_AT)
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        for recorder in self._recorders:
            recorder.limit_files(None)

    async def _lock(self, chance: random.Random) -> None:
        """Another program holds the log's write lock, as a long transaction does."""
        await asyncio.to_thread(_hold_lock, self._log, chance.uniform(0.2, 1.5))

    async def _storm(self, chance: random.Random) -> None:
        self._weather.storm = True
        await asyncio.sleep(chance.uniform(1.0, 3.0))
        self._weather.storm = False


def _hold_lock(log: Path, seconds: float) -> None:
    connection = sqlite3.connect(log, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")
    finally:
        connection.close()
