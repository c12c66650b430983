"""Chat completions (https://platform.openai.com/docs/api-reference/chat), streamed and not."""

from typing import Any

from cellmeter_proxy.record import Usage
from cellmeter_proxy.sse import Event
from cellmeter_proxy.wire.facts import AnswerFacts
from cellmeter_proxy.wire.failures import answer_error, error_text
from cellmeter_proxy.wire.fields import Holding, as_list, as_object, count, load_answer, objects, text, verbatim
from cellmeter_proxy.wire.usage import Reported, openai_usage, source_of

TOKEN_FIELDS = (
    "content",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "refusal",
    "tool_calls",
    "function_call",
    "audio",
    "images",
)
"""The members of a delta or message that hold something the model produced."""


class ChoiceReader:
    """Gathers the facts of choices, from the chunks of a stream or from one whole answer.

    Legacy completions use it too: their objects differ only in where the text is.
    """

    def __init__(self) -> None:
        self._model: str | None = None
        self._id: str | None = None
        self._finish: dict[int, str] = {}
        self._calls: dict[tuple[int, int | None], set[str | None]] = {}
        self._answered = False
        self._reported: Reported | None = None
        self._usage_json: tuple[bytes, tuple[Holding, ...]] | None = None
        self._usage_final = False
        self._error: str | None = None

    def add(self, event: Event, value: object) -> None:
        """Read one frame of a stream."""
        if isinstance(value, dict):
            self.read(value, event.data)

    def read(self, chunk: dict[str, Any], data: bytes) -> None:
        """Read one chunk, or one whole answer, as parsed and as it was written."""
        # Most chunks of a stream bring nothing but a piece of text: what they lack is not looked into.
        if chunk.get("model") != self._model:
            self._model = text(chunk.get("model")) or self._model
        if chunk.get("id") != self._id:
            self._id = text(chunk.get("id")) or self._id
        for choice in as_list(chunk.get("choices")):
            if isinstance(choice, dict):
                self._read_choice(choice)
        groq = chunk.get("x_groq")
        if groq or chunk.get("usage"):
            self._read_usage(chunk, data)
        if groq or chunk.get("error") is not None:
            self._error = error_text(chunk.get("error")) or error_text(as_object(groq).get("error")) or self._error

    def facts(self, *, complete: bool, error: str | None = None) -> AnswerFacts:
        """What all that was read comes to, with an error that was found elsewhere where none was read."""
        reported = self._reported
        usage = None if reported is None else reported.usage
        calls = sum([max(len(ids - {None}), 1) for ids in self._calls.values()]) if self._calls else 0
        return AnswerFacts(
            response_model=self._model,
            response_id=self._id,
            finish_reason=self._finish[min(self._finish)] if self._finish else None,
            tool_calls=calls if self._answered else None,
            usage=usage or Usage(),
            usage_source=source_of(usage, final=self._usage_final or complete),
            usage_json=None if self._usage_json is None else verbatim(self._usage_json[0], *self._usage_json[1]),
            provider_cost=None if reported is None else reported.cost,
            error=self._error or error,
            complete=complete,
        )

    def _read_choice(self, choice: dict[str, Any]) -> None:
        self._answered = True
        reason = choice.get("finish_reason")
        said = as_object(choice.get("delta")) or as_object(choice.get("message"))
        if reason:
            self._read_reason(choice, text(reason))
        if said.get("tool_calls") or said.get("function_call"):
            self._read_calls(choice, said)

    def _read_reason(self, choice: dict[str, Any], reason: str | None) -> None:
        if reason is not None:
            self._finish[count(choice.get("index")) or 0] = reason

    def _read_calls(self, choice: dict[str, Any], said: dict[str, Any]) -> None:
        index = count(choice.get("index")) or 0
        whole = "message" in choice
        for position, call in enumerate(objects(said.get("tool_calls"))):
            place = position if whole else count(call.get("index"))
            self._calls.setdefault((index, place), set()).add(text(call.get("id")))
        if said.get("function_call"):
            self._calls.setdefault((index, -1), set()).add(None)

    def _read_usage(self, chunk: dict[str, Any], data: bytes) -> None:
        """The last usage that holds a count is the one: ``usage``, or Groq's ``x_groq.usage`` where that is empty.

        It is final once a choice has finished: until then a provider may be counting along (vLLM, Gemini).
        """
        path: tuple[Holding, ...] = ("usage",)
        reported = openai_usage(chunk.get("usage"))
        if reported is None:
            path = ("x_groq", "usage")
            reported = openai_usage(as_object(chunk.get("x_groq")).get("usage"))
        if reported is not None:
            self._reported = reported
            self._usage_json = (data, path)
            self._usage_final = bool(self._finish)


class Stream(ChoiceReader):
    """A streamed chat completion."""

    @staticmethod
    def carries_token(event: Event, value: object) -> bool:
        """Whether a frame brings content, reasoning or a tool call; a role alone or an empty delta does not."""
        del event
        choices = objects(as_object(value).get("choices"))
        return any(any(map(as_object(choice.get("delta")).get, TOKEN_FIELDS)) for choice in choices)


def read_answer(body: bytes) -> AnswerFacts:
    """The facts of one JSON answer."""
    answer = load_answer(body)
    reader = ChoiceReader()
    reader.read(answer, body)
    return reader.facts(complete=bool(answer), error=answer_error(answer))


def history(body: dict[str, Any]) -> list[Any] | None:
    """The messages of a request, oldest first."""
    messages = body.get("messages")
    return messages if isinstance(messages, list) else None
