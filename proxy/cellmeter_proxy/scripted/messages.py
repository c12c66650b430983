"""Anthropic messages. Source: https://docs.anthropic.com/en/api/messages and …/messages-streaming.

``input_tokens`` excludes what was read from and written to the cache; the usage of ``message_delta`` is cumulative.
"""

from collections.abc import Iterator
from typing import Any, Final

from cellmeter_proxy.scripted.answer import Answer, arguments, encode, named_event, pieces

RESPONSE_ID: Final = "msg_"

STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}

Event = dict[str, Any]


def unary(answer: Answer) -> bytes:
    """The whole answer as one JSON document."""
    blocks = [block for block, _ in _blocks(answer)]
    stop = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    return encode(_head(answer) | {"content": blocks} | stop | _usage(answer, _completion(answer)))


def frames(answer: Answer) -> list[bytes]:
    """The answer as a stream, from ``message_start`` to ``message_stop``."""
    return [named_event(event) for event in _events(answer)]


def reports_usage(answer: Answer) -> bool:
    """Whether the message holds usage."""
    return answer.turn.show_usage not in {"absent", "null"}


def _events(answer: Answer) -> Iterator[Event]:
    opening: Event = {"content": [], "stop_reason": None, "stop_sequence": None} | _usage(answer, 1)
    yield {"type": "message_start", "message": _head(answer) | opening}
    yield {"type": "ping"}
    for index, (block, deltas) in enumerate(_blocks(answer)):
        yield {"type": "content_block_start", "index": index, "content_block": block | _EMPTY[block["type"]]}
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta} | _usage(answer, _completion(answer))
    yield {"type": "message_stop"}


_EMPTY: Final[dict[str, Event]] = {
    "thinking": {"thinking": "", "signature": ""},
    "text": {"text": ""},
    "tool_use": {"input": {}},
}


def _blocks(answer: Answer) -> list[tuple[Event, list[Event]]]:
    """Each content block, whole and as its deltas."""
    turn, blocks = answer.turn, list[tuple[Event, list[Event]]]()
    if turn.reasoning:
        signature = answer.item_id("sig_")
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(turn.reasoning, turn.piece)]
        whole = {"type": "thinking", "thinking": turn.reasoning, "signature": signature}
        blocks.append((whole, [*deltas, {"type": "signature_delta", "signature": signature}]))
    if turn.content:
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(turn.content, turn.piece)]
        blocks.append(({"type": "text", "text": turn.content}, deltas))
    for i, call in enumerate(turn.tool_calls):
        json = pieces(arguments(call), turn.piece)
        use = {"type": "tool_use", "id": answer.item_id("toolu_", i), "name": call.name, "input": call.arguments}
        blocks.append((use, [{"type": "input_json_delta", "partial_json": piece} for piece in json]))
    return blocks


def _head(answer: Answer) -> Event:
    name = answer.asked.model
    return {"id": answer.response_id(RESPONSE_ID), "type": "message", "role": "assistant", "model": name}


def _stop_reason(answer: Answer) -> str:
    return STOP_REASONS.get(answer.turn.finish, answer.turn.finish)


def _completion(answer: Answer) -> int:
    return answer.usage.completion_tokens or 0


def _usage(answer: Answer, output: int) -> Event:
    if answer.turn.show_usage == "absent":
        return {}
    if answer.turn.show_usage == "null":
        return {"usage": None}
    usage = answer.usage
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    return {
        "usage": {
            "input_tokens": (usage.prompt_tokens or 0) - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "output_tokens": output,
        }
    }
