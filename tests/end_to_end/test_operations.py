"""What a real SDK does after a failure, recorded by a real proxy, is one operation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import openai
import pytest

from cellmeter_proxy.server import ProxyConfig, serve
from cellmeter_proxy.testing import LiteralProvider, json_answer
from cellmeter_scoring import Audit, audit

ANSWER = (
    b'{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"hello"}}],'
    b'"usage":{"prompt_tokens":8,"completion_tokens":1,"total_tokens":9}}'
)
OK = [json_answer(ANSWER)]
SLOW_DOWN = [json_answer(b'{"error":{"message":"slow","code":"rate_limit_exceeded"}}', b"429 X", b"retry-after-ms: 20")]
BUSY = [json_answer(b'{"error":{"message":"busy"}}', b"503 X", b"retry-after-ms: 20")]


def setting(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    """The step that sets an event."""

    async def step() -> None:
        event.set()

    return step


async def ask(client: openai.AsyncOpenAI, headers: Mapping[str, str] | None = None) -> None:
    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], extra_headers=headers)


def chains(found: Audit) -> list[list[str | None]]:
    """The outcomes of each operation's calls."""
    outcomes = {call.call_id: call.outcome for call in found.calls}
    return [[outcomes[call_id] for call_id in one.call_ids] for one in found.operations]


@pytest.mark.parametrize("counted", [True, False])
async def test_what_the_openai_sdk_makes_again_is_one_operation_and_what_the_agent_asks_again_is_another(
    tmp_path: Path, counted: bool
) -> None:
    log, back = tmp_path / "calls.db", asyncio.Event()
    headers = {} if counted else {"x-stainless-retry-count": "none"}
    # The third answer comes when its client has left, and is back for a fourth.
    async with LiteralProvider(SLOW_DOWN, BUSY, [back.wait, *OK], [setting(back), *OK], OK) as provider:
        config = ProxyConfig(upstream=provider.url, log=log)
        async with serve(config) as proxy, openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="k") as client:
            await ask(client.with_options(max_retries=3, timeout=1.5), headers)
            await ask(client, headers)
    found = audit(log)
    assert chains(found) == [["http_error", "http_error", "client_gone", "ok"], ["ok"]]
    assert [call.retry_number for call in found.calls] == ([0, 1, 2, 3, 0] if counted else [None] * 5)
    first = found.operations[0]
    assert (first.attempts, first.outcome, first.prompt_tokens.sum, first.prompt_tokens.counted) == (4, "ok", 16, 2)
    assert [wait is not None and wait < 10_000 for wait in first.waits_ms] == [True, True, False]
    assert ("paid again", [found.calls[3].call_id]) in [(finding.kind, finding.ids) for finding in found.findings]


async def test_a_client_that_comes_back_for_the_answer_under_way_is_one_operation_paid_once(tmp_path: Path) -> None:
    log, go = tmp_path / "calls.db", asyncio.Event()
    async with LiteralProvider([go.wait, *OK]) as provider:
        config = ProxyConfig(upstream=provider.url, log=log, on_429="absorb")
        async with serve(config) as proxy, openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="k") as client:
            asking = asyncio.create_task(ask(client.with_options(max_retries=1, timeout=3.0)))
            async with asyncio.timeout(20):
                while not log.exists() or len(audit(log).calls) < 2:
                    await asyncio.sleep(0.05)
            go.set()
            await asking
    found = audit(log)
    (operation,) = found.operations
    assert (len(provider.received), operation.attempts, len(operation.call_ids)) == (1, 1, 2)
    assert found.calls[1].attached_to == found.calls[1].retry_of == found.calls[0].call_id
    assert (operation.prompt_tokens.sum, operation.prompt_tokens.counted) == (8, 1)
