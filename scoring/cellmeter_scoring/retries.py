"""Which call makes which earlier one again: the agent's own retries, found in the recorded rows.

Invariant: a call is made again by at most one other, which was made later in the same session and the same attempt at
a cell, so that the links are chains. An answer ends a chain: two equal requests that were both answered are two
operations, unless an SDK says of the second that it is a retry.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import count
from typing import TypeAlias

from cellmeter_proxy.record import Call
from cellmeter_scoring.calls import in_order

_Scope: TypeAlias = tuple[str, str | None, int | None, str | None, str, str]
"""Session, cell, attempt, the session that the agent names itself, method and endpoint."""
_Request: TypeAlias = tuple[_Scope, str]
"""What has to be the same for a request to be the same."""
_Writer: TypeAlias = tuple[str, str]
"""A process that records, and a session."""
_Numbered: TypeAlias = tuple[_Request, int]
"""A request and the number of the retry, 0 for none."""


def retries_of(calls: Iterable[Call]) -> dict[str, str]:
    """For each call that makes an earlier one again, the id of that one.

    A call is a retry

    - where it was given the answer of a call that its client had left (``attached_to``): of the newest call of that
      operation;
    - where its SDK counts it as one (``retry_number`` above 0, from ``x-stainless-retry-count`` of OpenAI's and
      Anthropic's SDKs): of the newest equal request with the number before, or of the newest one that failed; else of
      the call before it at the same endpoint if that has failed and has the number before;
    - where an equal request had failed before it began, or was left by its client: of the one that failed last. Equal
      are requests with the same ``request_hash``, or with the same bytes where they are no JSON.

    Args:
        calls: in any order, of any number of sessions.

    """
    made = in_order(calls)
    last_seen: dict[_Writer, int] = {}
    for call in made:
        writer = call.writer, call.session
        last_seen[writer] = max(last_seen.get(writer, 0), call.started_at, call.ended_at or 0)
    linker = _Linker(last_seen)
    for call in made:
        linker.add(call)
    return linker.links


def has_failed(call: Call) -> bool:
    """Whether the agent got no complete answer; a call that is still being answered has not failed."""
    return call.outcome not in {None, "ok"}


def given_up_at(call: Call) -> int | None:
    """When a failed call was over for the agent, as far as that was recorded; microseconds since the epoch."""
    return min((moment for moment in (call.client_gone_at, call.ended_at) if moment is not None), default=None)


class _Linker:
    """Takes calls in the order in which they were made; each is linked to one before it, or to none."""

    def __init__(self, last_seen: Mapping[_Writer, int]) -> None:
        self.links: dict[str, str] = {}
        self._last_seen = last_seen
        """The last moment that each process recorded of a session."""
        self._made_again: set[str] = set()
        self._operation: dict[str, str] = {}
        """Of each call, by the id of its first call."""
        self._newest: dict[str, Call] = {}
        """Of each operation."""
        self._latest: dict[_Scope, Call] = {}
        self._failing: list[tuple[int, int, Call]] = []
        """Failures that are still to come at the time that has been reached, as a heap."""
        self._failed: defaultdict[_Request, list[Call]] = defaultdict(list)
        self._failed_with: defaultdict[_Numbered, list[Call]] = defaultdict(list)
        """The same by the number of the retry."""
        self._made_with: defaultdict[_Numbered, list[Call]] = defaultdict(list)
        """All calls, however they ended."""
        self._ties = count()

    def add(self, call: Call) -> None:
        """Link a call, and remember it for those that come."""
        while self._failing and self._failing[0][0] <= call.started_at:
            self._note_failure(heapq.heappop(self._failing)[2])
        before = self._attached(call) or self._numbered(call) or self._failed_before(call)
        if before is not None:
            self.links[call.call_id] = before.call_id
            self._made_again.add(before.call_id)
        self._remember(call, before)

    def _attached(self, call: Call) -> Call | None:
        if call.attached_to is None:
            return None
        newest = self._newest.get(self._operation.get(call.attached_to, ""))
        return newest if newest is not None and _scope(newest) == _scope(call) else None

    def _numbered(self, call: Call) -> Call | None:
        """What an SDK makes again: of equal requests, one that failed is better evidence than one that did not."""
        request = _request(call)
        if not call.retry_number:
            return None
        if request is None:
            return self._other_before(call, call.retry_number - 1)
        numbered = request, call.retry_number - 1
        return (
            self._last(self._failed_with[numbered])
            or self._last(self._made_with[numbered])
            or self._failed_before(call)
            or self._other_before(call, call.retry_number - 1)
        )

    def _failed_before(self, call: Call) -> Call | None:
        request = _request(call)
        return None if request is None else self._last(self._failed[request])

    def _other_before(self, call: Call, number: int) -> Call | None:
        """The call before, if it failed and may be the one that a retry is of, though its content differs."""
        latest = self._latest.get(_scope(call))
        if latest is None or latest.call_id in self._made_again or (latest.retry_number or 0) != number:
            return None
        return latest if has_failed(latest) and self._may_be_made_again_from(latest) <= call.started_at else None

    def _last(self, calls: list[Call]) -> Call | None:
        """The last one that no call has made again yet."""
        while calls and calls[-1].call_id in self._made_again:
            calls.pop()
        return calls[-1] if calls else None

    def _note_failure(self, call: Call) -> None:
        request = _request(call)
        if request is not None:
            self._failed[request].append(call)
            self._failed_with[request, call.retry_number or 0].append(call)

    def _remember(self, call: Call, before: Call | None) -> None:
        operation = self._operation[call.call_id] = call.call_id if before is None else self._operation[before.call_id]
        self._newest[operation] = call
        self._latest[_scope(call)] = call
        request = _request(call)
        if request is not None:
            self._made_with[request, call.retry_number or 0].append(call)
        if has_failed(call):
            heapq.heappush(self._failing, (self._may_be_made_again_from(call), next(self._ties), call))

    def _may_be_made_again_from(self, call: Call) -> int:
        """The earliest moment at which an equal request can be a retry of a failed one."""
        if call.client_gone_at is not None:
            # It is noticed when there is something to send, which can be long after the client came back.
            return call.started_at
        if call.ended_at is None:
            # It ended with its process; before that an equal request ran beside it.
            return self._last_seen[call.writer, call.session] + 1
        return max(call.started_at, call.ended_at)


def _scope(call: Call) -> _Scope:
    return call.session, call.cell_id, call.cell_attempt, call.client_session, call.method, call.endpoint


def _request(call: Call) -> _Request | None:
    content = call.request_hash or call.body_hash
    return None if content is None else (_scope(call), content)
