"""Which dialect a path speaks.

Invariant: every spelling of a path that a server may take for another has the dialect of the other, so that no call
of a model is hidden by how its address is written.
"""

from typing import Final
from urllib.parse import unquote

from cellmeter_proxy.record import Dialect

_POSTED: Final[dict[str, Dialect]] = {
    "completions": "completions",
    "embeddings": "embeddings",
    "responses": "responses",
    "messages": "messages",
}


def dialect_of(method: str, path: str) -> Dialect:
    """The dialect of a request, told by the end of its path.

    What stands before is the provider's own (``/v1``, ``/openai/v1``, ``/api/v1``, ``/v1beta/openai``, Azure's
    ``/openai/deployments/NAME``) and may be anything. A query or a trailing slash makes no difference, nor do
    percent-encoding, doubled slashes and dot segments, which servers resolve (RFC 3986 §6.2.2).
    """
    segments = _segments(path)
    if method.upper() in {"GET", "HEAD"}:
        return "models" if "models" in segments else "unknown"
    if method.upper() != "POST" or not segments:
        return "unknown"
    if segments[-2:] == ["chat", "completions"]:
        return "chat.completions"
    if segments[-2:] == ["messages", "count_tokens"]:
        return "count_tokens"
    if "threads" in segments:  # the Assistants API posts messages too, and they are no calls of a model
        return "unknown"
    return _POSTED.get(segments[-1], "unknown")


def _segments(path: str) -> list[str]:
    """The parts of a path as a server resolves them."""
    resolved: list[str] = []
    for segment in unquote(path.partition("?")[0]).split("/"):
        if segment == "..":
            del resolved[-1:]
        elif segment not in {"", "."}:
            resolved.append(segment)
    return resolved
