"""The session of a coding agent as bytes: each turn resends what was said before, and adds a little.

The texts are the source files of Python's own library, so that they compress as source does; the same seed gives the
same bytes on the same Python.
"""

import random
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from cellmeter_proxy.record import Usage
from cellmeter_proxy.scripted import chat, messages, responses
from cellmeter_proxy.scripted.answer import Answer, arguments, encode
from cellmeter_proxy.scripted.asked import Asked
from cellmeter_proxy.scripted.script import ToolCall, Turn

AgentDialect = Literal["chat.completions", "messages", "responses"]
Json = dict[str, Any]
_MODEL: Final = "scripted-1"
_MARK: Final = {"cache_control": {"type": "ephemeral"}}


class Exchanged(NamedTuple):
    """One turn of a session."""

    request: bytes
    answer: bytes
    frames: list[bytes]
    """The answer as it is sent, event by event; one piece where it is not streamed."""
    news: bytes
    """Of the request, what no earlier one of the session said."""


def session(dialect: AgentDialect, turns: int = 100, *, streamed: bool = True, seed: int = 0) -> Iterator[Exchanged]:
    """The turns of one session: 15 KB of instructions, 10 KB of tools, then answers of 0.3 to 3 KB and tool results
    of 1 to 6 KB, in the wire form of a dialect.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    texts = _Texts(chance)
    start = {"instructions": texts.some(15_000), "tools": [_tool(texts, number) for number in range(10)]}
    said: list[Json] = [{"role": "user", "content": texts.some(2000)}]
    news = encode(start) + encode(said)
    write, wire = _REQUESTS[dialect], _ANSWERS[dialect]
    for number in range(turns):
        request = encode(write(start, said, streamed))
        answer = _answer(dialect, texts, chance, number, streamed=streamed)
        frames = wire[0](answer) if streamed else [wire[1](answer)]
        yield Exchanged(request, b"".join(frames), frames, news)
        new = _ECHOES[dialect](answer, texts.some(chance.randint(1000, 6000)))
        said, news = said + new, encode(new)


class _Texts:
    """Excerpts of source files."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))

    def some(self, size: int) -> str:
        """An excerpt of at most so many characters."""
        text = self._chance.choice(self._files).read_text(encoding="utf-8", errors="replace")
        begin = self._chance.randrange(max(len(text) - size, 1))
        return text[begin : begin + size]


def _tool(texts: _Texts, number: int) -> Json:
    path = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    return {"name": f"tool_{number}", "description": texts.some(850), "parameters": path}


def _answer(dialect: AgentDialect, texts: _Texts, chance: random.Random, number: int, *, streamed: bool) -> Answer:
    call = ToolCall(name=f"tool_{number % 10}", arguments={"path": f"src/module_{chance.randrange(99)}.py"})
    turn = Turn(content=texts.some(chance.randint(300, 3000)), tool_calls=[call], piece=0)
    return Answer(
        n=chance.randrange(10**24),
        turn_number=number,
        asked=Asked(dialect=dialect, model=_MODEL, stream=streamed, include_usage=True),
        turn=turn,
        usage=Usage(prompt_tokens=9000 + number * 1200, completion_tokens=chance.randint(80, 800)),
    )


def _chat_request(start: Json, said: list[Json], streamed: bool) -> Json:  # noqa: FBT001
    tools = [{"type": "function", "function": tool} for tool in start["tools"]]
    whole = [{"role": "system", "content": start["instructions"]}, *said]
    options = {"stream_options": {"include_usage": True}} if streamed else {}
    return {"model": _MODEL, "messages": whole, "tools": tools, "stream": streamed} | options


def _chat_echo(answer: Answer, result: str) -> list[Json]:
    call = answer.turn.tool_calls[0]
    id_ = answer.item_id("call_")
    calls = [{"id": id_, "type": "function", "function": {"name": call.name, "arguments": arguments(call)}}]
    return [
        {"role": "assistant", "content": answer.turn.content, "tool_calls": calls},
        {"role": "tool", "tool_call_id": id_, "content": result},
    ]


def _messages_request(start: Json, said: list[Json], streamed: bool) -> Json:  # noqa: FBT001
    """As agents send it that mark the end of what the provider shall cache, a different place each time."""
    system = [{"type": "text", "text": start["instructions"]} | _MARK]
    tools = [
        {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}
        for tool in start["tools"]
    ]
    *earlier, last = said
    content = last["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    marked = last | {"content": [*blocks[:-1], blocks[-1] | _MARK]}
    head = {"model": _MODEL, "max_tokens": 8192, "messages": [*earlier, marked]}
    return head | {"system": system, "tools": tools, "stream": streamed}


def _messages_echo(answer: Answer, result: str) -> list[Json]:
    call = answer.turn.tool_calls[0]
    id_ = answer.item_id("toolu_")
    use = {"type": "tool_use", "id": id_, "name": call.name, "input": call.arguments}
    return [
        {"role": "assistant", "content": [{"type": "text", "text": answer.turn.content}, use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id_, "content": result}]},
    ]


def _responses_request(start: Json, said: list[Json], streamed: bool) -> Json:  # noqa: FBT001
    tools = [{"type": "function"} | tool for tool in start["tools"]]
    head = {"model": _MODEL, "instructions": start["instructions"], "input": said}
    return head | {"tools": tools, "store": False, "stream": streamed}


def _responses_echo(answer: Answer, result: str) -> list[Json]:
    call = answer.turn.tool_calls[0]
    id_ = answer.item_id("call_")
    text = [{"type": "output_text", "text": answer.turn.content, "annotations": []}]
    return [
        {"type": "message", "id": answer.item_id("msg_"), "role": "assistant", "content": text},
        {"type": "function_call", "call_id": id_, "name": call.name, "arguments": arguments(call)},
        {"type": "function_call_output", "call_id": id_, "output": result},
    ]


_REQUESTS: Final[dict[AgentDialect, Callable[[Json, list[Json], bool], Json]]] = {
    "chat.completions": _chat_request,
    "messages": _messages_request,
    "responses": _responses_request,
}
_ECHOES: Final[dict[AgentDialect, Callable[[Answer, str], list[Json]]]] = {
    "chat.completions": _chat_echo,
    "messages": _messages_echo,
    "responses": _responses_echo,
}
_ANSWERS: Final[dict[AgentDialect, tuple[Callable[[Answer], list[bytes]], Callable[[Answer], bytes]]]] = {
    "chat.completions": (chat.frames, chat.unary),
    "messages": (messages.frames, messages.unary),
    "responses": (responses.frames, responses.unary),
}
