"""Answers of every dialect, streamed or not, joined into the text that was generated.

A stream is joined before it is counted: its chunks are not tokens, and encoding each one over-counts by a quarter.
Deltas are kept per choice, block or item; of tool calls the name once and the fragments of the arguments in order.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.sse import parse_frame, split
from cellmeter_proxy.tokens.conversation import ToolCall
from cellmeter_proxy.tokens.jsontext import as_source, as_text
from cellmeter_proxy.wire.fields import as_list, as_object, load
from cellmeter_proxy.wire.outline import has_too_many_values


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model generated, as far as it was shown."""

    texts: list[str] = []
    """One for each choice or block of text, reasoning included where it is shown as it was generated."""
    tool_calls: list[ToolCall] = []
    hidden_reasoning: bool = False
    """The answer itself says that there was reasoning which it does not show, or only sums up."""
    shown_reasoning: bool = False
    uncounted: list[str] = []
    """What was generated and is in no text here, each as a short sentence."""


class Slot(msgspec.Struct, kw_only=True):
    """One choice, block, item or tool call while its deltas arrive."""

    fragments: list[str] = []
    tool: str | None = None
    """The tool's name, where this is a call of one."""


class Gathered(msgspec.Struct, kw_only=True):
    """All slots of an answer while it is being read."""

    slots: dict[tuple[object, ...], Slot] = {}
    hidden: bool = False
    unseen: set[int] = set()
    """Items of reasoning of which nothing has been shown, so far."""
    shown: bool = False
    uncounted: list[str] = []

    def add(self, key: tuple[object, ...], text: object, *, tool: object = None) -> None:
        """Append a fragment to a slot, which is a tool call if any of its fragments has named one."""
        slot = self.slots.setdefault(key, Slot())
        slot.fragments.append(as_source(text))
        slot.tool = slot.tool or as_text(tool) or None

    def reasoning(self, key: tuple[object, ...], text: object) -> None:
        """Append reasoning that is shown as it was generated."""
        if as_text(text):
            self.shown = True
            self.add((*key, "reasoning"), text)

    def answer(self) -> Answer:
        """What was gathered."""
        slots = list(self.slots.values())
        return Answer(
            texts=["".join(slot.fragments) for slot in slots if slot.tool is None],
            tool_calls=[ToolCall(name=slot.tool, arguments="".join(slot.fragments)) for slot in slots if slot.tool],
            hidden_reasoning=self.hidden or bool(self.unseen),
            shown_reasoning=self.shown,
            uncounted=self.uncounted,
        )


def answer_of(dialect: Dialect, body: bytes) -> Answer | None:
    """What the model generated, or None where the body shows nothing of it.

    Args:
        dialect: the dialect of the call.
        body: the body of the answer, decompressed: one JSON object, or a stream of events, even a cut one.

    """
    reader = _READERS.get(dialect)
    if reader is None:
        return None
    gathered = Gathered()
    for document in _documents(body):
        if not has_too_many_values(document):
            reader(as_object(load(document)), gathered)
    answer = gathered.answer()
    return answer if gathered.slots or answer.hidden_reasoning or answer.uncounted else None


def _documents(body: bytes) -> list[bytes]:
    """The JSON texts of an answer; among those of a stream may be ``[DONE]``, which is none."""
    if body.lstrip()[:1] in {b"{", b"["}:
        return [body]
    return [event.data for frame in split(body) if (event := parse_frame(frame))]


def _chat(document: dict[str, Any], into: Gathered) -> None:
    for order, one in enumerate(as_list(document.get("choices"))):
        choice = as_object(one)
        key = (_index(choice, order),)
        said = as_object(choice.get("delta")) or as_object(choice.get("message"))
        if "text" in choice:  # legacy completions
            into.add(key, as_text(choice["text"]))
        _chat_message(key, said, into)


def _chat_message(key: tuple[object, ...], said: dict[str, Any], into: Gathered) -> None:
    if said:
        into.add(key, as_text(said.get("content")))
        into.add(key, as_text(said.get("refusal")))
    for one in as_list(said.get("content")):
        _chat_part(key, as_object(one), into)
    if said.get("audio"):
        into.uncounted.append("audio not counted")
    # Both names are in use for the same text, by DeepSeek and by OpenRouter and Ollama; one answer may carry both.
    into.reasoning(key, as_text(said.get("reasoning_content")) or as_text(said.get("reasoning")))
    if any(as_object(one).get("type") == "reasoning.encrypted" for one in as_list(said.get("reasoning_details"))):
        into.hidden = True
    for order, one in enumerate(as_list(said.get("tool_calls"))):
        call = as_object(one)
        function = as_object(call.get("function") or call.get("custom"))
        into.add(
            (*key, "call", _index(call, order)),
            function.get("arguments", function.get("input")),
            tool=function.get("name"),
        )
    if legacy := as_object(said.get("function_call")):
        into.add((*key, "call"), legacy.get("arguments"), tool=legacy.get("name"))


def _chat_part(key: tuple[object, ...], part: dict[str, Any], into: Gathered) -> None:
    """A part of content in a list, which is how Mistral's reasoning models answer."""
    into.add(key, as_text(part.get("text")))
    for thought in as_list(part.get("thinking")):
        into.reasoning(key, as_object(thought).get("text"))


def _index(value: dict[str, Any], order: int) -> int:
    """The place that a part of a stream names, or else the one that it stands at."""
    index = value.get("index")
    return index if isinstance(index, int) else order


def _responses(document: dict[str, Any], into: Gathered) -> None:
    """A whole response, an event that carries an item or the response whole, or a delta of an item not yet whole."""
    whole = document if document.get("object") == "response" else as_object(document.get("response"))
    for order, item in enumerate(as_list(whole.get("output"))):
        _whole_item(order, as_object(item), into)
    if isinstance(place := document.get("output_index"), int):
        _item_event(place, document, into)


def _item_event(place: int, document: dict[str, Any], into: Gathered) -> None:
    match as_text(document.get("type")):
        case "response.output_item.added":
            item = as_object(document.get("item"))
            if item.get("type") == "reasoning":
                into.unseen.add(place)
            if isinstance(item.get("name"), str):
                into.add((place,), "", tool=item["name"])
        case "response.output_item.done":
            _whole_item(place, as_object(document.get("item")), into)
        case "response.output_text.delta" | "response.refusal.delta":
            into.add((place,), as_text(document.get("delta")))
        case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
            into.add((place,), as_text(document.get("delta")))
        case "response.reasoning_text.delta":
            into.unseen.discard(place)
            into.reasoning((place,), document.get("delta"))
        case _:
            pass


def _whole_item(place: int, item: dict[str, Any], into: Gathered) -> None:
    """An item as it is in the end, in place of what its deltas gave."""
    for key in ((place,), (place, "reasoning")):
        into.slots.pop(key, None)
    match as_text(item.get("type")):
        case "message":
            for one in as_list(item.get("content")):
                into.add((place,), as_text(as_object(one).get("text")) or as_text(as_object(one).get("refusal")))
        case "function_call" | "custom_tool_call":
            into.add((place,), item.get("arguments", item.get("input")), tool=as_text(item.get("name")) or "?")
        case "reasoning":
            shown = "".join(as_text(as_object(one).get("text")) for one in as_list(item.get("content")))
            into.reasoning((place,), shown)
            if shown:
                into.unseen.discard(place)
            else:
                into.unseen.add(place)
        case _:
            into.uncounted.append("item of an unknown type not counted")


def _messages(document: dict[str, Any], into: Gathered) -> None:
    """A whole message, or one event of a stream."""
    for order, block in enumerate(as_list(document.get("content"))):
        _block(order, as_object(block), into)
    if isinstance(place := document.get("index"), int):
        _block_event(place, document, into)


def _block_event(place: int, document: dict[str, Any], into: Gathered) -> None:
    if document.get("type") == "content_block_start":
        _block(place, as_object(document.get("content_block")), into)
    delta = as_object(document.get("delta"))
    match as_text(delta.get("type")):
        case "text_delta":
            into.add((place,), as_text(delta.get("text")))
        case "input_json_delta":
            into.add((place,), as_text(delta.get("partial_json")))
        case "thinking_delta":
            into.hidden = True
        case _:
            pass


def _block(place: int, block: dict[str, Any], into: Gathered) -> None:
    match as_text(block.get("type")):
        case "text":
            into.add((place,), as_text(block.get("text")))
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            # A streamed block starts with an empty input, which the deltas then write.
            into.add((place,), block.get("input") or "", tool=as_text(block.get("name")) or "?")
        case "thinking" | "redacted_thinking":
            # What is shown is a summary; what was thought is billed.
            into.hidden = True
        case _:
            pass


_READERS: Final[dict[Dialect, Callable[[dict[str, Any], Gathered], None]]] = {
    "chat.completions": _chat,
    "completions": _chat,
    "responses": _responses,
    "messages": _messages,
}
