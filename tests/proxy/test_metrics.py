"""The counts of a proxy, as a scraper reads them: parsed by Prometheus' own parser, over a real connection."""

import asyncio
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from cellmeter_proxy.metrics import Metrics, lasting, open_calls, text_of, together
from cellmeter_proxy.server import ProxyConfig, Running, serve
from cellmeter_proxy.testing import LiteralClient, LiteralProvider
from cellmeter_scoring.testing import make_call, make_failed_call

BODY = b'{"model":"secret-model","messages":[{"role":"user","content":"hi"}]}'
ANSWER = (
    b'{"id":"1","model":"secret-model","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13,'
    b'"prompt_tokens_details":{"cached_tokens":4}}}'
)
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)
LIMITED = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}"
KEY = b"Authorization: Bearer sk-test-0123456789abcdefghijkl"

Labels = tuple[str, ...]


def samples(text: str) -> dict[tuple[str, Labels], float]:
    """Every sample by its name and the values of its labels."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(proxy: Running) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}/_cellmeter/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return await response.text()


async def test_calls_and_their_tokens_are_counted_once_they_are_recorded(tmp_path: Path) -> None:
    async with (
        LiteralProvider([OK], [LIMITED]) as provider,
        serve(ProxyConfig(upstream=provider.url, log=tmp_path / "log.db")) as proxy,
    ):
        client = await LiteralClient.connect(proxy.url)
        await client.post("/s/secret-session/v1/chat/completions", BODY, KEY)
        await client.until(ANSWER)
        await client.post("/s/secret-session/v1/chat/completions", BODY, KEY)
        await client.until(b"{}")
        await client.close()
        found = samples(await scrape(proxy))
    assert found["cellmeter_calls_total", ("chat.completions", "ok", "2xx")] == 1
    assert [found["cellmeter_tokens_total", (kind,)] for kind in ("prompt", "completion", "cache_read")] == [11, 2, 4]
    assert found["cellmeter_tokens_total", ("reasoning",)] == 0
    assert found["cellmeter_calls_total", ("chat.completions", "http_error", "4xx")] == 1
    assert found["cellmeter_commit_wait_seconds_count", ()] == 2
    assert found["gen_ai_client_operation_duration_seconds_count", ("chat", "127.0.0.1")] == 2
    assert found["gen_ai_client_token_usage_sum", ("chat", "127.0.0.1", "input")] == 11
    assert found["cellmeter_open_calls", ()] == 0
    assert found["cellmeter_log_write_failures_total", ()] == 0


async def test_nothing_of_a_client_or_a_model_is_shown(tmp_path: Path) -> None:
    async with (
        LiteralProvider([OK]) as provider,
        serve(ProxyConfig(upstream=provider.url, log=tmp_path / "log.db")) as proxy,
    ):
        client = await LiteralClient.connect(proxy.url)
        await client.post("/s/secret-session/v1/chat/completions", BODY, KEY, b"User-Agent: secret-agent")
        await client.until(ANSWER)
        await client.close()
        text = await scrape(proxy)
    assert "secret" not in text
    assert "sk-test" not in text


async def test_a_call_is_open_while_it_is_served(tmp_path: Path) -> None:
    go = asyncio.Event()
    async with (
        LiteralProvider([go.wait, OK]) as provider,
        serve(ProxyConfig(upstream=provider.url, log=tmp_path / "log.db")) as proxy,
    ):
        client = await LiteralClient.connect(proxy.url)
        await client.post("/v1/chat/completions", BODY, KEY)
        while not provider.received:
            await asyncio.sleep(0)
        assert samples(await scrape(proxy))["cellmeter_open_calls", ()] == 1
        go.set()
        await client.until(ANSWER)
        await client.close()


async def test_a_call_that_the_log_did_not_take_is_counted(tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    async with LiteralProvider([OK]) as provider, serve(ProxyConfig(upstream=provider.url, log=log)) as proxy:
        log.rename(tmp_path / "gone.db")
        client = await LiteralClient.connect(proxy.url)
        await client.post("/v1/chat/completions", BODY, KEY)
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
        await client.close()
        found = samples(await scrape(proxy))
    assert found["cellmeter_log_write_failures_total", ()] == 1
    assert not [key for key in found if key[0] == "cellmeter_calls_total"]


def test_what_was_not_measured_is_not_observed() -> None:
    metrics = Metrics("1.2.3")
    metrics.recorded(make_failed_call("a", 1, 429), 0.004)
    metrics.recorded(make_failed_call("b", 1, None, latency_ms=None), 0.004)
    metrics.recorded(make_call("c", dialect="models", prompt_tokens=None, completion_tokens=None), 0.004)
    metrics.recorded(make_call("d", ttft_ms=40.0, upstream="https://api.openai.com/v1"), 0.004)
    found = samples(metrics.text().decode())
    assert found["cellmeter_build_info", ("1.2.3",)] == 1
    assert found["cellmeter_calls_total", ("chat.completions", "http_error", "4xx")] == 1
    assert found["cellmeter_calls_total", ("chat.completions", "upstream_unreachable", "5xx")] == 1
    assert found["cellmeter_calls_total", ("models", "ok", "2xx")] == 1
    assert found["cellmeter_time_to_first_token_seconds_count", ()] == 1
    assert found["cellmeter_time_to_first_token_seconds_bucket", ("0.04",)] == 1
    assert found["gen_ai_client_operation_duration_seconds_count", ("chat", "unknown")] == 1
    assert ("gen_ai_client_token_usage_count", ("chat", "unknown", "input")) not in found
    assert found["gen_ai_client_token_usage_sum", ("chat", "openai", "output")] == 100


def test_no_series_says_when_it_was_created() -> None:
    assert "_created" not in Metrics("1").text().decode()


def test_the_counts_of_several_processes_are_sums_but_for_the_facts_of_each() -> None:
    one, other = Metrics("1"), Metrics("1")
    one.write_failed()
    other.write_failed()
    found = samples(text_of(together([one.families(), other.families()])).decode())
    assert found["cellmeter_log_write_failures_total", ()] == 2
    assert found["cellmeter_build_info", ("1",)] == 1
    alone = samples(one.text().decode())
    assert found["process_start_time_seconds", ()] == alone["process_start_time_seconds", ()]
    assert found["process_resident_memory_bytes", ()] > alone["process_resident_memory_bytes", ()]
    assert list(found) == list(alone)


def test_what_a_process_that_has_ended_had_counted_stays_counted_and_what_it_was_does_not() -> None:
    metrics = Metrics("1")
    metrics.watch_open_calls(lambda: 3)
    metrics.write_failed()
    assert open_calls(metrics.families()) == 3
    past = lasting(metrics.families())
    names = {family.name for family in past}
    assert "cellmeter_log_write_failures" in names
    assert "cellmeter_commit_wait_seconds" in names
    assert not any(name.startswith("process_") for name in names)
    assert open_calls(past) == 0
