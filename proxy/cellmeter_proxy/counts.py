"""What a recorded call says of its tokens, and whether it says it all. Pure."""

from typing import Final

from cellmeter_proxy.record import Call, Dialect, Usage

COUNTED: Final[frozenset[Dialect]] = frozenset(
    {"chat.completions", "completions", "embeddings", "responses", "messages"}
)
"""The dialects whose requests and answers are made of tokens that can be counted."""

_WITHOUT_CONTENT: Final = frozenset({204, 205})


def can_answer(status: int) -> bool:
    """Whether an answer of a model can come under a status: success (2xx), but no status that has no content.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-15.3, 204 in §15.3.5 and 205 in §15.3.6. A redirect (3xx)
    names another place to ask, and a 304 an answer that the client has.
    """
    return 200 <= status < 300 and status not in _WITHOUT_CONTENT


def usage_of(call: Call) -> Usage:
    """The counts of a call as its provider reported them."""
    return Usage(**{name: getattr(call, name) for name in Usage.__struct_fields__})


def model_of(call: Call) -> str | None:
    """The model that answered, or else the one that was asked for."""
    return call.response_model or call.request_model


def can_be_counted(call: Call) -> bool:
    """Whether a model answered the call, wholly or in part, in a dialect whose tokens can be counted."""
    answered = call.response_blob is not None and call.status is not None and can_answer(call.status)
    return answered and call.dialect in COUNTED


def is_unmetered(call: Call) -> bool:
    """Whether a model answered and the provider did not tell all the tokens."""
    return can_be_counted(call) and call.attached_to is None and call.usage_source != "provider"
