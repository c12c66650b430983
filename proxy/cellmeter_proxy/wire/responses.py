"""The Responses API (https://platform.openai.com/docs/api-reference/responses), streamed and not."""

from typing import Any, Final

import msgspec

from cellmeter_proxy.record import Usage
from cellmeter_proxy.sse import Event
from cellmeter_proxy.wire.facts import AnswerFacts
from cellmeter_proxy.wire.failures import answer_error, error_text
from cellmeter_proxy.wire.fields import as_object, load_answer, objects, text, verbatim
from cellmeter_proxy.wire.usage import openai_usage, source_of

TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
AGENT_CALLS: Final = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "computer_call",
    }
)
"""Output items that ask the agent to run something; the provider runs the other ``…_call`` items itself."""


class Stream:
    """A streamed response. The terminal event holds it whole; until then only its parts are known."""

    def __init__(self) -> None:
        self._facts = AnswerFacts()
        self._error: str | None = None
        self._items = 0

    def add(self, event: Event, value: object) -> None:
        """Read one frame. Deltas say nothing that their items do not repeat, so they cost nothing."""
        if event.event is not None and event.event.endswith(".delta"):
            return
        fields = as_object(value)
        kind = text(fields.get("type")) or event.event
        if kind == "error":
            self._error = error_text(as_object(fields.get("error")) or fields)
        elif kind == "response.output_item.done":
            self._items += as_object(fields.get("item")).get("type") in AGENT_CALLS
        elif "response" in fields:
            response = as_object(fields["response"])
            facts = _facts(response, verbatim(event.data, "response", "usage"), final=kind in TERMINAL)
            known = self._facts
            self._facts = msgspec.structs.replace(
                facts,
                response_model=facts.response_model or known.response_model,
                response_id=facts.response_id or known.response_id,
            )

    @staticmethod
    def carries_token(event: Event, value: object) -> bool:
        """Whether a frame brings content, reasoning or a tool call: a delta, a call begun, or an item at once."""
        if event.event in {"response.created", "response.in_progress"}:
            return False
        fields = as_object(value)
        kind = text(fields.get("type")) or event.event or ""
        if kind.endswith(".delta"):
            return bool(fields.get("delta"))
        if kind == "response.output_item.added":
            return str(as_object(fields.get("item")).get("type")).endswith("_call")
        return kind == "response.output_item.done"

    def facts(self, *, complete: bool) -> AnswerFacts:
        """What all that was read comes to.

        Some back ends send the terminal event with an empty ``output``: then the items that came before it count.
        """
        facts = self._facts
        ended = facts.finish_reason is not None
        calls = max(facts.tool_calls or 0, self._items) if ended or self._items else None
        return msgspec.structs.replace(facts, tool_calls=calls, error=facts.error or self._error, complete=complete)


def read_answer(body: bytes) -> AnswerFacts:
    """The facts of one JSON answer."""
    answer = load_answer(body)
    facts = _facts(answer, verbatim(body, "usage"), final=True)
    return msgspec.structs.replace(facts, error=facts.error or answer_error(answer), complete=bool(answer))


def history(body: dict[str, Any]) -> list[Any] | None:
    """The input items of a request, oldest first; a plain string is one item."""
    items = body.get("input")
    if isinstance(items, str):
        return [items]
    return items if isinstance(items, list) else None


def _facts(response: dict[str, Any], usage_json: str | None, *, final: bool) -> AnswerFacts:
    reported = openai_usage(response.get("usage"))
    usage = None if reported is None else reported.usage
    status = text(response.get("status"))
    reason = text(as_object(response.get("incomplete_details")).get("reason"))
    output = response.get("output")
    return AnswerFacts(
        response_model=text(response.get("model")),
        response_id=text(response.get("id")),
        finish_reason=(reason or status) if final else None,
        tool_calls=sum(item.get("type") in AGENT_CALLS for item in objects(output)) if final and output else None,
        usage=usage or Usage(),
        usage_source=source_of(usage, final=final),
        usage_json=usage_json if reported else None,
        provider_cost=reported.cost if reported else None,
        error=error_text(response.get("error")),
    )
