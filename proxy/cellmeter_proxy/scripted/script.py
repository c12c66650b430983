"""What the scripted provider says, and when: scripts, their turns and their faults, as data.

Invariant: choosing is a pure function of the request, except where a script or fault counts requests.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cellmeter_proxy.record import Dialect, Record, Usage
from cellmeter_proxy.scripted.asked import Asked

UsageShown = Literal["asked", "absent", "always", "null", "finish", "every", "x_groq"]


class ToolCall(Record, frozen=True, kw_only=True):
    """A call of one of the agent's tools."""

    name: str
    arguments: Mapping[str, Any] = {}


class Fault(Record, frozen=True, kw_only=True):
    """What goes wrong with a turn. The fields combine; a field left alone does nothing.

    A streamed answer's frames are its server-sent events, ``[DONE]`` included. Where a fault counts
    frames, a unary answer has two: the halves of its body.
    """

    status: int | None = None
    """Answer with this status and an error body instead of the turn."""
    message: str | None = None
    error_type: str | None = None
    code: str | None = None
    retry_after: str | None = None
    """The header's value as it goes out: seconds, a fraction, an HTTP date, or nonsense."""
    headers: Mapping[str, str] = {}
    first_byte_ms: float = 0
    """How long nothing at all is sent."""
    headers_first: bool = False
    """The status line and headers go out before that wait, not after it."""
    frame_ms: float = 0
    """Pause before each frame but the first."""
    cut_after: int | None = None
    """Break the connection after this many frames."""
    truncate_after: int | None = None
    """End the answer cleanly after this many frames, without its finish reason or ``[DONE]``."""
    error_after: int | None = None
    """After this many frames send an error event, inside the 200, and end."""
    hang_after: int | None = None
    """After this many frames send nothing more until the client leaves; before the headers if 0."""
    times: int | None = None
    """Only the first so many tries of a request are struck; None strikes all."""
    counted_by: Literal["requests", "retry_count"] = "requests"
    """How tries are told: byte-identical bodies seen so far, or the agent's own ``x-stainless-retry-count``,
    which keeps cells that run at the same time from sharing a count."""

    def strikes(self, seen: int, retry_number: int | None) -> bool:
        """Whether this try is struck, ``seen`` being the number of earlier requests with the same body."""
        tries = seen if self.counted_by == "requests" else (retry_number or 0)
        return self.times is None or tries < self.times


class Turn(Record, frozen=True, kw_only=True):
    """One answer."""

    content: str = ""
    reasoning: str = ""
    tool_calls: Sequence[ToolCall] = ()
    finish_reason: str | None = None
    """In the terms of chat completions; by default ``tool_calls`` where there are any, else ``stop``."""
    usage: Usage | None = None
    """Billed and reported instead of what the provider counts."""
    show_usage: UsageShown = "asked"
    """Where chat and legacy completion streams carry usage: ``asked`` is in a last chunk if ``include_usage``
    was asked; ``always`` even if not; ``finish`` on the chunk with the finish reason; ``every`` on each chunk,
    cumulative; ``x_groq`` under that key of the finish chunk; ``null`` as null; ``absent`` nowhere. The last two
    hold for unary answers and the other dialects too."""
    verbatim: Sequence[bytes] | None = None
    """Sent as they are instead of all the above, frame by frame."""
    piece: int = 24
    """Characters per streamed delta; 0 for a word or so in each."""
    fault: Fault | None = None

    @property
    def finish(self) -> str:
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")


class Match(Record, frozen=True, kw_only=True):
    """Which requests a script answers: those for which everything stated here holds."""

    model: str | None = None
    dialect: Dialect | None = None
    task: str | None = None
    """Text in one of the user's messages. Turns are counted from the last message that holds it."""
    texts: Sequence[str] = ()
    """Texts that all occur somewhere in the conversation, the system prompt included."""
    tools: Sequence[str] = ()
    """Names of tools that are all offered."""

    def fits(self, asked: Asked) -> bool:
        return (
            self.model in {None, asked.model}
            and self.dialect in {None, asked.dialect}
            and (self.task is None or asked.task_position(self.task) is not None)
            and all(any(text in message.text for message in asked.messages) for text in self.texts)
            and set(self.tools) <= set(asked.tools)
        )


class Script(Record, frozen=True, kw_only=True):
    """Turns in order, for the conversations that match. Past the end, the last turn is given again."""

    name: str
    turns: Sequence[Turn]
    match: Match = Match()
    turn_by: Literal["conversation", "requests"] = "conversation"
    """The turn is the number of answers already in the conversation, or of requests that this script has answered."""

    def turn_number(self, asked: Asked, answered: int) -> int:
        """Index of the turn to give, ``answered`` being the number of requests this script has answered."""
        count = asked.turns_since(self.match.task) if self.turn_by == "conversation" else answered
        return min(count, len(self.turns) - 1)


def choose(scripts: Sequence[Script], asked: Asked) -> Script | None:
    """The first script that matches."""
    return next((script for script in scripts if script.match.fits(asked)), None)
