"""The accountant, at work in a running proxy and alone: what it adds to a row, and when."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cellmeter_proxy.accountant import Accountant
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import CALIBRATION, Log
from cellmeter_proxy.record import Call, Numbers, new_id, now_us
from cellmeter_proxy.server import ProxyConfig, serve
from cellmeter_proxy.testing import LiteralClient, LiteralProvider, close
from cellmeter_proxy.writer import LogWriter

REQUEST = b'{"model":"own/model","messages":[{"role":"user","content":"hi"}]}'
USAGE = b'"usage":{"prompt_tokens":1000000,"completion_tokens":500000}'
PRICES = """
[[price]]
host = "127.0.0.1:*"
model = "own/*"
input = 0.5
output = 1.5
"""


def answer(rest: bytes, *, length: int = 0) -> bytes:
    body = b'{"model":"own/model","choices":[{"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]'
    body += rest + b"}"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (length or len(body)) + body


async def recorded(path: Path, *answers: bytes, prices: Path | None = None) -> list[Call]:
    """The rows of calls that were answered so, once the proxy has stopped."""
    async with (
        LiteralProvider(*([answer] if answer else [close] for answer in answers)) as provider,
        serve(ProxyConfig(upstream=provider.url, log=path, prices=prices, durability="process")) as proxy,
    ):
        for one in answers:
            client = await LiteralClient.connect(proxy.url)
            await client.post("/v1/chat/completions", REQUEST, b"Authorization: Bearer k")
            if one:
                await client.until(one[-10:])
            else:
                await client.until(b"}")
            await client.close()
    with Log.read(path) as log:
        return list(log.rows(Call))


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(PRICES)
    return path


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[LogWriter]:
    writer = await LogWriter.open(tmp_path / "calls.db", "process")
    yield writer
    await writer.aclose()


async def test_a_call_is_priced_by_the_users_own_prices(tmp_path: Path, prices: Path) -> None:
    (call,) = await recorded(tmp_path / "calls.db", answer(b"," + USAGE), prices=prices)
    assert call.cost == pytest.approx(0.5 + 0.75)
    assert call.price_source is not None
    assert call.price_source.startswith("mine.toml sha256:")
    assert (call.usage_source, call.estimated_prompt_tokens, call.estimate_method) == ("provider", None, None)


async def test_a_model_that_nobody_has_a_price_for_costs_null(tmp_path: Path) -> None:
    (call,) = await recorded(tmp_path / "calls.db", answer(b"," + USAGE))
    assert (call.prompt_tokens, call.cost, call.price_source) == (1_000_000, None, None)


async def test_a_call_without_usage_gets_an_estimate_that_is_marked_as_one(tmp_path: Path, prices: Path) -> None:
    (call,) = await recorded(tmp_path / "calls.db", answer(b""), prices=prices)
    assert (call.prompt_tokens, call.completion_tokens, call.usage_source) == (None, None, "estimated")
    assert (call.estimated_prompt_tokens, call.estimated_completion_tokens) == (8, 1)
    assert call.estimate_method is not None
    assert call.cost is None


async def test_partial_usage_stays_partial_and_keeps_what_the_provider_said(tmp_path: Path, prices: Path) -> None:
    (call,) = await recorded(tmp_path / "calls.db", answer(b',"usage":{"prompt_tokens":9}'), prices=prices)
    assert (call.prompt_tokens, call.completion_tokens, call.usage_source) == (9, None, "partial")
    assert (call.estimated_prompt_tokens, call.estimated_completion_tokens, call.cost) == (8, 1, None)


async def test_a_call_that_nobody_answered_has_neither(tmp_path: Path, prices: Path) -> None:
    (call,) = await recorded(tmp_path / "calls.db", b"", prices=prices)
    assert (call.outcome, call.usage_source) == ("upstream_unreachable", "none")
    assert (call.cost, call.estimated_prompt_tokens) == (None, None)


async def test_what_was_learned_survives_the_proxy(tmp_path: Path) -> None:
    reported = b',"usage":{"prompt_tokens":108,"completion_tokens":1}'
    await recorded(tmp_path / "calls.db", answer(reported), answer(b""))
    with Log.read(tmp_path / "calls.db") as log:
        learned = log.meta(CALIBRATION)
        assert [call.estimated_prompt_tokens for call in log.rows(Call)] == [None, 108]
    assert learned is not None
    assert "[8,108]" in learned


async def test_where_every_call_reports_its_usage_nothing_is_counted_or_learned(tmp_path: Path) -> None:
    await recorded(tmp_path / "calls.db", answer(b"," + USAGE), answer(b"," + USAGE))
    with Log.read(tmp_path / "calls.db") as log:
        assert log.meta(CALIBRATION) is None


async def test_a_file_of_prices_that_cannot_be_used_stops_the_proxy_before_it_listens(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[price]]\ninput = "much"\n')
    config = ProxyConfig(upstream="http://127.0.0.1:9", log=tmp_path / "calls.db", prices=wrong)
    with pytest.raises(CellmeterError, match=r"wrong\.toml cannot be used"):
        async with serve(config):
            pass


async def test_once_its_rate_is_known_a_call_has_its_cost_when_its_row_is_closed(writer: LogWriter) -> None:
    accountant = await Accountant.start(writer)
    told: list[Numbers] = []
    accountant.on_numbers = told.append
    common: dict[str, Any] = {"session": "s", "writer": "w", "started_at": now_us(), "usage_source": "provider"}
    common |= {"upstream": "https://api.openai.com/v1", "request_model": "gpt-4o", "completion_tokens": 0}
    first, second = (
        Call(call_id=name, prompt_tokens=size, **common) for name, size in (("a", 400_000), ("b", 800_000))
    )
    assert accountant.priced(first) == first
    await writer.append(first)
    accountant.take(first)
    async with asyncio.timeout(20):
        while accountant.priced(second) == second:
            await asyncio.sleep(0.01)
    row = accountant.priced(second)
    assert (row.cost, row.price_source) == (2.0, accountant.priced(first).price_source)
    await writer.append(row)
    accountant.take(row)
    await accountant.aclose(10)
    assert [(one.call_id, one.cost) for one in sorted(told, key=lambda one: one.call_id)] == [("a", 1.0), ("b", 2.0)]
    costs = await writer.read(lambda log: [(call.call_id, call.cost) for call in log.rows(Call)])
    assert costs == [("a", 1.0), ("b", 2.0)]


async def test_one_call_that_cannot_be_worked_out_is_named_and_the_others_are_done(
    writer: LogWriter, prices: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accountant = await Accountant.start(writer, prices)
    common: dict[str, Any] = {
        "session": "s",
        "writer": "w",
        "dialect": "chat.completions",
        "upstream": "http://127.0.0.1:1/",
    }
    lost = Call(call_id=new_id(), seq=1, response_blob="sha256:0", status=200, started_at=now_us(), **common)
    good = Call(
        call_id=new_id(),
        seq=2,
        request_model="own/model",
        usage_source="provider",
        prompt_tokens=1_000_000,
        completion_tokens=0,
        started_at=now_us(),
        **common,
    )
    await writer.append(lost, good)
    accountant.take(lost)
    accountant.take(good)
    await tell(accountant)
    assert await writer.read(lambda log: [call.cost for call in log.rows(Call)]) == [None, 0.5]
    assert caplog.messages == [f"call {lost.call_id} cannot be estimated: KeyError: 'sha256:0'"]


async def tell(accountant: Accountant, bound_s: float = 10.0) -> None:
    """Let what was handed over reach the thread, and the thread end."""
    await asyncio.sleep(0)
    await accountant.aclose(bound_s)


async def test_what_was_not_worked_out_when_time_was_up_is_said(
    writer: LogWriter, caplog: pytest.LogCaptureFixture
) -> None:
    accountant = await Accountant.start(writer)
    call = Call(call_id=new_id(), session="s", seq=1, writer="w", usage_source="provider", started_at=now_us())
    await writer.append(call)
    accountant.take(call)
    await tell(accountant, -1.0)
    assert caplog.record_tuples == [
        ("cellmeter", logging.WARNING, "calls left without cost or estimate when the proxy stopped: 1")
    ]


def reported(number: int) -> Call:
    return Call(call_id=f"c{number}", session="s", writer="w", usage_source="provider", started_at=now_us())


async def test_only_so_many_rows_wait_in_memory_and_the_others_are_told_to_have_no_numbers(
    writer: LogWriter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellmeter_proxy.accountant.MOST_WAITING", 2)
    accountant = Accountant(writer)  # which has not begun to work
    told: list[Numbers] = []
    accountant.on_numbers = told.append
    for number in range(4):
        accountant.take(reported(number))
        await asyncio.sleep(0)
    assert told == [Numbers(call_id="c2"), Numbers(call_id="c3")]
    assert caplog.messages == [
        (
            "2 calls wait for their cost or estimate: further ones are left without until fewer do"
            " (cellmeter audit --estimate works them out from the log)"
        )
    ]


async def test_how_many_calls_found_no_place_to_wait_is_said_at_the_end_and_their_numbers_are_null(
    writer: LogWriter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, prices: Path
) -> None:
    monkeypatch.setattr("cellmeter_proxy.accountant.MOST_WAITING", 0)
    accountant = await Accountant.start(writer, prices)
    rows = [reported(number) for number in range(3)]
    await writer.append(*rows)
    for row in rows:
        accountant.take(row)
    await tell(accountant)
    assert caplog.messages[1:] == ["calls left without cost or estimate because too many waited: 3"]
    assert (
        await writer.read(lambda log: [(call.cost, call.usage_source) for call in log.rows(Call)])
        == [(None, "provider")] * 3
    )


def test_a_proxy_that_saw_no_call_has_loaded_neither_tokenizer_nor_prices(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from typing import Any
from cellmeter_proxy.server import ProxyConfig, serve

async def main():
    async with serve(ProxyConfig(upstream="http://127.0.0.1:9", log=Path(sys.argv[1]))):
        pass

asyncio.run(main())
print(sorted({"tiktoken", "genai_prices"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "calls.db"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
