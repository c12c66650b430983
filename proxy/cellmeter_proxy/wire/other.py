"""Answers without usage: the list of models, a count of tokens, and every path that is no dialect of ours.

A token count (https://docs.anthropic.com/en/api/messages-count-tokens) is about another request: nothing was used.
"""

from cellmeter_proxy.sse import Event
from cellmeter_proxy.wire.facts import AnswerFacts
from cellmeter_proxy.wire.failures import answer_error, error_text
from cellmeter_proxy.wire.fields import as_object, load_answer


class Stream:
    """A stream of which nothing is known but that it may report an error."""

    def __init__(self) -> None:
        self._error: str | None = None

    def add(self, event: Event, value: object) -> None:
        """Read one frame."""
        del event
        self._error = error_text(as_object(value).get("error")) or self._error

    @staticmethod
    def carries_token(event: Event, value: object) -> bool:
        """Nobody knows what a token would look like here."""
        del event, value
        return False

    def facts(self, *, complete: bool) -> AnswerFacts:
        """What all that was read comes to."""
        return AnswerFacts(error=self._error, complete=complete)


def read_answer(body: bytes) -> AnswerFacts:
    """The facts of one JSON answer."""
    answer = load_answer(body)
    return AnswerFacts(error=answer_error(answer), complete=bool(answer))
