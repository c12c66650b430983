"""What a recorded call says of its tokens, and whether it says it all. Pure."""

from typing import Final

from cellmeter_proxy.record import Call, Dialect, Usage

COUNTED: Final[frozenset[Dialect]] = frozenset(
    {"chat.completions", "completions", "embeddings", "responses", "messages"}
)
"""The dialects whose requests and answers are made of tokens that can be counted."""


def usage_of(call: Call) -> Usage:
    """The counts of a call as its provider reported them."""
    return Usage(**{name: getattr(call, name) for name in Usage.__struct_fields__})


def model_of(call: Call) -> str | None:
    """The model that answered, or else the one that was asked for."""
    return call.response_model or call.request_model


def can_be_counted(call: Call) -> bool:
    """Whether a model answered the call, wholly or in part, in a dialect whose tokens can be counted."""
    answered = call.response_blob is not None and call.status is not None and call.status < 400
    return answered and call.dialect in COUNTED


def is_unmetered(call: Call) -> bool:
    """Whether a model answered and the provider did not tell all the tokens."""
    return can_be_counted(call) and call.attached_to is None and call.usage_source != "provider"
