"""The wire formats: bytes in, facts out, and which bytes of a stream may go on. No sockets, and nothing raises."""

from cellmeter_proxy.wire.dispatch import conversation, history_of, read_answer, read_request, request_facts
from cellmeter_proxy.wire.facts import AnswerFacts, Conversation, RequestFacts
from cellmeter_proxy.wire.routes import dialect_of
from cellmeter_proxy.wire.stream import StreamWatcher

__all__ = [
    "AnswerFacts",
    "Conversation",
    "RequestFacts",
    "StreamWatcher",
    "conversation",
    "dialect_of",
    "history_of",
    "read_answer",
    "read_request",
    "request_facts",
]
