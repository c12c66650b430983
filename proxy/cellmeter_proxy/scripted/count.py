"""How the scripted provider bills: a rule that a test can redo by hand.

A text of n UTF-8 bytes is ``ceil(n / 4)`` tokens. A prompt is the sum over its messages of their text and
4 tokens each, the tool definitions as compact JSON, and 3 tokens for the reply's start. A completion is its content,
its reasoning, and each tool call's name and arguments as compact JSON.
"""

import msgspec

from cellmeter_proxy.record import Usage
from cellmeter_proxy.scripted.asked import Asked
from cellmeter_proxy.scripted.script import Turn

PER_MESSAGE = 4
PER_REPLY = 3


def tokens(text: str) -> int:
    """Tokens of a text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def prompt_tokens(asked: Asked) -> int:
    """Tokens of everything that was sent."""
    return sum(tokens(m.text) + PER_MESSAGE for m in asked.messages) + tokens(asked.tool_definitions) + PER_REPLY


def completion_tokens(turn: Turn) -> int:
    """Tokens of everything that is answered, reasoning included."""
    calls = sum(tokens(call.name) + tokens(msgspec.json.encode(call.arguments).decode()) for call in turn.tool_calls)
    return tokens(turn.content) + tokens(turn.reasoning) + calls


def bill(asked: Asked, turn: Turn) -> Usage:
    """What a turn costs: the script's own numbers where it gives them, else the counted ones."""
    if turn.usage is not None:
        return turn.usage
    reasoning = tokens(turn.reasoning) if turn.reasoning else None
    return Usage(
        prompt_tokens=prompt_tokens(asked), completion_tokens=completion_tokens(turn), reasoning_tokens=reasoning
    )
