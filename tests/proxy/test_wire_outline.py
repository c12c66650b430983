"""An answer that is too large to be parsed: what is told of it is what it says, and the rest is null."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.canonical import MAX_BYTES, MAX_ELEMENTS
from cellmeter_proxy.wire import read_answer
from cellmeter_proxy.wire.outline import is_too_large, may_be_whole, outline

NAMES = st.sampled_from(["usage", "model", "id", "data", '"usage', ',"usage":{', 'x","usage":{"a":1}', "a\\", ""])
VALUES = st.recursive(
    st.integers() | NAMES | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
USAGE = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}


def large(last: dict[str, Any]) -> bytes:
    """An answer of more elements than are parsed."""
    return json.dumps({"data": [0] * (MAX_ELEMENTS + 1), **last}).encode()


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_the_members_found_are_members_of_the_object_itself(
    value: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    found = json.loads(outline(body))
    assert found.items() <= {name: found.get(name) for name in value}.items()
    assert all(value[name] == member for name, member in found.items())
    assert found.keys() >= {"usage", "model", "id"} & value.keys()


@pytest.mark.parametrize("dialect", ["chat.completions", "embeddings"])
def test_usage_at_the_end_of_a_large_answer_is_read(dialect: Any) -> None:
    facts = read_answer(dialect, large({"model": "m", "usage": USAGE}))
    assert (facts.usage.prompt_tokens, facts.usage_source, facts.complete) == (12, "provider", True)
    assert facts.usage_json == json.dumps(USAGE)
    assert (facts.response_model, facts.finish_reason, facts.tool_calls, facts.error) == ("m", None, None, None)


@pytest.mark.parametrize("dialect", ["chat.completions", "embeddings", "responses", "messages", "unknown"])
def test_a_large_answer_that_says_nothing_at_its_end_is_whole_and_otherwise_unknown(dialect: Any) -> None:
    body = b'{"usage":{"prompt_tokens":5},"data":"' + b"x" * MAX_BYTES + b'"}\n'
    facts = read_answer(dialect, body)
    assert (facts.usage.prompt_tokens, facts.usage_source, facts.error, facts.complete) == (None, "none", None, True)
    assert read_answer(dialect, body[:-3]).complete is False


def test_usage_of_an_object_within_is_not_the_answers_own_where_the_answer_breaks_off_behind_it() -> None:
    body = large({"nested": {"usage": USAGE}})
    assert outline(body) == b"{}"
    assert outline(body.removesuffix(b"}")) == b"{}"
    facts = read_answer("embeddings", body.removesuffix(b"}"))
    assert (facts.usage.prompt_tokens, facts.usage_source) == (None, "none")


def test_an_answer_as_large_as_a_request_may_be_is_parsed() -> None:
    body = b'{"id":"r","usage":{"prompt_tokens":5},"data":"%b"}'
    body %= b"x" * (MAX_BYTES - len(body) + 2)
    assert len(body) == MAX_BYTES
    assert not is_too_large(body)
    assert read_answer("embeddings", body).response_id == "r"


def test_what_has_many_values_takes_no_time() -> None:
    body = b'{"data":[' + b"[]," * 10_000_000 + b'1],"usage":{"prompt_tokens":4,"total_tokens":4}}'
    began = time.thread_time()
    assert read_answer("embeddings", body).usage.prompt_tokens == 4
    assert time.thread_time() - began < 0.5


def test_many_members_that_could_be_its_own_and_are_not_are_soon_given_up() -> None:
    body = b'{"data":[' + b'{"usage":1},' * 20_000 + b"1]}"
    began = time.thread_time()
    assert outline(body) == b"{}"
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize("body", [b"", b"ID3\x04", b"[]", b'{"a":1', b'{"a":1}]', b'{"a":1}, x'])
def test_what_does_not_begin_and_end_as_an_object_is_none(body: bytes) -> None:
    assert not may_be_whole(body)


@pytest.mark.parametrize("space", [b"", b" \r\n\t", b"\n" * 1000])
def test_white_space_around_an_object_is_nothing(space: bytes) -> None:
    assert may_be_whole(space + b"{}" + space)
