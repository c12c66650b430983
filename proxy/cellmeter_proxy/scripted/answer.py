"""One answer on its way to the wire, and what all dialects need to write it."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from cellmeter_proxy.record import Record, Usage
from cellmeter_proxy.scripted.asked import Asked
from cellmeter_proxy.scripted.script import ToolCall, Turn

CREATED: Final = 1_767_225_600
"""The time that every answer bears, so that two runs give the same bytes."""

DONE: Final = b"data: [DONE]\n\n"
_WORDS: Final = re.compile(r" ?\w{1,8}|\s+|[^\w\s]{1,3}")


class Answer(Record, frozen=True, kw_only=True):
    """A turn with the facts that its wire form needs."""

    n: int
    """Order of arrival of the request; names the response."""
    turn_number: int
    """Names the items that an agent sends back, so that repeated runs send the same bytes."""
    asked: Asked
    turn: Turn
    usage: Usage

    def response_id(self, prefix: str) -> str:
        return f"{prefix}{self.n:024d}"

    def item_id(self, prefix: str, index: int = 0) -> str:
        return f"{prefix}{self.turn_number:012d}{index:012d}"


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)


def arguments(call: ToolCall) -> str:
    """A tool call's arguments as the JSON text that OpenAI's dialects carry."""
    return encode(call.arguments).decode()


def pieces(text: str, size: int) -> Iterator[str]:
    """The text in streamed deltas, of so many characters; where that is 0, of a word or so each, as tokens are."""
    if not size:
        return (match[0] for match in _WORDS.finditer(text))
    return (text[i : i + size] for i in range(0, len(text), size))


def data_event(value: Any) -> bytes:
    """A server-sent event without a name (WHATWG HTML §9.2.6)."""
    return b"data: " + encode(value) + b"\n\n"


def named_event(value: dict[str, Any]) -> bytes:
    """A server-sent event named after its own ``type``."""
    return b"event: " + str(value["type"]).encode() + b"\n" + data_event(value)


def openai_usage(usage: Usage) -> dict[str, Any]:
    """Usage as chat completions report it; parts that nobody counted are left out.

    Source: https://platform.openai.com/docs/api-reference/chat/object
    """
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    document: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    cached = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens}
    if details := {key: value for key, value in cached.items() if value is not None}:
        document["prompt_tokens_details"] = details
    if usage.reasoning_tokens is not None:
        document["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return document
