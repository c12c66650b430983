"""Requests of every dialect, read into a ``Conversation``. Any bytes give one, or None where they are not JSON."""

from collections.abc import Callable
from typing import Any, Final

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.tokens.conversation import Content, Conversation, Message, ToolCall
from cellmeter_proxy.tokens.jsontext import as_source, as_text, compact
from cellmeter_proxy.tokens.toolspec import Tool
from cellmeter_proxy.wire.fields import as_list, as_object, load
from cellmeter_proxy.wire.outline import has_too_many_values

_SERVER_TOOL: Final = "server-side tool not counted"


def conversation_of(dialect: Dialect, body: bytes) -> Conversation | None:
    """What a request asks the model to read.

    None where the body is not a JSON object, or one of too many values, or where the dialect has no prompt.
    """
    reader = _READERS.get(dialect)
    request = None if has_too_many_values(body) else load(body)
    if reader is None or not isinstance(request, dict):
        return None
    return reader(as_object(request))


# Chat completions: https://platform.openai.com/docs/api-reference/chat/create


def _chat(request: dict[str, Any]) -> Conversation:
    uncounted: list[str] = []
    messages = [_chat_message(as_object(one), uncounted) for one in as_list(request.get("messages"))]
    tools = [_function(one, uncounted) for one in as_list(request.get("tools"))]
    tools += [_tool(as_object(one), "parameters", one) for one in as_list(request.get("functions"))]
    schema = as_object(as_object(request.get("response_format")).get("json_schema")).get("schema")
    return Conversation(
        model=as_text(request.get("model")),
        messages=messages,
        tools=[tool for tool in tools if tool],
        plain=_answer_schema(schema, uncounted),
        thinking=_effort(request.get("reasoning_effort")),
        uncounted=uncounted,
    )


def _chat_message(message: dict[str, Any], uncounted: list[str]) -> Message:
    content = Content(uncounted=uncounted)
    content.read(message.get("content"))
    calls = [as_object(as_object(call).get("function") or as_object(call).get("custom")) for call in _calls(message)]
    content.tool_calls += [
        ToolCall(name=as_text(call.get("name")), arguments=as_source(call.get("arguments", call.get("input"))))
        for call in calls
    ]
    return content.message(as_text(message.get("role")), as_text(message.get("name")))


def _calls(message: dict[str, Any]) -> list[Any]:
    legacy = message.get("function_call")
    return as_list(message.get("tool_calls")) + ([{"function": legacy}] if isinstance(legacy, dict) else [])


def _function(tool: object, uncounted: list[str]) -> Tool | None:
    declared = as_object(tool)
    inner = declared.get("function") if declared.get("type", "function") == "function" else declared.get("custom")
    if isinstance(inner, dict):
        return _tool(as_object(inner), "parameters", tool)
    uncounted.append(_SERVER_TOOL)
    return None


def _tool(declared: dict[str, Any], schema_key: str, sent: object) -> Tool:
    return Tool(
        name=as_text(declared.get("name")),
        description=as_text(declared.get("description")),
        parameters=as_object(declared.get(schema_key)),
        definition=compact(sent),
    )


def _answer_schema(schema: object, uncounted: list[str]) -> list[str]:
    if not schema:
        return []
    uncounted.append("schema of the answer counted as its JSON")
    return [compact(schema)]


def _effort(effort: object) -> bool | None:
    return None if not isinstance(effort, str) else effort != "none"


# Completions and embeddings: https://platform.openai.com/docs/api-reference/completions/create


def _completions(request: dict[str, Any]) -> Conversation:
    return _plain(request, [request.get("prompt"), request.get("suffix")])


def _embeddings(request: dict[str, Any]) -> Conversation:
    return _plain(request, [request.get("input")])


def _plain(request: dict[str, Any], inputs: list[object]) -> Conversation:
    """A text, texts, token numbers, or lists of token numbers."""
    flat = [one for given in inputs for one in (as_list(given) or [given])]
    rows = [row for one in flat for row in (as_list(one) or [one])]
    return Conversation(
        model=as_text(request.get("model")),
        plain=[row for row in rows if isinstance(row, str)],
        given_tokens=sum(isinstance(row, int) for row in rows),
        uncounted=["content of an unknown type not counted"] if any(isinstance(row, dict) for row in rows) else [],
    )


# Responses: https://platform.openai.com/docs/api-reference/responses/create


def _responses(request: dict[str, Any]) -> Conversation:
    uncounted = [sentence for key, sentence in _HELD_BY_PROVIDER.items() if request.get(key)]
    messages = (
        [Message(role="system", text=instructions)] if (instructions := as_text(request.get("instructions"))) else []
    )
    given = request.get("input")
    if isinstance(given, str):
        messages.append(Message(role="user", text=given))
    messages += [message for one in as_list(given) if (message := _item(as_object(one), uncounted))]
    schema = as_object(as_object(request.get("text")).get("format")).get("schema")
    return Conversation(
        model=as_text(request.get("model")),
        messages=messages,
        tools=[tool for one in as_list(request.get("tools")) if (tool := _flat_tool(as_object(one), uncounted))],
        plain=_answer_schema(schema, uncounted),
        thinking=_effort(as_object(request.get("reasoning")).get("effort")),
        uncounted=uncounted,
    )


_HELD_BY_PROVIDER: Final = {
    "previous_response_id": "earlier turns held by the provider not counted",
    "conversation": "earlier turns held by the provider not counted",
    "prompt": "prompt held by the provider not counted",
}


def _item(item: dict[str, Any], uncounted: list[str]) -> Message | None:
    content = Content(uncounted=uncounted)
    match as_text(item.get("type")) or "message":
        case "message":
            content.read(item.get("content"))
            return content.message(as_text(item.get("role")))
        case "function_call" | "custom_tool_call":
            arguments = as_source(item.get("arguments", item.get("input")))
            content.tool_calls.append(ToolCall(name=as_text(item.get("name")), arguments=arguments))
            return content.message("assistant")
        case "function_call_output" | "custom_tool_call_output":
            content.read(item.get("output"))
            return content.message("tool")
        case "reasoning":
            return None
        case _:
            uncounted.append("item of an unknown type not counted")
            return None


def _flat_tool(tool: dict[str, Any], uncounted: list[str]) -> Tool | None:
    if as_text(tool.get("type")) in {"function", "custom"}:
        return _tool(tool, "parameters", tool)
    uncounted.append(_SERVER_TOOL)
    return None


# Anthropic messages: https://docs.anthropic.com/en/api/messages


def _messages(request: dict[str, Any]) -> Conversation:
    uncounted: list[str] = []
    messages: list[Message] = []
    if request.get("system"):
        messages += _anthropic_message("system", request.get("system"), uncounted)
    for one in as_list(request.get("messages")):
        message = as_object(one)
        messages += _anthropic_message(as_text(message.get("role")), message.get("content"), uncounted)
    return Conversation(
        model=as_text(request.get("model")),
        messages=messages,
        tools=[tool for one in as_list(request.get("tools")) if (tool := _anthropic_tool(as_object(one), uncounted))],
        thinking=as_object(request.get("thinking")).get("type") in {"enabled", "adaptive"},
        uncounted=uncounted,
    )


def _anthropic_message(role: str, given: object, uncounted: list[str]) -> list[Message]:
    """One message, and one more for each tool result within it, as a chat template writes them."""
    content = Content(uncounted=uncounted)
    content.read(given)
    results = [Message(role="tool", text=text) for text in content.tool_results]
    alone = results and not content.texts and not content.tool_calls and not content.images
    return results if alone else [*results, content.message(role)]


def _anthropic_tool(tool: dict[str, Any], uncounted: list[str]) -> Tool | None:
    if isinstance(tool.get("input_schema"), dict):
        return _tool(tool, "input_schema", tool)
    uncounted.append(_SERVER_TOOL)
    return None


_READERS: Final[dict[Dialect, Callable[[dict[str, Any]], Conversation]]] = {
    "chat.completions": _chat,
    "completions": _completions,
    "embeddings": _embeddings,
    "responses": _responses,
    "messages": _messages,
    "count_tokens": _messages,
}
