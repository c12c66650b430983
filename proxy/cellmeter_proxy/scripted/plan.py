"""What will be sent for a request, decided before anything is: status, headers, frames, pauses, ending.

Pure: the clock and the sockets are the server's.
"""

from collections.abc import Mapping
from typing import Final, Literal, Protocol

from msgspec.structs import replace

from cellmeter_proxy.record import Dialect, Record
from cellmeter_proxy.scripted import chat, completions, messages, refusal, responses
from cellmeter_proxy.scripted.answer import Answer
from cellmeter_proxy.scripted.ledger import ServedOutcome
from cellmeter_proxy.scripted.script import Fault

Ending = Literal["clean", "cut", "hang"]
JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"


class Writer(Protocol):
    """A dialect's module."""

    @property
    def RESPONSE_ID(self) -> str: ...  # noqa: N802

    def unary(self, answer: Answer) -> bytes: ...
    def frames(self, answer: Answer) -> list[bytes]: ...
    def reports_usage(self, answer: Answer) -> bool: ...


WRITERS: Final[Mapping[Dialect, Writer]] = {
    "chat.completions": chat,
    "completions": completions,
    "responses": responses,
    "messages": messages,
}


class Plan(Record, frozen=True, kw_only=True):
    """One answer, down to the bytes."""

    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    frames: tuple[bytes, ...] = ()
    content_length: int | None = None
    """None for a chunked body."""
    first_byte_ms: float = 0
    headers_first: bool = False
    frame_ms: float = 0
    ending: Ending = "clean"
    outcome: ServedOutcome = "complete"
    """What becomes of it if the client stays."""


def plain(body: bytes, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Plan:
    """A JSON body in one piece."""
    outcome: ServedOutcome = "complete" if status < 400 else "refused"
    return Plan(status=status, headers=headers, frames=(body,), content_length=len(body), outcome=outcome)


def whole(answer: Answer) -> Plan:
    """The answer with nothing wrong."""
    turn, streamed = answer.turn, answer.asked.stream
    writer = WRITERS[answer.asked.dialect]
    if turn.verbatim is not None:
        frames = tuple(turn.verbatim)
    else:
        frames = tuple(writer.frames(answer)) if streamed else (writer.unary(answer),)
    if streamed:
        return Plan(content_type=EVENT_STREAM, headers=(("Cache-Control", "no-cache"),), frames=frames)
    return Plan(frames=frames, content_length=sum(map(len, frames)))


def struck(answer: Answer, fault: Fault) -> Plan:
    """The answer with the fault applied."""
    plan = _refused(answer, fault, fault.status) if fault.status is not None else _shortened(answer, fault)
    return replace(plan, first_byte_ms=fault.first_byte_ms, headers_first=fault.headers_first, frame_ms=fault.frame_ms)


def _refused(answer: Answer, fault: Fault, status: int) -> Plan:
    dialect = answer.asked.dialect
    body = refusal.body(dialect, status, message=fault.message, error_type=fault.error_type, code=fault.code)
    retry_after = (("Retry-After", fault.retry_after),) if fault.retry_after is not None else ()
    return plain(body, status=status, headers=(*fault.headers.items(), *retry_after))


def _shortened(answer: Answer, fault: Fault) -> Plan:
    plan = replace(whole(answer), headers=(*whole(answer).headers, *fault.headers.items()))
    if plan.content_length is not None and _counts_frames(fault):
        plan = replace(plan, frames=_halves(b"".join(plan.frames)))
    if fault.cut_after is not None:
        return replace(plan, frames=plan.frames[: fault.cut_after], ending="cut", outcome="cut")
    if fault.truncate_after is not None:
        kept = plan.frames[: fault.truncate_after]
        length = None if plan.content_length is None else sum(map(len, kept))
        return replace(plan, frames=kept, content_length=length, outcome="truncated")
    if fault.error_after is not None and answer.asked.stream:
        error = refusal.in_stream(answer.asked.dialect, message=fault.message, error_type=fault.error_type)
        return replace(plan, frames=(*plan.frames[: fault.error_after], error), outcome="stream_error")
    if fault.hang_after is not None:
        return replace(plan, frames=plan.frames[: fault.hang_after], ending="hang", outcome="hung")
    return plan


def _counts_frames(fault: Fault) -> bool:
    return any(count is not None for count in (fault.cut_after, fault.truncate_after, fault.hang_after))


def _halves(body: bytes) -> tuple[bytes, bytes]:
    middle = len(body) // 2
    return body[:middle], body[middle:]
