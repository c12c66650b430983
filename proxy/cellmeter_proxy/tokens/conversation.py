"""A request in the terms that tokens are counted in, whatever its dialect.

Text, tools and images are kept; what a count cannot know is named in ``uncounted``, never guessed at.
"""

from typing import Any

import msgspec

from cellmeter_proxy.tokens.images import Image
from cellmeter_proxy.tokens.jsontext import as_source, as_text
from cellmeter_proxy.tokens.toolspec import Tool
from cellmeter_proxy.wire.fields import as_list, as_object


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool, by the model."""

    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the history."""

    role: str
    text: str
    name: str = ""
    tool_calls: list[ToolCall] = []
    images: list[Image] = []


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks the model to read."""

    model: str = ""
    messages: list[Message] = []
    tools: list[Tool] = []
    plain: list[str] = []
    """Text that is read as it is: prompts of completions, inputs of embeddings, a schema for the answer."""
    given_tokens: int = 0
    """Input that was sent as token numbers."""
    thinking: bool | None = None
    """Whether reasoning was asked for; None where the request does not say."""
    uncounted: list[str] = []
    """What is in the request and in no count, each as a short sentence."""


class Content(msgspec.Struct, kw_only=True):
    """The content of one message while it is being read."""

    texts: list[str] = []
    images: list[Image] = []
    tool_calls: list[ToolCall] = []
    tool_results: list[str] = []
    uncounted: list[str] = []

    def message(self, role: str, name: str = "") -> Message:
        """What was read, as a message of this role."""
        return Message(role=role, text="".join(self.texts), name=name, tool_calls=self.tool_calls, images=self.images)

    def read(self, content: object) -> None:
        """Add the content of a message: a string, or parts of any dialect."""
        if isinstance(content, str):
            self.texts.append(content)
        for part in as_list(content):
            self._read_part(as_object(part))

    def _read_part(self, part: dict[str, Any]) -> None:
        match as_text(part.get("type")):
            case "text" | "input_text" | "output_text" | "summary_text":
                self.texts.append(as_text(part.get("text")))
            case "refusal":
                self.texts.append(as_text(part.get("refusal")))
            case "image_url" | "input_image" | "image":
                self._read_image(part)
            case "tool_use" | "server_tool_use" | "mcp_tool_use":
                call = ToolCall(name=as_text(part.get("name")), arguments=as_source(part.get("input")))
                self.tool_calls.append(call)
            case "tool_result":
                self._read_tool_result(part)
            case "thinking" | "redacted_thinking" | "reasoning_text":
                pass  # Reasoning of earlier answers is not shown to the model again.
            case "document" | "file" | "input_file" | "container_upload":
                self._read_file(part)
            case "input_audio" | "audio":
                self.uncounted.append("audio not counted")
            case _:
                self.uncounted.append("content of an unknown type not counted")

    def _read_image(self, part: dict[str, Any]) -> None:
        source = as_object(part.get("source"))
        url = part.get("image_url")
        given = as_text(url) or as_text(as_object(url).get("url")) or as_text(source.get("data"))
        detail = as_text(part.get("detail")) or as_text(as_object(url).get("detail"))
        self.images.append(Image(source=given, detail=detail or None))

    def _read_tool_result(self, part: dict[str, Any]) -> None:
        result = Content()
        inner = part.get("content")
        result.read(
            [one for one in as_list(inner) if as_object(one).get("type") != "tool_result"]
            if isinstance(inner, list)
            else inner
        )
        self.tool_results.append("".join(result.texts))
        self.images += result.images
        self.uncounted += result.uncounted

    def _read_file(self, part: dict[str, Any]) -> None:
        source = as_object(part.get("source"))
        if source.get("type") == "text":
            self.texts.append(as_text(source.get("data")))
        else:
            self.uncounted.append("file not counted")
