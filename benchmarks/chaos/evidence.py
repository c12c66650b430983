"""What the chaos leaves behind for its judge, beside the log: what each client holds, and what the provider billed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from cellmeter_proxy.record import Dialect, Record

T = TypeVar("T", bound=Record)
LOG: Final = "calls.db"
SENT: Final = "sent.jsonl"
BILLED: Final = "billed.jsonl"
DEEDS: Final = "deeds.json"
TALK: Final = "stderr.txt"
MARK: Final = "x-chaos-mark"
"""The header by which a request is known to its client and to the provider."""


class Sent(Record, frozen=True, kw_only=True):
    """One request that a client sent whole, and what it holds of the answer."""

    mark: str
    """Names the request, its repetitions included: ``<client>-<turn>``."""
    dialect: Dialect
    request_hash: str
    """``sha256:<hex>`` of the body that was sent."""
    status: int | None = None
    """None: no head came."""
    complete: bool = False
    """The client holds a whole answer: all that the head promised, or a stream's terminal event."""
    ended: bool = False
    """The answer came to the end of its framing (RFC 9112 §6), so that its length is known too."""
    size: int = 0
    answer_hash: str = ""
    """Of the bytes of the answer's body, as many as came."""
    own: str | None = None
    """The error code, where the recorder answered in the provider's place."""
    left: bool = False
    """The client went away before the end."""


class Billed(Record, frozen=True, kw_only=True):
    """One request that the provider made an answer for."""

    mark: str
    outcome: str


class Deeds(Record, frozen=True, kw_only=True):
    """What was done to the recorders, and what they said of it."""

    seed: int
    seconds: float
    counts: dict[str, int]
    """How often each kind of trouble was made."""
    complaints: list[str]
    """What should not have happened: a wrong exit code, a traceback, a recorder that did not come back."""


def save(path: Path, records: Iterable[Record]) -> None:
    """Write records, one JSON object a line."""
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))


def load(path: Path, type_: type[T]) -> list[T]:
    """Read what ``save`` wrote."""
    return [msgspec.json.decode(line, type=type_) for line in path.read_bytes().splitlines()]
