"""Every dialect behind one door: a request or a whole answer in, its facts out."""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from cellmeter_proxy import canonical
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.wire import chat, completions, embeddings, messages, other, responses
from cellmeter_proxy.wire.facts import AnswerFacts, Conversation, RequestFacts
from cellmeter_proxy.wire.fields import as_object, text
from cellmeter_proxy.wire.history import plain_message
from cellmeter_proxy.wire.outline import is_too_large, may_be_whole, outline
from cellmeter_proxy.wire.tools import fetched, provider_tools

_ANSWERS: Final[dict[Dialect, Callable[[bytes], AnswerFacts]]] = {
    "chat.completions": chat.read_answer,
    "completions": completions.read_answer,
    "embeddings": embeddings.read_answer,
    "responses": responses.read_answer,
    "messages": messages.read_answer,
}
_HISTORIES: Final[dict[Dialect, Callable[[dict[str, Any]], list[Any] | None]]] = {
    "chat.completions": chat.history,
    "responses": responses.history,
    "messages": chat.history,
    "count_tokens": chat.history,
}


def read_request(dialect: Dialect, endpoint: str, body: bytes) -> RequestFacts:
    """What a request says.

    Args:
        dialect: see ``dialect_of``.
        endpoint: the path as the agent sent it.
        body: without content coding (see ``encodings.decode``).

    """
    request = canonical.parse(body)
    return request_facts(dialect, endpoint, request, conversation(history_of(dialect, request)))


def history_of(dialect: Dialect, request: object) -> list[Any] | None:
    """The messages or input items of a parsed request, oldest first, or None where it has none."""
    read = _HISTORIES.get(dialect)
    return read(request) if read is not None and isinstance(request, dict) else None


def conversation(history: list[Any] | None) -> Conversation | None:
    """What the messages of a request come to (see ``history_of``)."""
    if history is None:
        return None
    return Conversation(len(history), canonical.prefix_chain(map(plain_message, history)), fetched(history))


def request_facts(dialect: Dialect, endpoint: str, request: object, said: Conversation | None) -> RequestFacts:
    """What a request says, for whoever has parsed its body and hashed its history already.

    Args:
        dialect: see ``dialect_of``.
        endpoint: the path as the agent sent it.
        request: as ``canonical.parse`` returned it.
        said: what its messages come to.

    """
    if not isinstance(request, dict):
        return RequestFacts(dialect=dialect, endpoint=endpoint)
    return RequestFacts(
        dialect=dialect,
        endpoint=endpoint,
        model=text(request.get("model")),
        stream=request.get("stream") is True,
        asks_usage=as_object(request.get("stream_options")).get("include_usage") is True,
        message_count=None if said is None else said.message_count,
        prefix=[] if said is None else said.chain,
        provider_tools=provider_tools(dialect, request, () if said is None else said.fetched),
    )


def read_answer(dialect: Dialect, body: bytes) -> AnswerFacts:
    """What one whole JSON answer says. White space before it is nothing (some providers send it to keep a line open).

    Of one that is too large to be parsed only what the members at its end say (``outline``): all else is None.

    Args:
        dialect: see ``dialect_of``.
        body: without content coding.

    """
    read = _ANSWERS.get(dialect, other.read_answer)
    if not is_too_large(body):
        return read(body)
    return replace(read(outline(body)), complete=may_be_whole(body))
