"""What a worker is told on its stdin."""

from pathlib import Path

from cellmeter_proxy.absorb import Patience
from cellmeter_proxy.budget import Budget
from cellmeter_proxy.server import ProxyConfig
from cellmeter_proxy.worker import decode_config, encode_config


def test_a_configuration_reaches_the_worker_as_it_was() -> None:
    config = ProxyConfig(
        upstream="https://example.com/v1",
        log=Path("some dir") / "ü.db",
        upstream_key="sk-0123456789",
        durability="process",
        on_429="pace",
        patience=Patience(budget_s=7.5),
        prices=Path("prices.toml"),
        budget=Budget(calls=3, cost_usd=0.25),
        granted_tools=frozenset({"web_search", "mcp:https://example.com/*"}),
    )
    assert decode_config(encode_config(config)) == config
    plain = ProxyConfig(upstream="https://example.com/v1", log=Path("a.db"))
    assert decode_config(encode_config(plain)) == plain
