"""Legacy completions. Source: https://platform.openai.com/docs/api-reference/completions."""

from typing import Any, Final

from cellmeter_proxy.scripted.answer import CREATED, DONE, Answer, data_event, encode, openai_usage, pieces
from cellmeter_proxy.scripted.chat import reports_usage

__all__ = ["RESPONSE_ID", "frames", "reports_usage", "unary"]

RESPONSE_ID: Final = "cmpl-"


def unary(answer: Answer) -> bytes:
    """The whole answer as one JSON document."""
    usage = {} if answer.turn.show_usage == "absent" else {"usage": _usage(answer)}
    return encode(_head(answer) | {"choices": [_choice(answer.turn.content, answer.turn.finish)]} | usage)


def frames(answer: Answer) -> list[bytes]:
    """The answer as a stream of the same objects, then ``[DONE]``."""
    head = _head(answer)
    choices = [_choice(piece, None) for piece in pieces(answer.turn.content, answer.turn.piece)]
    documents = [head | {"choices": [choice]} for choice in [*choices, _choice("", answer.turn.finish)]]
    if reports_usage(answer):
        documents.append(head | {"choices": [], "usage": _usage(answer)})
    return [*map(data_event, documents), DONE]


def _head(answer: Answer) -> dict[str, Any]:
    name = answer.asked.model
    return {"id": answer.response_id(RESPONSE_ID), "object": "text_completion", "created": CREATED, "model": name}


def _choice(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


def _usage(answer: Answer) -> dict[str, Any] | None:
    return openai_usage(answer.usage) if reports_usage(answer) else None
