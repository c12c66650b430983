"""The provider of the chaos, a process of its own: the scripted one, with a script for each kind of trouble.

    python -m benchmarks.chaos.provider LEDGER

Prints its address. When its stdin ends it writes its ledger of billed requests and ends.
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

from benchmarks.chaos.evidence import MARK, Billed, save

from cellmeter_proxy.scripted import Fault, Match, Script, ScriptedProvider, Turn

TEXT: Final = "An answer of some length, so that a stream of it has a few frames and a kill has time to strike. " * 3
MODELS: Final = {
    "whole": None,
    "slow": Fault(first_byte_ms=80, frame_ms=60),
    "long": Fault(first_byte_ms=20, frame_ms=400),
    "cut": Fault(cut_after=3, frame_ms=10),
    "truncated": Fault(truncate_after=2),
    "failing": Fault(error_after=2),
    "down": Fault(status=503, times=1),
    "storm": Fault(status=429, retry_after="0.4", times=2),
}
"""What each model does to the answers that are asked of it; ``storm`` refuses each request twice."""


async def main(ledger: Path) -> None:
    """Serve until stdin ends."""
    scripts = [
        Script(name=name, match=Match(model=name), turns=[Turn(content=TEXT, fault=fault)])
        for name, fault in MODELS.items()
    ]
    async with ScriptedProvider(scripts) as provider:
        print(provider.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        billed = [row for row in provider.ledger if row.billed is not None]
        save(ledger, (Billed(mark=row.header(MARK) or "", outcome=row.outcome) for row in billed))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
