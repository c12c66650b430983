import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.prices import Cost, Overrides, Price, load_overrides, price
from cellmeter_proxy.record import Usage

OPENAI = "https://api.openai.com/v1/chat/completions"
LOCAL = "http://localhost:8000/v1"
MAY_2025 = 1_746_057_600_000_000
MAY_2026 = 1_777_593_600_000_000
USAGE = Usage(prompt_tokens=1_000, cache_read_tokens=600, completion_tokens=200)

OFFLINE = """
import sys

def refuse(event, args):
    if event.startswith("socket.") or event == "_thread.start_new_thread":
        raise RuntimeError(event)

sys.addaudithook(refuse)
from cellmeter_proxy.prices import price
from cellmeter_proxy.record import Usage

print(price(Usage(prompt_tokens=1, completion_tokens=1), "gpt-5", "https://api.openai.com/v1", 1777593600000000).usd)
"""


def usd(cost: Cost | None) -> float:
    assert cost is not None
    return cost.usd


def test_a_call_is_priced_by_upstream_and_model_with_cached_input_apart() -> None:
    # 400 at $1.25, 600 cached at $0.125, 200 out at $10, per million.
    cost = price(USAGE, "gpt-5", OPENAI, MAY_2026)

    assert usd(cost) == pytest.approx(0.0005 + 0.000075 + 0.002)
    assert cost is not None
    assert cost.source.startswith("genai-prices ")
    assert cost.source.endswith(" openai/gpt-5")


def test_a_call_is_priced_as_of_its_time() -> None:
    usage = Usage(prompt_tokens=1_000, completion_tokens=1_000)

    assert usd(price(usage, "o3", OPENAI, MAY_2025)) == pytest.approx(0.05)
    assert usd(price(usage, "o3", OPENAI, MAY_2026)) == pytest.approx(0.01)


def test_one_model_has_the_price_of_the_provider_that_answered() -> None:
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000)

    assert usd(price(usage, "openai/gpt-oss-120b", "https://api.groq.com/openai/v1", MAY_2026)) == pytest.approx(0.75)
    assert usd(price(usage, "gpt-oss-120b", "https://api.cerebras.ai/v1", MAY_2026)) == pytest.approx(1.1)


def test_writing_to_a_cache_is_priced_apart() -> None:
    usage = Usage(prompt_tokens=1_000, cache_read_tokens=600, cache_write_tokens=100, completion_tokens=200)

    # 300 at $5, 600 at $0.5, 100 at $6.25, 200 out at $25, per million.
    assert usd(price(usage, "claude-opus-4-7", "https://api.anthropic.com", MAY_2026)) == pytest.approx(0.007425)


def test_embeddings_have_a_cost_without_completion_tokens() -> None:
    assert usd(price(Usage(prompt_tokens=1_000), "text-embedding-3-small", OPENAI, MAY_2026)) == pytest.approx(0.00002)


@pytest.mark.parametrize(
    ("usage", "model", "url"),
    [
        (USAGE, "gpt-5", LOCAL),
        (USAGE, "no-such-model", OPENAI),
        (USAGE, None, OPENAI),
        (USAGE, "gpt-5", None),
        (USAGE, "gpt-5", ""),
        (USAGE, "gpt-5", "https://evil.example/api.openai.com"),
        (USAGE, "gpt-5", "http://[::"),
        (Usage(), "gpt-5", OPENAI),
        (Usage(completion_tokens=5), "gpt-5", OPENAI),
        (Usage(prompt_tokens=5), "gpt-5", OPENAI),
        (Usage(prompt_tokens=5, cache_read_tokens=6, completion_tokens=1), "gpt-5", OPENAI),
        (Usage(prompt_tokens=-5, completion_tokens=1), "gpt-5", OPENAI),
    ],
)
def test_a_cost_that_is_not_known_is_none_and_never_zero(usage: Usage, model: str | None, url: str | None) -> None:
    assert price(usage, model, url, MAY_2026) is None
    assert price(usage, model, url, MAY_2026, Overrides(prices=[Price(host="elsewhere", input=1)])) is None


def test_what_the_provider_says_a_call_cost_wins() -> None:
    own = Overrides(prices=[Price(input=1, output=1)], source="prices.toml")

    assert price(USAGE, "gpt-5", OPENAI, MAY_2026, own, reported_usd=0.5) == Cost(usd=0.5, source="provider")
    assert price(USAGE, "gpt-5", OPENAI, MAY_2026, own, reported_usd=0.0) == Cost(usd=0.0, source="provider")
    assert price(Usage(), None, None, MAY_2026, reported_usd=0.5) == Cost(usd=0.5, source="provider")


@pytest.mark.parametrize("nonsense", [-1.0, float("nan"), float("inf")])
def test_a_reported_cost_that_is_no_amount_is_passed_over(nonsense: float) -> None:
    assert price(USAGE, "gpt-5", LOCAL, MAY_2026, reported_usd=nonsense) is None


def test_the_users_own_price_comes_before_the_table() -> None:
    own = Overrides(
        prices=[Price(host="api.openai.com", model="gpt-*", input=2, cache_read=1, output=3)], source="mine"
    )

    cost = price(USAGE, "gpt-5", OPENAI, MAY_2026, own)

    assert usd(cost) == pytest.approx((400 * 2 + 600 * 1 + 200 * 3) / 1e6)
    assert cost is not None
    assert cost.source == "mine"


def test_a_free_model_costs_nothing_which_is_known() -> None:
    own = Overrides(prices=[Price(host="localhost:8000", input=0, output=0)], source="mine")

    assert price(USAGE, "any", LOCAL, MAY_2026, own) == Cost(usd=0.0, source="mine")
    assert price(USAGE, "any", "http://localhost:9000/v1", MAY_2026, own) is None


def test_cached_input_without_a_price_of_its_own_costs_what_other_input_costs() -> None:
    own = Overrides(prices=[Price(input=2, output=0)])
    usage = Usage(prompt_tokens=1_000, cache_read_tokens=600, cache_write_tokens=100, completion_tokens=0)

    assert usd(price(usage, "any", LOCAL, MAY_2026, own)) == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("usage", "own"),
    [
        (Usage(prompt_tokens=5), Price(input=1, output=1)),
        (Usage(prompt_tokens=5, completion_tokens=5), Price(input=1)),
        (Usage(prompt_tokens=5, cache_read_tokens=6, completion_tokens=1), Price(input=1, output=1)),
        (Usage(prompt_tokens=0, completion_tokens=-1), Price(input=1, output=1)),
    ],
)
def test_an_own_price_that_lacks_a_count_gives_none_rather_than_a_part(usage: Usage, own: Price) -> None:
    assert price(usage, "gpt-5", OPENAI, MAY_2026, Overrides(prices=[own])) is None


def test_the_own_price_that_came_into_force_last_holds() -> None:
    own = Overrides(
        prices=[
            Price(input=3, output=0, valid_from=dt.date(2026, 5, 2)),
            Price(input=2, output=0, valid_from=dt.date(2026, 5, 1)),
            Price(input=9, output=0, valid_from=dt.date(2026, 5, 1)),
            Price(input=1, output=0),
        ]
    )
    million = Usage(prompt_tokens=1_000_000, completion_tokens=0)

    assert [usd(price(million, "any", LOCAL, at, own)) for at in (MAY_2025, MAY_2026, MAY_2026 + 86_400_000_000)] == [
        1,
        2,
        3,
    ]


def test_own_prices_are_read_from_a_file_and_named_by_it(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        '[[price]]\nhost = "*.example.com"\nmodel = "Qwen3-*"\nvalid_from = 2026-01-01\ninput = 0.5\noutput = 1.5\n'
    )

    own = load_overrides(path)

    assert own.prices == [
        Price(host="*.example.com", model="Qwen3-*", valid_from=dt.date(2026, 1, 1), input=0.5, output=1.5)
    ]
    assert own.source == "prices.toml sha256:" + own.source[-12:]
    assert usd(price(USAGE, "qwen3-32b", "https://user:secret@API.example.com/v1", MAY_2026, own)) == pytest.approx(
        0.0008
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[[price]]\ninput = -1\n", "Expected `float` >= 0.0"),
        (b"[[price]]\ninput = nan\n", "Expected `float` >= 0.0"),
        (b"[[price]]\noutput = 1\n", "missing required field `input`"),
        (b"[[price]]\ninput = 1\ncached = 1\n", "unknown field `cached`"),
        (b'[[price]]\ninput = 1\nvalid_from = "2026"\n', "Expected `date | null`, got `str`"),
        (b"price = \n", "Invalid value"),
        (b"", "missing required field `price`"),
        (b"\xff", "can't decode"),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_name(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_bytes(content)

    with pytest.raises(CellmeterError) as refused:
        load_overrides(path)

    assert refused.value.message.startswith(f"the prices {path} cannot be used: ")
    assert said in refused.value.message
    assert refused.value.exit_code == 2


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CellmeterError, match=r"prices\.toml cannot be read: No such file or directory"):
        load_overrides(tmp_path / "prices.toml")


def test_pricing_opens_no_socket_and_starts_no_thread() -> None:
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("1.125e-05\n", "")


COUNT = st.none() | st.integers(-5, 10**9)


@settings(deadline=None)  # the machine may be busy
@given(
    st.builds(Usage, prompt_tokens=COUNT, cache_read_tokens=COUNT, cache_write_tokens=COUNT, completion_tokens=COUNT),
    st.sampled_from(["gpt-5", "claude-sonnet-4-5", "", "\x00"]) | st.text(max_size=5),
    st.sampled_from([OPENAI, LOCAL, "https://api.anthropic.com", "//", "http://["]),
    st.integers(0, 4 * 10**15),
    st.none() | st.just(Overrides(prices=[Price(model="g*", input=1, output=1)])),
)
def test_no_usage_makes_a_price_raise_or_negative(
    usage: Usage, model: str, url: str, at_us: int, own: Overrides | None
) -> None:
    cost = price(usage, model, url, at_us, own)

    assert cost is None or cost.usd >= 0
