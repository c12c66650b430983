"""Chat completions as OpenAI and its compatible providers write them.

Source: https://platform.openai.com/docs/api-reference/chat (object and streaming). ``reasoning_content`` is the
field of DeepSeek and vLLM.
"""

from collections.abc import Iterator
from typing import Any, Final

from cellmeter_proxy.record import Usage
from cellmeter_proxy.scripted.answer import CREATED, DONE, Answer, arguments, data_event, encode, openai_usage, pieces

RESPONSE_ID: Final = "chatcmpl-"


def unary(answer: Answer) -> bytes:
    """The whole answer as one JSON document."""
    turn = answer.turn
    message: dict[str, Any] = {"role": "assistant", "content": turn.content or None}
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        message["tool_calls"] = [_tool_call(answer, i) for i in range(len(turn.tool_calls))]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": turn.finish}
    return encode(_head(answer, "chat.completion") | {"choices": [choice]} | _unary_usage(answer))


def frames(answer: Answer) -> list[bytes]:
    """The answer as a stream: role, reasoning, content, tool calls, finish reason, usage, ``[DONE]``."""
    head = _head(answer, "chat.completion.chunk")
    choices: list[dict[str, Any]] = [
        {"delta": delta, "logprobs": None, "finish_reason": None} for delta in _deltas(answer)
    ]
    choices.append({"delta": {}, "logprobs": None, "finish_reason": answer.turn.finish})
    documents = [
        head | {"choices": [{"index": 0} | choice]} | _beside(answer, i, len(choices) - 1)
        for i, choice in enumerate(choices)
    ]
    if answer.turn.show_usage in {"asked", "always"} and reports_usage(answer):
        documents.append(head | {"choices": [], "usage": openai_usage(answer.usage)})
    return [*map(data_event, documents), DONE]


def reports_usage(answer: Answer) -> bool:
    """Whether the answer holds a usage object."""
    show = answer.turn.show_usage
    if show == "asked" and answer.asked.stream:
        return answer.asked.include_usage
    return show not in {"absent", "null"}


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {"id": answer.response_id(RESPONSE_ID), "object": kind, "created": CREATED, "model": answer.asked.model}


def _unary_usage(answer: Answer) -> dict[str, Any]:
    if answer.turn.show_usage == "absent":
        return {}
    return {"usage": openai_usage(answer.usage) if reports_usage(answer) else None}


def _tool_call(answer: Answer, index: int) -> dict[str, Any]:
    call = answer.turn.tool_calls[index]
    function = {"name": call.name, "arguments": arguments(call)}
    return {"id": answer.item_id("call_", index), "type": "function", "function": function}


def _deltas(answer: Answer) -> Iterator[dict[str, Any]]:
    turn = answer.turn
    yield {"role": "assistant", "content": ""}
    yield from ({"reasoning_content": piece} for piece in pieces(turn.reasoning, turn.piece))
    yield from ({"content": piece} for piece in pieces(turn.content, turn.piece))
    for index, call in enumerate(turn.tool_calls):
        opening = _tool_call(answer, index)
        opening["function"] = {"name": call.name, "arguments": ""}
        yield {"tool_calls": [{"index": index} | opening]}
        for piece in pieces(arguments(call), turn.piece):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _beside(answer: Answer, i: int, last: int) -> dict[str, Any]:
    """What chunk ``i`` says of usage beside its choices: null as OpenAI does, a running count as vLLM can."""
    show, usage = answer.turn.show_usage, answer.usage
    if show == "every" and i < last:
        so_far = (usage.completion_tokens or 0) * i // last
        return {"usage": openai_usage(Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=so_far))}
    if show in {"every", "finish"} and i == last:
        return {"usage": openai_usage(usage)}
    if show == "x_groq" and i == last:
        return {"x_groq": {"id": answer.response_id("req_"), "usage": openai_usage(usage)}}
    if show == "null" or (show in {"asked", "always"} and answer.asked.include_usage):
        return {"usage": None}
    return {}
