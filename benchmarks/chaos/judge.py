"""Whether anything was lost: what the clients hold and what the provider billed, against the rows of the log. Pure.

Invariant: a row answers for one request. A completed answer without a closed row of its own that has its bytes is lost.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from benchmarks.chaos.client import UNRECORDABLE
from benchmarks.chaos.evidence import Billed, Deeds, Sent

from cellmeter_proxy.log import Log, digest_of
from cellmeter_proxy.record import Call, Record
from cellmeter_proxy.sse import split
from cellmeter_scoring import verify

_USAGE_ONLY: Final = b'"choices":[]'
_SHOWN: Final = 5


class Report(Record, frozen=True, kw_only=True):
    """The judgement, as it is printed."""

    seed: int
    seconds: float
    troubles: dict[str, int]
    sent: int
    """Requests that clients sent."""
    completed: int
    """Completed answers that they hold, refusals for want of a log not among them."""
    refused: int
    """Requests answered 503, because they could not be recorded."""
    broken: int
    """Requests whose answer broke off, or never began, and whose client had stayed."""
    left: int
    """Requests whose client went away."""
    rows: dict[str, int]
    """Rows of the log by state."""
    lost: int
    """Completed answers without a closed row that has their bytes."""
    doubled: int
    """Rows beyond one for each request that was sent."""
    open: int
    """Rows that are open after everything has ended."""
    unrecorded: int
    """Billed requests without a row, none of whose clients got one byte of an answer: the open row is committed while
    the provider thinks, and a kill or a full disk came before it."""
    lost_bills: int
    """Billed requests without a row of which a client did get something."""
    findings: list[str]
    """What ``cellmeter verify`` and the recorders' own ends had to say, and the first of what was lost or doubled."""

    @property
    def is_sound(self) -> bool:
        """Nothing was lost, doubled or left open, and nobody complains."""
        return not (self.lost or self.doubled or self.open or self.lost_bills or self.findings)


class _Bills(NamedTuple):
    excused: int
    lost: list[str]


def judge(log: Log, sent: Sequence[Sent], billed: Sequence[Billed], deeds: Deeds) -> Report:
    """Compare what is held, billed and recorded."""
    calls = list(log.rows(Call))
    by_request: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        # Of an upload that was cut off there is a row, too, with as much of the body as had come: nobody sent that.
        if call.request_hash is not None:
            by_request[call.body_hash or ""].append(call)
    completed = [one for one in sent if one.complete and one.own != UNRECORDABLE]
    lost = _lost(log, completed, by_request)
    doubled = _doubled(sent, by_request)
    bills = _unrecorded(sent, billed, by_request)
    return Report(
        seed=deeds.seed,
        seconds=deeds.seconds,
        troubles=deeds.counts,
        sent=len(sent),
        completed=len(completed),
        refused=sum(one.own == UNRECORDABLE for one in sent),
        broken=sum(not one.complete and not one.left for one in sent),
        left=sum(one.left for one in sent),
        rows=dict(sorted(Counter(call.state for call in calls).items())),
        lost=len(lost),
        doubled=len(doubled),
        open=sum(call.state == "open" for call in calls),
        unrecorded=bills.excused,
        lost_bills=len(bills.lost),
        findings=[
            *lost[:_SHOWN],
            *doubled[:_SHOWN],
            *bills.lost[:_SHOWN],
            *(f"verify: {finding.kind}: {finding.message}" for finding in verify(log)),
            *deeds.complaints,
        ],
    )


def _lost(log: Log, completed: Iterable[Sent], by_request: dict[str, list[Call]]) -> list[str]:
    found: list[str] = []
    taken: set[str] = set()
    for one in completed:
        rows = [call for call in by_request.get(one.request_hash, []) if call.call_id not in taken]
        row = next((call for call in rows if _answers(log, call, one)), None)
        if row is None:
            states = ", ".join(f"{call.state} {call.outcome} {call.status}" for call in rows) or "none"
            found.append(
                f"lost: {one.mark} holds a {one.dialect} answer, {one.status} {one.own or ''} of {one.size}"
                f" bytes; rows of its request that are not another's: {states}"
            )
        else:
            taken.add(row.call_id)
    return found


def _answers(log: Log, call: Call, one: Sent) -> bool:
    """Whether a row is the one of an answer that a client holds."""
    if call.state != "closed" or call.status != one.status:
        return False
    if one.own is not None or call.response_blob is None:
        return one.own is not None and call.response_blob is None
    kept = log.blob(call.response_blob)
    if call.sent_hash is not None:
        kept = _without_usage(kept)
    whole = len(kept) == one.size if one.ended else len(kept) >= one.size
    return whole and digest_of(kept[: one.size]) == one.answer_hash


def _without_usage(stored: bytes) -> bytes:
    """A stream less the chunk that was asked for in the client's place."""
    return b"".join(frame for frame in split(stored) if _USAGE_ONLY not in frame)


def _doubled(sent: Iterable[Sent], by_request: dict[str, list[Call]]) -> list[str]:
    sends = Counter(one.request_hash for one in sent)
    return [
        f"doubled: {len(rows)} rows for {sends[request]} requests with the body {request}"
        for request, rows in by_request.items()
        for _ in range(len(rows) - sends[request])
    ]


def _unrecorded(sent: Iterable[Sent], billed: Iterable[Billed], by_request: dict[str, list[Call]]) -> _Bills:
    """Bills beyond the rows of the same request; each is excused by a client that got nothing, not even a head."""
    requests: dict[str, list[Sent]] = defaultdict(list)
    for one in sent:
        requests[one.mark].append(one)
    excused, lost = 0, []
    for mark, bills in Counter(one.mark for one in billed).items():
        rows = by_request.get(requests[mark][0].request_hash, []) if mark in requests else []
        missing = bills - sum(call.attached_to is None for call in rows)
        # The provider bills no 503, so one to a billed request is the recorder's, however little the client read of it.
        empty = sum(one.status in {None, 503} for one in requests[mark])
        if 0 < missing <= empty:
            excused += missing
        elif missing > 0:
            lost.append(f"billed and not recorded: {missing} of {bills} requests of {mark}, {empty} without any answer")
    return _Bills(excused, lost)
