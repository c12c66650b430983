"""The clients of the chaos: each keeps a conversation, asks in its own way, and notes what it holds of each answer."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.chaos.client import PATHS, Answer, Connection, Leave, Request
from benchmarks.chaos.evidence import Sent

from cellmeter_proxy.log import digest_of

_WORDS: Final = "the quick brown fox reads a file and writes another one beside it "
_BIG: Final = 0.01
_TURNS: Final = 25
_TRIES: Final = 3
_AGAIN: Final = frozenset({429, 503})
_PATIENCE_S: Final = 90.0
_FAIR: Final = {"whole": 60, "slow": 15, "long": 4, "cut": 6, "truncated": 3, "failing": 3, "down": 4, "storm": 2}
_STORM: Final = {"whole": 5, "storm": 40}


@dataclass
class Weather:
    """What all clients have in common."""

    ports: Sequence[int]
    storm: bool = False
    over: bool = False
    sent: list[Sent] = field(default_factory=list)


class Agent:
    """One client with its conversation.

    Args:
        number: names it.
        chance: decides everything that it does, so that a seed does.
        weather: shared with the others.

    """

    def __init__(self, number: int, chance: random.Random, weather: Weather) -> None:
        self._number = number
        self._chance = chance
        self._weather = weather
        self._history: list[dict[str, str]] = []
        self._turns = 0
        self._connections: dict[int, Connection] = {}

    async def run(self) -> None:
        """Ask until it is over."""
        while not self._weather.over:
            await asyncio.sleep(self._chance.uniform(0, 0.25))
            await self._turn()
        for connection in self._connections.values():
            connection.abort()

    async def _turn(self) -> None:
        """One request, and its repetitions where the answer did not come."""
        port, request = self._chance.choice(self._weather.ports), self._request()
        for _ in range(_TRIES):
            sent = await self._ask(port, request)
            gone = sent is not None and (sent.left or (not sent.complete and sent.status is None))
            if self._weather.over or sent is None or not (gone or sent.status in _AGAIN):
                return
            if self._chance.random() < 0.4:
                return
            request = request._replace(stay=None)
            await asyncio.sleep(self._chance.uniform(0, 0.6))

    def _request(self) -> Request:
        chance, dialect = self._chance, self._chance.choice(list(PATHS))
        models = _STORM if self._weather.storm else _FAIR
        model = chance.choices(list(models), list(models.values()))[0]
        document: dict[str, Any] = {"model": model, "stream": chance.random() < 0.65}
        document["input" if dialect == "responses" else "messages"] = self._conversation()
        if dialect == "messages":
            document["max_tokens"] = 1000
        if dialect == "chat.completions" and document["stream"] and chance.random() < 0.5:
            document["stream_options"] = {"include_usage": True}
        stay = chance.choice([0, 1, 300, 700]) if chance.random() < 0.12 else None
        return Request(
            f"{self._number}-{self._turns}", dialect, f"chaos-{self._number}", json.dumps(document).encode(), stay
        )

    def _conversation(self) -> list[dict[str, str]]:
        """The messages so far with one more, which nobody has sent before."""
        if len(self._history) > 2 * _TURNS or sum(len(message["content"]) for message in self._history) > 2_000_000:
            self._history = []
        self._turns += 1
        words = _WORDS * (self._chance.randrange(3_000, 15_000) if self._chance.random() < _BIG else 3)
        if self._history:
            self._history.append({"role": "assistant", "content": "done"})
        self._history.append({"role": "user", "content": f"turn {self._turns} of {self._number}: {words}"})
        return self._history

    async def _ask(self, port: int, request: Request) -> Sent | None:
        """What became of one request, noted; None where it was not sent."""
        answer, left = Answer(), False
        try:
            connection = self._connections.pop(port, None) or await Connection.open(port)
        except OSError:
            await asyncio.sleep(0.1)
            return None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await connection.ask(request, answer)
        except Leave:
            left = True
        except (OSError, EOFError, TimeoutError):
            left = False
        if answer.ended and answer.reusable and self._chance.random() < 0.8:
            self._connections[port] = connection
        else:
            connection.abort()
        sent = _noted(request, answer, left=left)
        self._weather.sent.append(sent)
        return sent


def _noted(request: Request, answer: Answer, *, left: bool) -> Sent:
    return Sent(
        mark=request.mark,
        dialect=request.dialect,
        request_hash=digest_of(request.body),
        status=answer.status,
        complete=answer.is_complete(request.dialect),
        ended=answer.ended,
        size=len(answer.body),
        answer_hash=answer.digest(),
        own=answer.own_code(),
        left=left,
    )
