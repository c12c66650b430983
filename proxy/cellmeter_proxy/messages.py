"""What the processes of one proxy say to each other. Types only.

A message is told, with no reply, or asked, and then its reply is the type that its docstring names.
"""

from typing import TypeAlias

import msgspec

from cellmeter_proxy.outcome import Broken
from cellmeter_proxy.ratelimit import Limit
from cellmeter_proxy.rates import Rate, RateKey
from cellmeter_proxy.record import Call


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class Ready(_Message, frozen=True, kw_only=True):
    """A worker accepts calls."""


class Stop(_Message, frozen=True, kw_only=True):
    """To a worker: end the calls that are under way, within the bound, and then yourself."""


# Costs, estimates and budgets


class Account(_Message, frozen=True, kw_only=True):
    """A closed row, whose cost and estimates are to be worked out."""

    call: Call


class Learnt(_Message, frozen=True, kw_only=True):
    """To a worker: what calls of a kind cost, so that it need not ask (see ``Rates.learn``)."""

    key: RateKey
    rate: Rate | None


class TakeOn(_Message, frozen=True, kw_only=True):
    """Asks whether a budget still allows a call. The reply is ``Objection``."""

    call_id: str
    session: str


class Objection(_Message, frozen=True, kw_only=True):
    """Why a call is refused; None takes it on."""

    reason: str | None


class Settle(_Message, frozen=True, kw_only=True):
    """A closed row that a budget is charged with."""

    call: Call


class Release(_Message, frozen=True, kw_only=True):
    """A call that came to no row."""

    call_id: str


# What is known of the provider


class UsageRefused(_Message, frozen=True, kw_only=True):
    """The provider takes no request of this model that asks for usage in the client's place."""

    model: str | None


# The queues of ``pace``. A place is named by whoever stands in it.


class Queue(_Message, frozen=True, kw_only=True):
    """Stands in the queue of a key; ``Turn`` is told when it may go."""

    place: int
    key: str | None
    model: str | None
    tokens: int
    again: bool


class Turn(_Message, frozen=True, kw_only=True):
    """To a worker: the call in this place may go."""

    place: int


class Answered(_Message, frozen=True, kw_only=True):
    """The provider answered the call in a place, and stated these limits."""

    place: int
    limits: dict[str, Limit]


class Refused(_Message, frozen=True, kw_only=True):
    """The provider refused the call in a place."""

    place: int
    limits: dict[str, Limit]
    wait_s: float


class Leave(_Message, frozen=True, kw_only=True):
    """The call in a place has ended, or its try has, or it waits no longer."""

    place: int


# Answers that are under way, for clients that come back to another worker


class Begun(_Message, frozen=True, kw_only=True):
    """A call whose answer can be joined has begun."""

    call_id: str
    session: str
    endpoint: str


class Over(_Message, frozen=True, kw_only=True):
    """It has ended."""

    call_id: str


class Seek(_Message, frozen=True, kw_only=True):
    """Asks for calls of a session whose clients have left. The reply is ``Found``."""

    session: str
    endpoint: str


class Found(_Message, frozen=True, kw_only=True):
    """Their identifiers."""

    call_ids: list[str]


class Join(_Message, frozen=True, kw_only=True):
    """Asks to wait for the answer to a call, if it is the answer to this request. The reply is ``Joined``."""

    call_id: str
    query: str
    request_hash: str


class Joined(_Message, frozen=True, kw_only=True):
    """Whether it is."""

    same: bool


class HeadOf(_Message, frozen=True, kw_only=True):
    """Asks for the head of an answer that was joined. The reply is ``AnswerHead`` or ``NoAnswer``."""

    call_id: str


class AnswerHead(_Message, frozen=True, kw_only=True):
    """The head of the provider's answer, as received."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    asked: bool
    """Usage was asked for in the client's place."""


class NoAnswer(_Message, frozen=True, kw_only=True):
    """There is no answer, for this reason."""

    broken: Broken


class ReadOn(_Message, frozen=True, kw_only=True):
    """Asks for the chunks of an answer's body from a position on. The reply is ``Chunks``, once there are any."""

    call_id: str
    position: int


class Chunks(_Message, frozen=True, kw_only=True):
    """Chunks of a body; none, and neither of the others, is never said."""

    chunks: list[bytes] = []
    whole: bool = False
    """There are no more."""
    silent: bool = False
    """The provider fell silent."""
    broken: str | None = None
    """The answer broke off, in these words."""


class Unjoin(_Message, frozen=True, kw_only=True):
    """Whoever joined an answer waits for it no longer."""

    call_id: str


# Counts


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One metric, as ``prometheus_client`` has it."""

    name: str
    documentation: str
    type: str
    samples: list[Sample]


class Scrape(_Message, frozen=True, kw_only=True):
    """Asks for the counts: of a worker its own, of the coordinator those of all. The reply is ``Counts``."""


class Counts(_Message, frozen=True, kw_only=True):
    """All that is counted."""

    families: list[Family]


Message: TypeAlias = (
    Ready
    | Stop
    | Account
    | Learnt
    | TakeOn
    | Objection
    | Settle
    | Release
    | UsageRefused
    | Queue
    | Turn
    | Answered
    | Refused
    | Leave
    | Begun
    | Over
    | Seek
    | Found
    | Join
    | Joined
    | HeadOf
    | AnswerHead
    | NoAnswer
    | ReadOn
    | Chunks
    | Unjoin
    | Scrape
    | Counts
)
