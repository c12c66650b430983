"""Budgets and provider-side tools, seen by a client of the running proxy, by its provider and from the log."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from cellmeter_proxy.budget import Budget
from cellmeter_proxy.log import Log
from cellmeter_proxy.policy import is_granted
from cellmeter_proxy.record import Attempt, Call
from cellmeter_proxy.server import Running
from cellmeter_proxy.testing import LiteralClient, LiteralProvider, json_answer
from cellmeter_scoring.calls import Trouble, trouble_of

Recorder = Callable[..., AbstractAsyncContextManager[Running]]
PATH = "/v1/chat/completions"
KEY = b"Authorization: Bearer sk-test-0123456789abcdefghijkl"
BODY = b'{"model":"m","messages":[{"role":"user","content":"see https://example.com/a.png"}]}'
SEARCH = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"web_search_preview"}]}'
IMAGE = (
    b'{"model":"m","messages":[{"role":"user","content":'
    b'[{"type":"image_url","image_url":{"url":"https://example.com/a.png?sig=1"}}]}]}'
)
INLINE = IMAGE.replace(b"https://example.com/a.png?sig=1", b"data:image/png;base64,AAAA")
ANSWER = (
    b'{"id":"c","object":"chat.completion","model":"gpt-4o-2024-08-06","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"hello"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200}}'
)
OK = json_answer(ANSWER)


def calls(path: Path) -> list[Call]:
    with Log.read(path) as log:
        return list(log.rows(Call, "1 ORDER BY session, seq"))


async def post(proxy: Running, body: bytes, *, path: str = PATH, key: bytes = KEY) -> tuple[int, bytes]:
    """One request over a connection of its own; status and body of the answer."""
    client = await LiteralClient.connect(proxy.url)
    await client.post(path, body, key, b"Connection: close")
    head, _, answer = (await client.rest())[0].partition(b"\r\n\r\n")
    await client.close()
    return int(head.split()[1]), answer


async def test_beyond_a_sessions_budget_a_call_is_refused_unsent_with_the_error_that_agents_stop_on(
    recorder: Recorder, log_path: Path
) -> None:
    async with LiteralProvider([OK], [OK]) as provider, recorder(provider, budget=Budget(calls=1)) as proxy:
        assert (await post(proxy, BODY))[0] == 200
        status, answer = await post(proxy, BODY)
        other, _ = await post(proxy, BODY, path=f"/s/other{PATH}")
    assert (status, other) == (400, 200)
    sentence = "the budget of 1 call of this session is spent (1 made)"
    assert json.loads(answer)["error"] == {
        "message": f"cellmeter: {sentence}",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }
    assert len(provider.received) == 2
    refused = next(call for call in calls(log_path) if call.outcome == "rejected")
    assert (refused.status, refused.error, refused.state) == (400, sentence, "closed")
    assert refused.sent_hash is None
    assert refused.request_blob is not None
    assert trouble_of(refused, []) is Trouble.BUDGET
    with Log.read(log_path) as log:
        assert log.blob(refused.request_blob) == BODY
        assert [attempt.call_id for attempt in log.rows(Attempt)].count(refused.call_id) == 0


async def test_the_refusal_of_a_messages_call_has_anthropics_form(recorder: Recorder) -> None:
    async with LiteralProvider() as provider, recorder(provider, budget=Budget(calls=0)) as proxy:
        status, answer = await post(proxy, b'{"model":"m","max_tokens":1,"messages":[]}', path="/v1/messages")
    assert status == 400
    assert json.loads(answer) == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "cellmeter: the budget of 0 calls of this session is spent (0 made)",
        },
    }


async def test_a_cells_budget_comes_with_its_key_and_all_cells_share_the_sweeps(
    recorder: Recorder, log_path: Path
) -> None:
    script = LiteralProvider(*[[OK]] * 3)
    async with script as provider, recorder(provider, cells_only=True, budget=Budget(calls=3)) as proxy:
        tight, free = (
            b"Authorization: Bearer " + proxy.keys.issue(f"s/a/m/c/t#run{run}", 1, budget=budget).encode()
            for run, budget in ((1, Budget(calls=1)), (2, None))
        )
        statuses = [(await post(proxy, BODY, key=key))[0] for key in (tight, tight, free, free, free)]
        assert proxy.ledger.sweep_spent() == "the budget of 3 calls of this sweep is spent (3 made)"
    assert statuses == [200, 400, 200, 200, 400]
    assert [call.error for call in calls(log_path) if call.error] == [
        "the budget of 1 call of this cell is spent (1 made)",
        "the budget of 3 calls of this sweep is spent (3 made)",
    ]


async def test_calls_at_once_do_not_exceed_a_budget_of_calls(recorder: Recorder) -> None:
    async with LiteralProvider(*[[OK]] * 8) as provider, recorder(provider, budget=Budget(calls=2)) as proxy:
        answers = await asyncio.gather(*[post(proxy, BODY) for _ in range(8)])
    assert sorted(status for status, _ in answers) == [200] * 2 + [400] * 6
    assert len(provider.received) == 2


async def test_the_next_call_knows_the_tokens_of_the_one_before(recorder: Recorder) -> None:
    async with LiteralProvider([OK], [OK]) as provider, recorder(provider, budget=Budget(tokens=1200)) as proxy:
        assert [(await post(proxy, BODY))[0] for _ in range(2)] == [200, 400]


async def test_the_next_call_knows_the_cost_of_the_one_before(
    recorder: Recorder, log_path: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\nmodel = "gpt-4o*"\ninput = 2.5\noutput = 10\n')
    options = {"prices": prices, "budget": Budget(cost_usd=0.004)}
    async with LiteralProvider([OK], [OK]) as provider, recorder(provider, **options) as proxy:
        assert [(await post(proxy, BODY))[0] for _ in range(2)] == [200, 400]
    assert calls(log_path)[1].error == "the budget of $0.004 of this session is spent ($0.0045 used)"


async def test_provider_side_tools_are_recorded_and_passed_on_where_nothing_is_refused(
    recorder: Recorder, log_path: Path
) -> None:
    bodies = [SEARCH, IMAGE, BODY, INLINE, b"not json"]
    async with LiteralProvider(*[[OK]] * 5) as provider, recorder(provider) as proxy:
        assert [(await post(proxy, body))[0] for body in bodies] == [200] * 5
    assert [call.provider_tools for call in calls(log_path)] == [
        ["web_search_preview"],
        ["image_url:https://example.com/a.png"],
        [],
        [],
        None,
    ]


async def test_provider_side_tools_that_were_not_granted_are_refused_unsent_and_kept(
    recorder: Recorder, log_path: Path
) -> None:
    async with LiteralProvider([OK], [OK]) as provider, recorder(provider, granted_tools=frozenset()) as proxy:
        statuses = [(await post(proxy, body))[0] for body in (SEARCH, IMAGE, BODY, INLINE)]
    assert statuses == [400, 400, 200, 200]
    assert len(provider.received) == 2
    search, image, *_ = calls(log_path)
    assert (search.outcome, search.provider_tools) == ("rejected", ["web_search_preview"])
    assert search.error == "provider-side tools are refused unless they are granted: web_search_preview"
    assert image.error is not None
    assert image.error.endswith(": image_url:https://example.com/a.png")
    assert trouble_of(search, []) is Trouble.REFUSED
    with Log.read(log_path) as log:
        assert search.request_blob is not None
        assert log.blob(search.request_blob) == SEARCH


async def test_a_granted_tool_is_passed_on_and_named_in_its_row(recorder: Recorder, log_path: Path) -> None:
    granted = frozenset({"web_search"})
    async with LiteralProvider([OK]) as provider, recorder(provider, granted_tools=granted) as proxy:
        assert [(await post(proxy, body))[0] for body in (SEARCH, IMAGE)] == [200, 400]
    assert calls(log_path)[0].provider_tools == ["web_search_preview"]


@pytest.mark.parametrize(
    ("tool", "grant", "granted"),
    [
        ("web_search", "web_search", True),
        ("web_search_20250305", "web_search", True),
        ("web_search_preview_2025_03_11", "web_search", True),
        ("web_search_preview", "web_search_preview", True),
        ("web_search", "web", False),
        ("code_interpreter", "web_search", False),
        ("mcp:https://example.com/sse", "mcp", True),
        ("mcp:https://example.com/sse", "mcp:https://example.com/*", True),
        ("mcp:https://example.org/sse", "mcp:https://example.com/*", False),
        ("image_url:https://example.com/web_search", "web_search", False),
        ("anything", "all", True),
    ],
)
def test_a_grant_names_a_tool_its_kind_or_a_pattern(tool: str, grant: str, *, granted: bool) -> None:
    assert is_granted(tool, {grant}) is granted
