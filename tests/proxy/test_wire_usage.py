"""Usage objects are read member by member, whatever stands in one of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.record import Usage
from cellmeter_proxy.wire.fields import count
from cellmeter_proxy.wire.usage import anthropic_usage, openai_usage

OPENAI = [
    *("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens", "reasoning_tokens"),
    *("prompt_cache_hit_tokens", "cached_tokens"),
]
ANTHROPIC = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"]
INSIDE = ["cached_tokens", "cache_write_tokens", "reasoning_tokens", "thinking_tokens", "audio_tokens"]
DETAILS = [
    *("prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details"),
]
COUNTS: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 50),
    st.sampled_from([None, True, -1, 7.0, 0.5, 1e300, float("inf"), 2**63 - 1, 2**63, 2**70, "5", "", [], {}, [1]]),
)
INNER: st.SearchStrategy[Any] = st.one_of(
    st.dictionaries(st.sampled_from(INSIDE), COUNTS), st.sampled_from([None, {}, [], "x", 3])
)


def usages(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Usage objects of which any member may be anything."""
    return st.builds(
        lambda counts, details, cost: counts | details | cost,
        st.dictionaries(st.sampled_from(names), COUNTS),
        st.dictionaries(st.sampled_from(DETAILS), INNER),
        st.dictionaries(st.just("cost"), COUNTS),
    )


def first(fields: Any, *names: str) -> int | None:
    """The first of the members that is a count."""
    return next((found for name in names if (found := count(fields.get(name))) is not None), None)


def inside(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """The first of the members that is an object with anything in it."""
    return next((fields[name] for name in names if isinstance(fields.get(name), dict) and fields[name]), {})


@given(usages(OPENAI))
def test_no_member_of_a_usage_object_costs_another(fields: dict[str, Any]) -> None:
    prompt = first(fields, "prompt_tokens", "input_tokens")
    completion = first(fields, "completion_tokens", "output_tokens")
    total = first(fields, "total_tokens")
    taken = inside(fields, "prompt_tokens_details", "input_tokens_details")
    made = inside(fields, "completion_tokens_details", "output_tokens_details")
    reasoning = first(made, "reasoning_tokens")
    reasoning = first(fields, "reasoning_tokens") if reasoning is None else reasoning
    cached = first(taken, "cached_tokens")
    if prompt is not None and completion is not None and total is not None and total - prompt > completion:
        completion = total - prompt if reasoning in {None, total - prompt - completion} else completion
    reported = openai_usage(fields)
    if prompt is None and completion is None:
        assert reported is None
        return
    assert reported is not None
    assert reported.usage == Usage(
        prompt_tokens=prompt,
        cache_read_tokens=first(fields, "prompt_cache_hit_tokens", "cached_tokens") if cached is None else cached,
        cache_write_tokens=first(taken, "cache_write_tokens"),
        completion_tokens=completion,
        reasoning_tokens=reasoning,
    )


@given(usages(ANTHROPIC))
def test_nor_does_one_of_anthropics(fields: dict[str, Any]) -> None:
    fresh, read, written, completion = (first(fields, name) for name in ANTHROPIC)
    usage = anthropic_usage(fields)
    if fresh is None and completion is None:
        assert usage is None
        return
    made = inside(fields, "output_tokens_details")
    assert usage == Usage(
        prompt_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        cache_read_tokens=read,
        cache_write_tokens=written,
        completion_tokens=completion,
        reasoning_tokens=first(made, "thinking_tokens", "reasoning_tokens"),
    )


@pytest.mark.parametrize("value", [None, [], "x", 5, {}, {"prompt_tokens": None}, [{"prompt_tokens": 1}]])
def test_what_holds_no_count_is_no_usage(value: object) -> None:
    assert openai_usage(value) is None
    assert anthropic_usage(value) is None
