"""What the scripted provider remembers of each request, to be compared with what a recorder says."""

from typing import Literal

from cellmeter_proxy.record import Dialect, Record, Usage

ServedOutcome = Literal["complete", "refused", "cut", "truncated", "stream_error", "hung", "client_gone"]


class Served(Record, frozen=True, kw_only=True):
    """One request that arrived, and what was answered."""

    n: int
    """Order of arrival, from 1."""
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    """As received: order, case and repetitions kept."""
    body: bytes
    """Decoded where the request had a content-encoding."""
    dialect: Dialect
    model: str | None = None
    stream: bool | None = None
    script: str | None = None
    turn: int | None = None
    """Index of the turn within its script."""
    retry_number: int | None = None
    """``x-stainless-retry-count``, where it was sent."""
    status: int = 0
    outcome: ServedOutcome = "refused"
    frames: int = 0
    """How many frames were handed to the socket."""
    finish_reason: str | None = None
    """In the terms of chat completions, also where the answer was cut before it."""
    billed: Usage | None = None
    """What the answer costs, whole even where it broke on its way, for it had been made. None for a refusal."""
    reported: bool = False
    """Whether the whole answer holds a usage object."""
    request_id: str
    response_id: str | None = None

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever its case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)
