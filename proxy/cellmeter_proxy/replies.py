"""The proxy's own answers, in the words of the dialect that was spoken to it."""

import msgspec

from cellmeter_proxy.http_message import Reply
from cellmeter_proxy.record import Dialect


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class _OpenAIError(msgspec.Struct):
    error: _Error


class _AnthropicDetail(msgspec.Struct):
    type: str
    message: str


class _AnthropicError(msgspec.Struct):
    error: _AnthropicDetail
    type: str = "error"


def error_reply(dialect: Dialect, status: int, message: str, *, type_: str, code: str, request_id: str) -> Reply:
    """An error as the agents' SDKs expect it.

    The OpenAI form is that of its API reference ("error codes"); the Anthropic form is that of its
    errors page. ``message`` is prefixed, so that nobody takes it for the provider's word. ``request_id``
    is sent as ``x-request-id``, which agents print with an error; it is the ``call_id`` of the row.
    """
    message = f"cellmeter: {message}"
    reply: _OpenAIError | _AnthropicError
    if dialect in {"messages", "count_tokens"}:
        reply = _AnthropicError(_AnthropicDetail(type_, message))
    else:
        reply = _OpenAIError(_Error(message, type_, code=code))
    return Reply(status, msgspec.json.encode(reply), b"application/json", x_request_id=request_id)
