"""What the bytes of a request say and hold: parsed once, each thing hashed once, looked through once.

Invariant: with the memory of what the session sent before everything is as it is without it. Of a long body that goes
on from an earlier one only what is new in it is hashed and searched.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from cellmeter_proxy import canonical
from cellmeter_proxy.blobs.delta import common_prefix
from cellmeter_proxy.log import digest_of
from cellmeter_proxy.record import Call
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.redact.shared import Span
from cellmeter_proxy.resent import Hash, History, Resent, Sent, hashed_on
from cellmeter_proxy.wire import Conversation, RequestFacts, conversation, history_of, request_facts
from cellmeter_proxy.wire.history import plain_message
from cellmeter_proxy.wire.tools import fetched

_PIECE: Final = 16 * 1024
"""A shorter body is worked through as soon as it is compared with another."""
_MOST_MESSAGES: Final = 10_000
"""A history of more is hashed as a whole: what is kept of each message takes half a kilobyte."""
_NOTHING: Final = History(None, (), (), (), [], ())


class Reading(NamedTuple):
    """What there is to know of a request's body."""

    facts: RequestFacts
    request_hash: str | None
    """See ``canonical.request_hash``."""
    body_hash: str
    spans: list[Span]
    """Where its secrets are."""
    states: Sequence[Hash] = ()
    """SHA-256 of a long body after each piece of it, the last of which may be shorter."""

    def hash_beside(self, body: bytes, other: bytes) -> str:
        """``sha256:<hex>`` of other bytes that begin like the body, such as those that were sent in its place."""
        if not self.states or len(other) < _PIECE:
            return digest_of(other)
        return _digest(_states(other, self.states, common_prefix(body, other)))


def read(call: Call, body: bytes, redactor: Redactor, resent: Resent | None = None) -> Reading:
    """Read the body of a request.

    Args:
        call: whose request it is.
        body: without content coding.
        redactor: knows the secrets of the call.
        resent: what the sessions sent before; a long body is added to it.

    """
    if resent is not None and len(body) >= _PIECE:
        return _read_on(call, body, redactor, resent)
    request = canonical.parse(body)
    said = conversation(history_of(call.dialect, request))
    facts = request_facts(call.dialect, call.endpoint, request, said)
    return Reading(facts, canonical.hash_of(request), digest_of(body), redactor.spans(body))


def opaque(call: Call, body: bytes, redactor: Redactor) -> Reading:
    """What there is to know of a body whose content coding cannot be undone."""
    facts = RequestFacts(dialect=call.dialect, endpoint=call.endpoint)
    return Reading(facts, None, digest_of(body), redactor.spans(body))


def _read_on(call: Call, body: bytes, redactor: Redactor, resent: Resent) -> Reading:
    """Read a body from where it differs from the one that the session sent before."""
    like = resent.like(call.session, body)
    spans = redactor.spans(body, like.known(redactor))
    states = _states(body, like.sent.states, like.head)
    negative_zero = canonical.has_negative_zero(body, like.head, len(body) - like.tail)
    value = _read_value(call, body, like.sent.history, negative_zero=negative_zero)
    if value.request is not canonical.NOT_JSON and not negative_zero:
        resent.keep(call.session, Sent(body, spans, redactor, states, value.history), like)
    facts = request_facts(call.dialect, call.endpoint, value.request, value.said)
    return Reading(facts, value.request_hash, _digest(states), spans, states)


class _Value(NamedTuple):
    """What a body means: nothing where it is no JSON, or nested too deep."""

    request: Any
    said: Conversation | None
    request_hash: str | None
    history: History | None


_NO_VALUE: Final = _Value(canonical.NOT_JSON, None, None, None)


def _read_value(call: Call, body: bytes, before: History | None, *, negative_zero: bool) -> _Value:
    """Read what a body means. Of its messages only those are worked through that are new."""
    request = canonical.parse_deep(body, negative_zero=negative_zero)
    messages = history_of(call.dialect, request)
    if messages is not None and len(messages) <= _MOST_MESSAGES:
        return _read_history(request, messages, before)
    if not canonical.is_shallow(request):
        return _NO_VALUE
    return _Value(request, conversation(messages), canonical.hash_of(request), None)


def _states(body: bytes, before: Sequence[Hash], head: int) -> list[Hash]:
    """SHA-256 after each piece of a body whose first bytes, so many, are those of an earlier one with these states."""
    shared = head // _PIECE
    view = memoryview(body)
    return hashed_on(before[:shared], (view[at : at + _PIECE] for at in range(shared * _PIECE, len(body), _PIECE)))


def _digest(states: Sequence[Hash]) -> str:
    return f"sha256:{states[-1].hexdigest()}"


def _read_history(request: dict[str, Any], messages: list[Any], before: History | None) -> _Value:
    """Read a request by its messages, as far as they are not those of the one before."""
    name = next((name for name, member in request.items() if member is messages), None)
    try:
        forms = [canonical.dump(message) for message in messages]
        head, tail = (None, b"") if name is None else canonical.around(request, name)
    except RecursionError:
        return _NO_VALUE
    known = before if before is not None and before.head == head else _NOTHING
    same = _shared(known.forms, forms)
    if not canonical.is_shallow(request if name is None else {**request, name: messages[same:]}):
        return _NO_VALUE
    found = [*known.fetched[:same], *map(fetched, messages[same:])]
    plain = [*known.plain[:same], *map(_plain_form, messages[same:], forms[same:])]
    linked = same + _shared(known.plain[same:], plain[same:])
    links = canonical.chain_on(plain[linked:], known.chain[:linked])
    said = Conversation(len(messages), links, [*chain.from_iterable(found)])
    if head is None:  # a string that stands for one message is no array of them
        return _Value(request, said, canonical.hash_of(request), History(None, forms, [], plain, links, found))
    states = known.states[: same + 1]
    pieces = (_piece(head, forms, number) for number in range(len(states), len(forms) + 1))
    history = History(head, forms, hashed_on(states, pieces), plain, links, found)
    return _Value(request, said, f"c1:{_digest(hashed_on(history.states[-1:], [tail]))}", history)


def _plain_form(message: object, form: bytes) -> bytes:
    plain = plain_message(message)
    return form if plain is message else canonical.dump(plain)


def _piece(head: bytes, forms: Sequence[bytes], number: int) -> bytes:
    """The canonical form of a request by pieces: what stands before its messages, then one message after the other."""
    if number == 0:
        return head
    return forms[0] if number == 1 else b"," + forms[number - 1]


def _shared(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """How many elements are the same from the first on."""
    return next(
        (at for at, (mine, its) in enumerate(zip(one, other, strict=False)) if mine != its), min(len(one), len(other))
    )
