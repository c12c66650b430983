"""The count of a conversation or an answer in the tokens of its family's encoding, before any ratio or offset.

The rule for messages is that of https://github.com/openai/openai-cookbook (How_to_count_tokens_with_tiktoken): 3 for
each message, its role, its content, its name with 1 more, and 3 to open the answer. What tool calls add is not
published; the constants here fit what OpenAI billed.
"""

from typing import Final

from cellmeter_proxy.tokens.answers import Answer
from cellmeter_proxy.tokens.conversation import Conversation, Message, ToolCall
from cellmeter_proxy.tokens.counting import Tally
from cellmeter_proxy.tokens.families import Family
from cellmeter_proxy.tokens.toolspec import Tool, typescript

_TYPESCRIPT_FRAME: Final = 9
_SYSTEM_SHARED: Final = 4
"""A system message and the tools share a part of what frames them."""
_TOOL_CALL: Final = 7
_PARALLEL_HISTORY: Final = 12
_PARALLEL_ANSWER: Final = 17


def count_prompt(conversation: Conversation, family: Family, tally: Tally) -> int:
    """The tokens of a request, without its images."""
    tokens = conversation.given_tokens + sum(tally.count(text) for text in conversation.plain)
    if conversation.messages:
        tokens += family.primer + sum(_message(message, family, tally) for message in conversation.messages)
    if conversation.tools:
        tokens += _tools(conversation.tools, family, tally)
        if family.tools == "typescript" and any(one.role in {"system", "developer"} for one in conversation.messages):
            tokens -= _SYSTEM_SHARED
    return tokens


def count_answer(answer: Answer, tally: Tally) -> int:
    """The tokens of an answer, as far as it is shown."""
    tokens = sum(tally.count(text) for text in answer.texts)
    tokens += sum(_tool_call(call, tally) for call in answer.tool_calls)
    return tokens + (_PARALLEL_ANSWER if len(answer.tool_calls) > 1 else 0)


def without_reasoning(text: str) -> str:
    """The text of an earlier answer less each ``<think>…</think>``, as chat templates of reasoning models resend it."""
    kept: list[str] = []
    at = 0
    while (start := text.find("<think>", at)) >= 0 and (end := text.find("</think>", start)) >= 0:
        kept.append(text[at:start])
        at = end + len("</think>")
    return "".join(kept) + text[at:]


def _message(message: Message, family: Family, tally: Tally) -> int:
    dropped = family.drops_reasoning and message.role == "assistant"
    text = without_reasoning(message.text) if dropped else message.text
    tokens = family.per_message + tally.count(message.role) + tally.count(text)
    if message.name:
        tokens += 1 + tally.count(message.name)
    tokens += sum(_tool_call(call, tally) for call in message.tool_calls)
    return tokens + (_PARALLEL_HISTORY if len(message.tool_calls) > 1 else 0)


def _tool_call(call: ToolCall, tally: Tally) -> int:
    return _TOOL_CALL + tally.count(call.name) + tally.count(call.arguments)


def _tools(tools: list[Tool], family: Family, tally: Tally) -> int:
    if family.tools == "typescript":
        return _TYPESCRIPT_FRAME + tally.count(typescript(tools))
    return tally.count(f"[{','.join(tool.definition for tool in tools)}]")
