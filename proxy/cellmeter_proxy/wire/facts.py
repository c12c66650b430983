"""What the relay learns from a request and from an answer, whatever their dialect."""

from typing import Literal, NamedTuple

import msgspec

from cellmeter_proxy.record import Dialect, Usage


class Conversation(NamedTuple):
    """What the messages of a request come to."""

    message_count: int
    chain: list[str]
    """See ``canonical.prefix_chain``; over each message as ``history.plain_message`` has it."""
    fetched: list[str]
    """See ``tools.fetched``."""


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says. What it does not say, or what could not be read, is None or empty."""

    dialect: Dialect
    endpoint: str
    model: str | None = None
    stream: bool | None = None
    """None where the body could not be read; a body that does not ask for a stream has False."""
    asks_usage: bool = False
    """The request itself asks for usage in the stream (``stream_options.include_usage``)."""
    message_count: int | None = None
    prefix: list[str] = []
    """One hash per message, each of it and all before it; see ``canonical.prefix_chain``."""
    provider_tools: list[str] = []
    """What the provider is asked to run or to fetch itself: ``web_search``, ``mcp:URL``, ``image_url:URL``, …"""


class AnswerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer says, streamed or not."""

    response_model: str | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    """As the dialect names it; of a response its ``status``, or why it is incomplete."""
    tool_calls: int | None = None
    """Calls that the agent is asked to run; what the provider runs itself is not counted."""
    usage: Usage = Usage()
    usage_source: Literal["provider", "partial", "none"] = "none"
    """``partial``: the stream broke before its final usage, or only one of input and output was reported."""
    usage_json: str | None = None
    """The provider's usage object verbatim; an array of two where the numbers come from two events."""
    provider_cost: float | None = None
    """US dollars, where the provider reports them (OpenRouter's ``usage.cost``)."""
    error: str | None = None
    complete: bool = False
    """The terminal event was received, or the JSON was whole."""
