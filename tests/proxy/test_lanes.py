"""``--on-429 pace`` in front of a provider with a limit: nobody is refused, and little of the limit is wasted."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from cellmeter_proxy.absorb import Patience
from cellmeter_proxy.lanes import Lane, Lanes, Place, Waiter
from cellmeter_proxy.log import Log
from cellmeter_proxy.ratelimit import Limit
from cellmeter_proxy.record import Attempt, Call
from cellmeter_proxy.scripted import Fault, RateLimit, Script, ScriptedProvider, Turn
from cellmeter_proxy.server import Running
from cellmeter_proxy.testing import LiteralClient, LiteralProvider, Step, json_answer

Recorder = Callable[..., AbstractAsyncContextManager[Running]]
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
PATH = "/v1/chat/completions"


def rows(path: Path) -> tuple[list[Call], list[Attempt]]:
    with Log.read(path) as log:
        return list(log.rows(Call)), list(log.rows(Attempt))


async def ask(session: aiohttp.ClientSession, url: str, key: str = "k") -> tuple[int, float]:
    async with session.post(url + PATH, data=BODY, headers={"Authorization": f"Bearer {key}"}) as answer:
        await answer.read()
        return answer.status, asyncio.get_running_loop().time()


@pytest.mark.parametrize(("think_ms", "window"), [(0, 1.5), (150, 2.5)])
async def test_sixty_calls_at_once_meet_no_refusal_and_use_the_limit(
    recorder: Recorder, log_path: Path, think_ms: float, window: float
) -> None:
    limit = 20
    script = Script(name="any", turns=[Turn(content="hello", fault=Fault(first_byte_ms=think_ms))])
    provider = ScriptedProvider([script], limit=RateLimit(requests=limit, window_s=window))
    async with provider, recorder(provider.url, on_429="pace") as proxy, aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(ask(session, proxy.url) for _ in range(60)))
    assert {status for status, _ in answers} == {200}
    ends = [at for _, at in answers]
    windows = (max(ends) - min(ends)) / window
    assert 60 / (limit * (windows + 1)) >= 0.9
    calls, attempts = rows(log_path)
    assert [attempt.status for attempt in attempts].count(429) <= 3
    assert all(call.queue_ms is not None and call.outcome == "ok" for call in calls)
    held = sorted(call.queue_ms or 0 for call in calls)
    assert held[0] < 500
    assert held[-1] > 1000 * window


async def test_calls_go_in_the_order_in_which_they_came_and_each_key_has_a_queue_of_its_own() -> None:
    lanes = Lanes()
    lane = lanes.of("k")
    assert lanes.of("k") is lane
    assert lanes.of("other") is not lane
    first = [lane.queue(1, again=False) for _ in range(4)]
    assert all(waiter.turn.done() for waiter in first)
    later = [lane.queue(1, again=False) for _ in range(3)]
    again = lane.queue(1, again=True)
    assert not any(waiter.turn.done() for waiter in [*later, again])
    lane.abandon(later[0])
    order = []
    for waiter in first:
        assert waiter.slot is not None
        waiter.slot.leave()
        waiter.slot.leave()
        order.append([later.index(other) for other in later if other.slot is not None])
    assert again.slot is not None
    assert order == [[], [1], [1, 2], [1, 2]]
    assert lane.limits.under_way == 3


async def test_who_leaves_with_a_slot_makes_room() -> None:
    lane = Lane()
    waiters = [lane.queue(1, again=False) for _ in range(5)]
    lane.abandon(waiters[0])
    assert waiters[4].turn.done()
    for waiter in waiters:
        lane.abandon(waiter)
    assert lane.idle


async def test_a_refusal_that_comes_nevertheless_is_absorbed_and_holds_the_others_back(
    recorder: Recorder, log_path: Path
) -> None:
    refusal = json_answer(b'{"error":{"message":"slow"}}', b"429 Slow", b"retry-after-ms: 1000")
    served: list[Step] = [json_answer(b"{}")]
    scripts: list[list[Step]] = [[refusal], *([served] * 8)]
    provider = LiteralProvider(*scripts)
    patience = Patience(first_s=0.01)
    async with provider, recorder(provider, on_429="pace", patience=patience) as proxy, aiohttp.ClientSession() as http:
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(ask(http, proxy.url) for _ in range(8)))
    assert {status for status, _ in answers} == {200}
    # Those that were under way with the refused one are answered at once; nobody else goes before the wait is over.
    soon = [at for _, at in answers if at - began < 0.95]
    assert len(soon) <= 3
    calls, attempts = rows(log_path)
    refused = [attempt.call_id for attempt in attempts if attempt.status == 429]
    assert len(refused) == 1
    (second,) = [attempt for attempt in attempts if attempt.call_id == refused[0] and attempt.n == 2]
    assert (second.waited_ms or 0) >= 1000
    assert sum((call.queue_ms or 0) > 300 for call in calls) >= 4


async def test_a_client_that_leaves_the_queue_costs_the_provider_nothing(recorder: Recorder, log_path: Path) -> None:
    go = asyncio.Event()
    scripts: list[list[Step]] = [[go.wait, json_answer(b"{}")] for _ in range(4)]
    async with LiteralProvider(*scripts) as provider, recorder(provider, on_429="pace") as proxy:
        busy = [await LiteralClient.connect(proxy.url) for _ in range(4)]
        for client in busy:
            await client.post(PATH, BODY)
        async with asyncio.timeout(5):
            while len(provider.received) < 4:
                await asyncio.sleep(0.01)
            queued = await LiteralClient.connect(proxy.url)
            await queued.post(PATH, BODY)
            while proxy.open_calls() < 5:
                await asyncio.sleep(0.01)
            queued.abort()
            while proxy.open_calls() == 5:
                await asyncio.sleep(0.01)
        go.set()
        for client in busy:
            await client.until(b"{}")
            await client.close()
    assert len(provider.received) == 4
    calls, attempts = rows(log_path)
    (gone,) = [call for call in calls if call.outcome == "client_gone"]
    assert gone.call_id not in {attempt.call_id for attempt in attempts}
    assert gone.status is None


def stated(limit: int, remaining: int) -> dict[str, Limit]:
    return {"requests": Limit(limit=limit, remaining=remaining, reset_ms=60_000)}


def let_through(lane: Lane, *models: str) -> list[tuple[Waiter, Place]]:
    waiters = [lane.queue(1, again=False, model=model) for model in models]
    return [(waiter, waiter.slot) for waiter in waiters if waiter.slot is not None]


async def test_models_with_limits_of_their_own_get_queues_of_their_own_and_who_waits_moves_into_them() -> None:
    lane = Lane()
    (small, small_slot), (large, large_slot) = let_through(lane, "small", "large")
    small_slot.answered(stated(2, 0))
    waiting = [lane.queue(1, again=False, model=model) for model in ("small", "large", "small", "large")]
    assert not any(waiter.turn.done() for waiter in waiting)
    large_slot.answered(stated(100, 99))
    assert [waiter.turn.done() for waiter in waiting] == [False, True, False, True]
    later = [lane.queue(1, again=False, model=model) for model in ("small", "large")]
    assert [waiter.turn.done() for waiter in later] == [False, True]
    for waiter in [small, large, *waiting, *later]:
        lane.abandon(waiter)
    assert lane.idle


async def test_a_refusal_that_shows_models_to_be_apart_holds_its_own_model_back_alone() -> None:
    lane = Lane()
    (small, small_slot), (large, large_slot) = let_through(lane, "small", "large")
    large_slot.answered(stated(100, 99))
    small_slot.refused({"requests": Limit(limit=2)}, 30.0)
    again = lane.queue(1, again=True, model="small")
    other = lane.queue(1, again=False, model="large")
    assert (again.turn.done(), other.turn.done()) == (False, True)
    for waiter in (small, large, again, other):
        lane.abandon(waiter)
    assert lane.idle


async def test_a_model_that_is_out_of_requests_does_not_hold_another_one_up(recorder: Recorder) -> None:
    def said(limit: int, remaining: int) -> Step:
        named = {"limit": limit, "remaining": remaining, "reset": "60s"}
        return json_answer(b"{}", b"200 OK", *(f"x-ratelimit-{k}-requests: {v}".encode() for k, v in named.items()))

    provider = LiteralProvider([said(10, 9)], [said(100, 99)], [said(10, 0)], [said(100, 98)])
    async with provider, recorder(provider, on_429="pace") as proxy, aiohttp.ClientSession() as http:

        async def ask_model(model: str) -> int:
            body = BODY.replace(b'"m"', b'"%s"' % model.encode())
            async with http.post(proxy.url + PATH, data=body, headers={"Authorization": "Bearer k"}) as answer:
                await answer.read()
                return answer.status

        assert [await ask_model(model) for model in ("small", "large", "small")] == [200] * 3
        held = asyncio.create_task(ask_model("small"))
        assert await asyncio.wait_for(ask_model("large"), 5) == 200
        assert not held.done()
        held.cancel()
        await asyncio.wait({held})
    assert len(provider.received) == 4
