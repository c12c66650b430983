import pytest

from cellmeter_proxy.tokens.answers import Answer
from cellmeter_proxy.tokens.conversation import Conversation, Message, ToolCall
from cellmeter_proxy.tokens.counting import Tally
from cellmeter_proxy.tokens.families import family_of
from cellmeter_proxy.tokens.ranks import encoding
from cellmeter_proxy.tokens.rules import count_answer, count_prompt, without_reasoning

CALL = ToolCall(name="look", arguments="{}")  # one token each


@pytest.fixture
def tally() -> Tally:
    return Tally(encoding("o200k_base"))


@pytest.mark.parametrize(
    ("model", "messages", "tokens"),
    [
        # 3 for the message, 1 for the role, 1 for the text; 3 for the primer, 2 of a model that reasons.
        ("gpt-4o", [Message(role="user", text="hello")], 3 + 1 + 1 + 3),
        ("gpt-5-mini", [Message(role="user", text="hello")], 3 + 1 + 1 + 2),
        ("deepseek-chat", [Message(role="user", text="hello")], 1 + 1 + 3),
        ("gpt-4o", [Message(role="user", name="hello", text="hello")], 3 + 1 + 1 + 2 + 3),
        ("gpt-4o", [Message(role="assistant", text="", tool_calls=[CALL])], 3 + 1 + 9 + 3),
        ("gpt-4o", [Message(role="assistant", text="", tool_calls=[CALL, CALL])], 3 + 1 + 18 + 12 + 3),
        ("gpt-4o", [], 0),
    ],
)
def test_a_prompt_is_counted_by_the_rule_for_messages(
    model: str, messages: list[Message], tokens: int, tally: Tally
) -> None:
    assert count_prompt(Conversation(messages=messages), family_of(model), tally) == tokens


def test_plain_text_and_token_numbers_have_no_frame(tally: Tally) -> None:
    conversation = Conversation(plain=["hello", "hello world"], given_tokens=5)

    assert count_prompt(conversation, family_of("text-embedding-3-small"), tally) == 8


def test_reasoning_in_earlier_answers_is_counted_only_where_the_template_keeps_it(tally: Tally) -> None:
    plain = Conversation(messages=[Message(role="assistant", text="hello")])
    thought = Conversation(messages=[Message(role="assistant", text="<think>so many words</think>hello")])
    asked = Conversation(messages=[Message(role="user", text="<think>so many words</think>hello")])

    qwen, gpt = family_of("qwen3-32b"), family_of("gpt-4o")

    assert count_prompt(thought, qwen, tally) == count_prompt(plain, qwen, tally)
    assert count_prompt(thought, gpt, tally) > count_prompt(plain, gpt, tally)
    assert count_prompt(asked, qwen, tally) > count_prompt(plain, qwen, tally)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>a</think>b", "b"),
        ("x<think>a</think>b<think>c</think>d", "xbd"),
        ("<think>never closed", "<think>never closed"),
        ("</think>never opened", "</think>never opened"),
        ("", ""),
        ("<think>" * 100_000 + "</think>x", "x"),
    ],
)
def test_each_closed_block_of_reasoning_is_taken_out(text: str, rest: str) -> None:
    assert without_reasoning(text) == rest


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        (Answer(texts=["hello", " world"]), 2),
        (Answer(tool_calls=[CALL]), 9),
        (Answer(texts=["hello"], tool_calls=[CALL, CALL]), 1 + 18 + 17),
        (Answer(), 0),
    ],
)
def test_an_answer_is_its_texts_and_its_tool_calls(answer: Answer, tokens: int, tally: Tally) -> None:
    assert count_answer(answer, tally) == tokens
