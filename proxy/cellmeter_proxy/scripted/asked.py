"""A request in any of the dialects, read down to what a script needs to know of it."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

import msgspec

from cellmeter_proxy.record import Dialect, Record

Role = Literal["system", "user", "assistant", "tool"]

DIALECTS: tuple[tuple[str, Dialect], ...] = (
    ("/chat/completions", "chat.completions"),
    ("/completions", "completions"),
    ("/embeddings", "embeddings"),
    ("/responses", "responses"),
    ("/messages/count_tokens", "count_tokens"),
    ("/messages", "messages"),
)

MAX_DIMENSIONS = 4096


class Message(Record, frozen=True, kw_only=True):
    """One message of the conversation, tool calls and tool results included, as text."""

    role: Role
    text: str


class Asked(Record, frozen=True, kw_only=True):
    """One request."""

    dialect: Dialect
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    messages: Sequence[Message] = ()
    tools: Sequence[str] = ()
    tool_definitions: str = ""
    """The tools as they were sent, for counting."""
    dimensions: int = 8
    base64: bool = False

    def task_position(self, task: str) -> int | None:
        """Index of the last message of the user that holds the text."""
        hits = [i for i, message in enumerate(self.messages) if message.role == "user" and task in message.text]
        return hits[-1] if hits else None

    def turns_since(self, task: str | None) -> int:
        """How many answers follow the task; what an assistant says in a row is one answer."""
        start = (self.task_position(task) or 0) if task else 0
        return sum(role == "assistant" for role, _ in groupby(self.messages[start:], key=lambda message: message.role))


def dialect_of(path: str) -> Dialect:
    """The dialect that a path is written in, whatever stands before ``/v1``."""
    for end, dialect in DIALECTS:
        if path.rstrip("/").endswith(end):
            return dialect
    return "unknown"


def read(dialect: Dialect, body: bytes) -> Asked:
    """Read a request body.

    Raises:
        ValueError: if it is not a JSON object with a model.

    """
    try:
        document = msgspec.json.decode(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not (isinstance(document, dict) and isinstance(document.get("model"), str)):
        raise ValueError("it is not a JSON object with a model")  # noqa: TRY004
    tools, options, dimensions = document.get("tools"), document.get("stream_options"), document.get("dimensions")
    return Asked(
        dialect=dialect,
        model=document["model"],
        stream=document.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        messages=list(_messages(dialect, document)),
        tools=[name for tool in _list(tools) if (name := _tool_name(tool))],
        tool_definitions=_json(tools) if tools else "",
        dimensions=dimensions if isinstance(dimensions, int) and 0 < dimensions <= MAX_DIMENSIONS else 8,
        base64=document.get("encoding_format") == "base64",
    )


def _messages(dialect: Dialect, document: dict[str, Any]) -> Iterable[Message]:
    if system := document.get("system") or document.get("instructions"):
        yield Message(role="system", text=_text(system))
    given = document.get({"completions": "prompt"}.get(dialect, "input" if "input" in document else "messages"))
    for item in _list(given):
        yield from _item(item)


def _item(item: Any) -> Iterable[Message]:
    """One element of ``messages``, ``input`` or ``prompt``; a tool result in a user's message stands for itself."""
    if not isinstance(item, dict):
        yield Message(role="user", text=_text(item))
        return
    kind, role = item.get("type", "message"), item.get("role")
    if kind != "message" and role is None:
        yield Message(role="tool" if str(kind).endswith("_output") else "assistant", text=_text(item))
        return
    parts = _list(item.get("content"))
    results = [part for part in parts if isinstance(part, dict) and part.get("type") == "tool_result"]
    if results:
        yield Message(role="tool", text=_text(results))
    if rest := [part for part in parts if part not in results]:
        yield Message(role=_role(role), text=_text(rest) + _text(item.get("tool_calls")))


def _role(role: Any) -> Role:
    if role == "assistant":
        return "assistant"
    if role == "user":
        return "user"
    return "tool" if role in ("tool", "function") else "system"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    """The words of a value: strings as they are, text parts by their text, anything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(part) for part in value)
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return str(value["text"])
    return _json(value)


def _tool_name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    name = (function if isinstance(function, dict) else tool).get("name")
    return name if isinstance(name, str) else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
