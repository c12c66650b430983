"""Errors in the shape that each dialect's clients read."""

from typing import Any, Final

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.scripted.answer import data_event, encode, named_event

# https://platform.openai.com/docs/guides/error-codes
OPENAI_TYPES: Final = {
    401: "invalid_request_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}
# https://docs.anthropic.com/en/api/errors
ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
MESSAGES: Final = {
    401: "Incorrect API key provided",
    429: "Rate limit reached for requests",
    500: "The server had an error while processing your request",
    503: "The engine is currently overloaded, please try again later",
    529: "Overloaded",
}


def document(
    dialect: Dialect, status: int, *, message: str | None = None, error_type: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The error body for a status; what is not given takes the provider's usual words."""
    message = message or MESSAGES.get(status) or f"The request failed with status {status}"
    usual = "invalid_request_error" if status < 500 else "server_error"
    if dialect in {"messages", "count_tokens"}:
        kind = error_type or ANTHROPIC_TYPES.get(status) or (usual if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    kind = error_type or OPENAI_TYPES.get(status, usual)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def body(
    dialect: Dialect, status: int, *, message: str | None = None, error_type: str | None = None, code: str | None = None
) -> bytes:
    """The error body as bytes."""
    return encode(document(dialect, status, message=message, error_type=error_type, code=code))


def in_stream(dialect: Dialect, *, message: str | None = None, error_type: str | None = None) -> bytes:
    """The event that tells of an error after a 200 has gone out."""
    error = document(dialect, 500, message=message, error_type=error_type)
    if dialect == "messages":
        return named_event(error)
    if dialect == "responses":
        inner = error["error"]
        return named_event({"type": "error", "code": inner["type"], "message": inner["message"], "param": None})
    return data_event(error)
