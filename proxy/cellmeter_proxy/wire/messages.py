"""Anthropic messages (https://docs.anthropic.com/en/api/messages), streamed and not."""

from typing import Any, Final

from cellmeter_proxy.record import Usage
from cellmeter_proxy.sse import Event
from cellmeter_proxy.wire.facts import AnswerFacts
from cellmeter_proxy.wire.failures import answer_error, error_text
from cellmeter_proxy.wire.fields import as_object, load_answer, objects, text, verbatim
from cellmeter_proxy.wire.usage import anthropic_usage, source_of

_SILENT: Final = frozenset({"message_start", "content_block_stop", "message_delta", "message_stop", "ping"})
_INPUT_FIELDS: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class Stream:
    """A streamed message.

    ``message_start`` counts the input and holds a provisional count of the output; ``message_delta`` is cumulative, so
    what it says replaces what was said before (https://docs.anthropic.com/en/docs/build-with-claude/streaming).
    """

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._calls = 0
        self._start: tuple[dict[str, Any], str | None] = ({}, None)
        self._delta: tuple[dict[str, Any], str | None] = ({}, None)
        self._error: str | None = None

    def add(self, event: Event, value: object) -> None:
        """Read one frame. Block deltas hold no facts, so they cost nothing."""
        if event.event in {"content_block_delta", "content_block_stop", "ping"}:
            return
        fields = as_object(value)
        kind = text(fields.get("type")) or event.event
        if kind == "message_start":
            self._message = as_object(fields.get("message"))
            self._start = (as_object(self._message.get("usage")), verbatim(event.data, "message", "usage"))
        elif kind == "content_block_start":
            self._calls += as_object(fields.get("content_block")).get("type") == "tool_use"
        elif kind == "message_delta":
            self._stop_reason = text(as_object(fields.get("delta")).get("stop_reason")) or self._stop_reason
            if anthropic_usage(fields.get("usage")) is not None:
                self._delta = (as_object(fields["usage"]), verbatim(event.data, "usage"))
        elif kind == "error":
            self._error = error_text(fields.get("error")) or error_text(fields)

    @staticmethod
    def carries_token(event: Event, value: object) -> bool:
        """Whether a frame brings text, thinking or a tool call; a ping, or a block that begins empty, does not."""
        if event.event in _SILENT:
            return False
        fields = as_object(value)
        kind = text(fields.get("type")) or event.event
        if kind == "content_block_start":
            block = as_object(fields.get("content_block"))
            named = str(block.get("type")).endswith("tool_use") or block.get("type") == "redacted_thinking"
            return named or bool(block.get("text") or block.get("thinking"))
        delta = as_object(fields.get("delta"))
        return kind == "content_block_delta" and any(delta.get(name) for name in ("text", "thinking", "partial_json"))

    def facts(self, *, complete: bool) -> AnswerFacts:
        """What all that was read comes to."""
        (start, start_json), (delta, delta_json) = self._start, self._delta
        merged = start | {name: value for name, value in delta.items() if value is not None}
        if not delta:
            merged.pop("output_tokens", None)
            merged.pop("output_tokens_details", None)
        usage = anthropic_usage(merged)
        needs_start = any(start.get(name) is not None and delta.get(name) is None for name in _INPUT_FIELDS)
        used = [one for one in (start_json if needs_start else None, delta_json) if one is not None]
        return AnswerFacts(
            response_model=text(self._message.get("model")),
            response_id=text(self._message.get("id")),
            finish_reason=self._stop_reason,
            tool_calls=self._calls if self._message or self._calls else None,
            usage=usage or Usage(),
            usage_source=source_of(usage, final=bool(delta)),
            usage_json=(f"[{','.join(used)}]" if len(used) > 1 else used[0]) if usage and used else None,
            error=self._error,
            complete=complete,
        )


def read_answer(body: bytes) -> AnswerFacts:
    """The facts of one JSON answer."""
    answer = load_answer(body)
    usage = anthropic_usage(answer.get("usage"))
    content = answer.get("content")
    return AnswerFacts(
        response_model=text(answer.get("model")),
        response_id=text(answer.get("id")),
        finish_reason=text(answer.get("stop_reason")),
        tool_calls=None if content is None else sum(block.get("type") == "tool_use" for block in objects(content)),
        usage=usage or Usage(),
        usage_source=source_of(usage, final=True),
        usage_json=verbatim(body, "usage") if usage else None,
        error=answer_error(answer),
        complete=bool(answer),
    )
