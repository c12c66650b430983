"""A request's messages as the prefix chain counts them.

Agents resend their history with other cache marks each time, and some turn a string into a single text block to hang
one on (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching). Neither makes a message a new one.
"""

from operator import is_
from typing import Any, Final

_MARK: Final = "cache_control"


def plain_message(message: Any) -> Any:
    """A message without ``cache_control``, its content a string where it is a single block of plain text.

    One that is so already is given back itself.
    """
    if not isinstance(message, dict):
        return message
    plain = _unmarked(message) if _MARK in message else message
    content = plain.get("content")
    if not isinstance(content, list):
        return plain
    blocks = [_unmarked(block) if isinstance(block, dict) and _MARK in block else block for block in content]
    only = _only_text(blocks)
    if only is blocks and all(map(is_, blocks, content)):
        return plain
    return plain | {"content": only}


def _unmarked(value: dict[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if name != _MARK}


def _only_text(blocks: list[Any]) -> Any:
    match blocks:
        case [{"type": "text", "text": str(text), **others}] if not others:
            return text
        case _:
            return blocks
