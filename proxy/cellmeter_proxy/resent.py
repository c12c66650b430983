"""The requests that sessions sent last, so that a history that comes again is not worked through again.

Invariant: what is remembered changes how soon something is known of a body, never what. It is bounded in bytes; what
was not sent for the longest is forgotten first.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol, Self

from cellmeter_proxy.blobs.delta import common_prefix, common_suffix
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.redact.shared import Known, Span

_MAX_BYTES: Final = 32 * 1024 * 1024
_MAX_SESSIONS: Final = 1024
_BRANCHES: Final = 4
"""So many bodies are kept of a session: agents have several conversations at a time."""
_PROBE: Final = 512
_CHANGED: Final = 512
"""So many bytes of a body may be missing in the one that goes on from it: agents move their cache marks."""
_STATE_BYTES: Final = 512
"""About what the state of a hash takes."""


class Hash(Protocol):
    """A hash that goes on (see ``hashlib``)."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def copy(self) -> Self: ...
    def hexdigest(self) -> str: ...


class History(NamedTuple):
    """The messages of a request, hashed."""

    head: bytes | None
    """The canonical form of the request before the first message; None where the messages are no array in it."""
    forms: Sequence[bytes]
    """The canonical form of each."""
    states: Sequence[Hash]
    """SHA-256 of the canonical form of the request so far: after ``head``, then after each message."""
    plain: Sequence[bytes]
    """The forms that the prefix chain is made of."""
    chain: list[str]
    fetched: Sequence[Sequence[str]]
    """The remote addresses in each message (see ``wire.tools.fetched``)."""


class Sent(NamedTuple):
    """A request as it was worked through."""

    body: bytes
    spans: list[Span]
    """Where its secrets are, as ``redactor`` finds them."""
    redactor: Redactor | None
    states: Sequence[Hash] = ()
    """SHA-256 of the body after each piece of it (see ``reading``)."""
    history: History | None = None

    def weight(self) -> int:
        """About how many bytes it takes in memory."""
        history = self.history
        if history is None:
            return len(self.body)
        return 2 * len(self.body) + _STATE_BYTES * len(history.states)


class Like(NamedTuple):
    """An earlier request, and how many bytes of a body are the same at its beginning and at its end."""

    sent: Sent
    head: int
    tail: int

    @property
    def goes_on(self) -> bool:
        """Whether the body is the earlier one, with more put in: the next turn of a conversation."""
        return len(self.sent.body) - self.head - self.tail <= _CHANGED

    def known(self, redactor: Redactor) -> Known | None:
        """What is known of the secrets in the body."""
        sent = self.sent
        return Known(sent.spans, len(sent.body), self.head, self.tail) if sent.redactor is redactor else None


UNLIKE: Final = Like(Sent(b"", [], None), 0, 0)
"""Nothing that is alike."""


class Resent:
    """The newest requests of each session. Any thread may use it."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sessions: OrderedDict[str, tuple[Sent, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def like(self, session: str, body: bytes) -> Like:
        """The request of a session that a body shares most with; an empty one where there is none such."""
        best = UNLIKE
        for sent in self._sessions.get(session, ()):
            if sent.body[:_PROBE] != body[:_PROBE] and sent.body[-_PROBE:] != body[-_PROBE:]:
                continue
            head = common_prefix(sent.body, body)
            tail = common_suffix(sent.body, body, min(len(sent.body), len(body)) - head)
            found = Like(sent, head, tail)
            if found.goes_on:
                return found
            best = max(best, found, key=lambda one: one.head + one.tail)
        return best

    def keep(self, session: str, sent: Sent, like: Like) -> None:
        """Remember a request, in place of the one that it goes on from.

        Args:
            session: whose request it is.
            sent: the request.
            like: what ``like`` gave for it.

        """
        if sent.weight() > self._max_bytes:
            return
        with self._lock:
            before = self._sessions.pop(session, ())
            others = [one for one in before if one is not like.sent or not like.goes_on][: _BRANCHES - 1]
            self._sessions[session] = (sent, *others)
            self._bytes += sent.weight() + _weight(others) - _weight(before)
            while self._bytes > self._max_bytes or len(self._sessions) > _MAX_SESSIONS:
                self._bytes -= _weight(self._sessions.popitem(last=False)[1])


def _weight(sents: Iterable[Sent]) -> int:
    return sum(one.weight() for one in sents)


def hashed_on(states: Sequence[Hash], pieces: Iterable[bytes | memoryview]) -> list[Hash]:
    """SHA-256 after each of the pieces that follow on those of the last state."""
    state: Hash = states[-1].copy() if states else hashlib.sha256()
    after = list(states)
    for piece in pieces:
        state.update(piece)
        after.append(state.copy())
    return after
