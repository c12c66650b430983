"""A rate that was learnt gives the cost that the table gives, to the last digit, or it is not used."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_proxy.prices import cost_of, rate_of
from cellmeter_proxy.rates import Rate, RateKey, Rates, dollars, key_of
from cellmeter_proxy.record import Call

OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com"


def call(**fields: Any) -> Call:
    known: dict[str, Any] = {
        "upstream": OPENAI,
        "request_model": "gpt-4o",
        "usage_source": "provider",
        "prompt_tokens": 1000,
        "completion_tokens": 10,
    }
    return Call(call_id="c", session="s", writer="w", started_at=1_760_000_000_000_000, **(known | fields))


COUNT = st.integers(0, 3_000_000)


@settings(max_examples=50, deadline=None)
@given(
    where=st.sampled_from([(OPENAI, "gpt-4o"), (OPENAI, "gpt-5-mini"), (ANTHROPIC, "claude-3-5-haiku-latest")]),
    learnt=st.tuples(COUNT, COUNT),
    counts=st.tuples(COUNT, COUNT, st.none() | COUNT, st.none() | COUNT),
)
def test_a_rate_that_was_learnt_from_one_call_prices_another_as_the_table_does(
    where: tuple[str, str], learnt: tuple[int, int], counts: tuple[int, int, int | None, int | None]
) -> None:
    prompt, completion, read, write = counts
    other: dict[str, Any] = {"upstream": where[0], "request_model": where[1]}
    parts = {"cache_read_tokens": read, "cache_write_tokens": write}
    seen = call(**other, prompt_tokens=learnt[0], completion_tokens=learnt[1], **{n: p and 0 for n, p in parts.items()})
    priced = call(**other, prompt_tokens=prompt, completion_tokens=completion, **parts)
    rates, key = Rates(), key_of(seen)
    assert key is not None
    rates.learn(key, rate_of(seen))
    found, expected = rates.priced(priced), cost_of(priced)
    if found.price_source is not None:
        assert expected is not None
        assert (found.cost, found.price_source) == (expected.usd, expected.source)
    else:
        assert (read or 0) + (write or 0) > prompt


def test_a_rate_says_what_a_token_of_each_kind_costs() -> None:
    rate = rate_of(call(cache_read_tokens=5))
    assert rate is not None
    assert (rate.prompt, rate.cache_read, rate.completion) == (
        Decimal("0.0000025"),
        Decimal("-0.00000125"),
        Decimal("0.00001"),
    )
    assert rate.source is not None
    assert rate.source.endswith("openai/gpt-4o")


@pytest.mark.parametrize(
    ("upstream", "model"),
    [(ANTHROPIC, "claude-sonnet-4-5"), ("https://api.deepseek.com", "deepseek-chat")],
    ids=["tiers", "hours of the day"],
)
def test_a_price_that_depends_on_more_than_the_tokens_is_always_looked_up(upstream: str, model: str) -> None:
    assert cost_of(call(upstream=upstream, request_model=model)) is not None
    assert rate_of(call(upstream=upstream, request_model=model)) is None


@pytest.mark.parametrize(
    "fields", [{"upstream": "http://127.0.0.1:1/v1"}, {"request_model": "nobody-knows-it"}], ids=["place", "model"]
)
def test_that_there_is_no_price_is_learnt_too(fields: dict[str, str]) -> None:
    assert rate_of(call(**fields)) == Rate()
    rates = Rates()
    rates.learn(RateKey(OPENAI, "gpt-4o", (False, False, True)), Rate())
    assert rates.priced(call()) == call()


@pytest.mark.parametrize(
    "fields",
    [
        {"usage": '{"prompt_tokens":1000,"cost":0.5}'},
        {"usage": '{"prompt_tokens":1000,"c\\u006fst":0.5}'},
        {"usage_source": "partial"},
        {"prompt_tokens": None},
        {"upstream": None},
        {"cache_read_tokens": 600, "cache_write_tokens": 401},
    ],
)
def test_where_more_than_counts_and_a_model_matters_there_is_no_rate(fields: dict[str, Any]) -> None:
    assert key_of(call(**fields)) is None
    assert rate_of(call(**fields)) is None
    assert Rates().priced(call(**fields)) == call(**fields)


def test_rates_are_kept_for_a_thousand_models_and_no_more() -> None:
    rates = Rates()
    keys = [RateKey(OPENAI, f"m{number}", (False, False, True)) for number in range(1001)]
    for key in keys[:1000]:
        assert rates.lacks(key)
        rates.learn(key, None)
    assert not rates.lacks(keys[0])
    assert not rates.lacks(keys[1000])
    assert dollars(call(), Rate(prompt=Decimal(1), completion=Decimal(2))) == 1020
