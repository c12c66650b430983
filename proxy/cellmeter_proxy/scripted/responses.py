"""The Responses API. Source: https://platform.openai.com/docs/api-reference/responses (object and streaming events).

Output items are, in this order, reasoning, a message, function calls: those that the turn has.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from cellmeter_proxy.scripted.answer import CREATED, Answer, arguments, encode, named_event, pieces

RESPONSE_ID: Final = "resp_"

Event = dict[str, Any]


def unary(answer: Answer) -> bytes:
    """The whole answer as one JSON document."""
    return encode(_response(answer, done=True))


def frames(answer: Answer) -> list[bytes]:
    """The answer as a stream of numbered events, ending with ``response.completed`` or ``.incomplete``."""
    return [named_event(event | {"sequence_number": i}) for i, event in enumerate(_events(answer))]


def reports_usage(answer: Answer) -> bool:
    """Whether the response object holds usage."""
    return answer.turn.show_usage not in {"absent", "null"}


def _events(answer: Answer) -> Iterator[Event]:
    started = _response(answer, done=False)
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    for index, item in enumerate(_items(answer)):
        opened = item | {"status": "in_progress"} | _EMPTY[item["type"]]
        yield {"type": "response.output_item.added", "output_index": index, "item": opened}
        at = {"item_id": item["id"], "output_index": index}
        yield from (event | at for event in _INNER[item["type"]](item, answer.turn.piece))
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    final = _response(answer, done=True)
    yield {"type": f"response.{final['status']}", "response": final}


def _message_events(item: Event, size: int) -> Iterator[Event]:
    part = item["content"][0]
    at = {"content_index": 0}
    yield {"type": "response.content_part.added", "part": part | {"text": ""}} | at
    for piece in pieces(part["text"], size):
        yield {"type": "response.output_text.delta", "delta": piece} | at
    yield {"type": "response.output_text.done", "text": part["text"]} | at
    yield {"type": "response.content_part.done", "part": part} | at


def _reasoning_events(item: Event, size: int) -> Iterator[Event]:
    part = item["summary"][0]
    at = {"summary_index": 0}
    yield {"type": "response.reasoning_summary_part.added", "part": part | {"text": ""}} | at
    for piece in pieces(part["text"], size):
        yield {"type": "response.reasoning_summary_text.delta", "delta": piece} | at
    yield {"type": "response.reasoning_summary_text.done", "text": part["text"]} | at
    yield {"type": "response.reasoning_summary_part.done", "part": part} | at


def _call_events(item: Event, size: int) -> Iterator[Event]:
    for piece in pieces(item["arguments"], size):
        yield {"type": "response.function_call_arguments.delta", "delta": piece}
    yield {"type": "response.function_call_arguments.done", "arguments": item["arguments"]}


_EMPTY: Final[dict[str, Event]] = {
    "message": {"content": []},
    "reasoning": {"summary": []},
    "function_call": {"arguments": ""},
}
_INNER: Final[dict[str, Callable[[Event, int], Iterator[Event]]]] = {
    "message": _message_events,
    "reasoning": _reasoning_events,
    "function_call": _call_events,
}


def _items(answer: Answer) -> list[Event]:
    turn, items = answer.turn, list[Event]()
    if turn.reasoning:
        summary = [{"type": "summary_text", "text": turn.reasoning}]
        items.append({"type": "reasoning", "id": answer.item_id("rs_"), "status": "completed", "summary": summary})
    if turn.content:
        content = [{"type": "output_text", "text": turn.content, "annotations": []}]
        message = {"type": "message", "id": answer.item_id("msg_"), "role": "assistant", "content": content}
        items.append(message | {"status": "completed"})
    for i, call in enumerate(turn.tool_calls):
        ids = {"id": answer.item_id("fc_", i), "call_id": answer.item_id("call_", i), "status": "completed"}
        items.append({"type": "function_call", "name": call.name, "arguments": arguments(call)} | ids)
    return items


def _response(answer: Answer, *, done: bool) -> Event:
    cut = answer.turn.finish in {"length", "content_filter"}
    reason = {"length": "max_output_tokens"}.get(answer.turn.finish, answer.turn.finish)
    return {
        "id": answer.response_id(RESPONSE_ID),
        "object": "response",
        "created_at": CREATED,
        "status": ("incomplete" if cut else "completed") if done else "in_progress",
        "model": answer.asked.model,
        "output": _items(answer) if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": {"reason": reason} if cut and done else None,
        "instructions": None,
        "metadata": {},
    } | _usage(answer, done=done)


def _usage(answer: Answer, *, done: bool) -> Event:
    if answer.turn.show_usage == "absent":
        return {}
    if not done or not reports_usage(answer):
        return {"usage": None}
    usage = answer.usage
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return {
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": usage.cache_read_tokens or 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
            "total_tokens": prompt + completion,
        }
    }
