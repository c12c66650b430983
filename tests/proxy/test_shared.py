"""Workers that share budgets, queues and answers: two of them in one process, each with its own port and link."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from cellmeter_proxy.accountant import Accountant
from cellmeter_proxy.budget import Budget, Ledger
from cellmeter_proxy.coordinator import Coordinator, Member
from cellmeter_proxy.link import Link
from cellmeter_proxy.listening import bind
from cellmeter_proxy.log import Log
from cellmeter_proxy.messages import Counts, Learnt, Message, Objection, Scrape, TakeOn
from cellmeter_proxy.metrics import Metrics
from cellmeter_proxy.ratelimit import Limit
from cellmeter_proxy.record import Attempt, Call, Numbers, now_us
from cellmeter_proxy.scripted import RateLimit, Script, ScriptedProvider, Turn
from cellmeter_proxy.server import ProxyConfig, Running, serve
from cellmeter_proxy.shared import Shared
from cellmeter_proxy.testing import (
    EVENT_STREAM,
    LAST_CHUNK,
    LiteralClient,
    LiteralProvider,
    Step,
    chunk,
    json_answer,
)
from cellmeter_proxy.writer import LogWriter

PATH = "/v1/chat/completions"
STREAM_BODY = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
NOT_ASKING = b'{"model":"m","stream":true,"messages":[]}'
MODELS = ("small", "large")
JSON_BODY = b'{"model":"m","messages":[]}'
TOKEN = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13}}\n\n'
DONE = b"data: [DONE]\n\n"
BILLED = b'{"id":"c1","choices":[],"usage":{"prompt_tokens":60,"completion_tokens":40,"total_tokens":100}}'


@dataclass
class Crew:
    """Two workers and their coordinator."""

    workers: list[Running]
    links: list[Link]
    members: list[Member]
    attending: list["asyncio.Task[None]"]
    shares: list[Shared]
    coordinator: Coordinator
    accountant: Accountant
    writer: LogWriter


@asynccontextmanager
async def crew(log_path: Path, upstream: str, *, budget: Budget | None = None, **options: Any) -> AsyncIterator[Crew]:
    config = ProxyConfig(upstream=upstream, log=log_path, budget=budget, **options)
    async with AsyncExitStack() as stack:
        writer = await LogWriter.open(log_path)
        stack.push_async_callback(writer.aclose)
        accountant = await Accountant.start(writer)
        stack.push_async_callback(accountant.aclose, 5)
        coordinator = Coordinator(log_path, Ledger(budget), accountant)
        made = Crew([], [], [], [], [], coordinator, accountant, writer)
        for _ in range(2):
            ours, theirs = socket.socketpair()
            member, link = Member(await Link.open(ours)), await Link.open(theirs)
            stack.push_async_callback(member.link.aclose)
            stack.push_async_callback(link.aclose)
            sockets = (await bind("127.0.0.1", 0, 1))[0]
            shared = Shared(link, sockets, Metrics("1"), budgeted=budget is not None, stop=asyncio.Event().set)
            made.attending.append(asyncio.create_task(made.coordinator.attend(member)))
            hearing = asyncio.create_task(shared.run())
            stack.push_async_callback(asyncio.wait, {hearing, made.attending[-1]}, timeout=0)
            made.workers.append(await stack.enter_async_context(serve(config, writer, shared.commons)))
            made.shares.append(shared)
            made.links.append(link)
            made.members.append(member)
        yield made


def rows(path: Path) -> tuple[list[Call], list[Attempt]]:
    with Log.read(path) as log:
        return sorted(log.rows(Call), key=lambda call: call.seq or 0), list(log.rows(Attempt))


def gated(go: asyncio.Event) -> list[Step]:
    """An answer whose first token comes at once, and the rest when it may."""
    return [EVENT_STREAM, chunk(TOKEN), go.wait, chunk(STOP), chunk(USAGE), chunk(DONE), LAST_CHUNK]


def text_of(answer: bytes) -> bytes:
    """The body of a chunked answer."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


async def ask(proxy: Running, body: bytes = STREAM_BODY) -> LiteralClient:
    client = await LiteralClient.connect(proxy.url)
    await client.post(PATH, body, b"Connection: close", b"Authorization: Bearer k")
    return client


async def joined_before_it_begins(made: Crew, provider: LiteralProvider) -> "asyncio.Task[tuple[bytes, bool]]":
    """A call that its client has dropped before the answer came, and made again to the other worker."""
    first = await ask(made.workers[0], JSON_BODY)
    await until(lambda: provider.received)
    first.abort()
    second = await ask(made.workers[1], JSON_BODY)
    asking = asyncio.create_task(second.rest())
    await until(lambda: made.members[1].joined)
    return asking


def priced_call(call_id: str, size: int) -> Call:
    """A call that costs $2.50 for a million tokens."""
    return Call(
        call_id=call_id,
        session="s",
        seq=ord(call_id),
        writer="w/1/1",
        upstream="https://api.openai.com/v1",
        request_model="gpt-4o",
        usage_source="provider",
        prompt_tokens=size,
        completion_tokens=0,
        started_at=now_us(),
    )


async def started_later(made: Crew, heard: list[Message]) -> Link:
    """A third worker's link, that only listens."""

    async def answer(message: Message) -> Message:
        return message

    ours, theirs = socket.socketpair()
    link = await Link.open(theirs)
    made.attending.append(asyncio.create_task(made.coordinator.attend(Member(await Link.open(ours)))))
    made.attending.append(asyncio.create_task(link.run(heard.append, answer)))
    return link


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("body", "seen"), [(STREAM_BODY, TOKEN + STOP + USAGE + DONE), (NOT_ASKING, TOKEN + STOP + DONE)]
)
async def test_a_client_that_comes_back_to_another_worker_is_given_the_stream_that_is_under_way(
    log_path: Path, body: bytes, seen: bytes
) -> None:
    go = asyncio.Event()
    async with LiteralProvider(gated(go)) as provider, crew(log_path, provider.url, on_429="absorb") as made:
        first = await ask(made.workers[0], body)
        await first.until(TOKEN)
        first.abort()
        second = await ask(made.workers[1], body)
        received = await second.until(TOKEN)
        go.set()
        received += (await second.rest())[0]
    assert text_of(received) == seen
    assert len(provider.received) == 1
    (paid, joined), attempts = rows(log_path)
    assert (paid.outcome, paid.prompt_tokens, paid.usage_source) == ("client_gone", 11, "provider")
    assert (joined.outcome, joined.status, joined.attached_to) == ("ok", 200, paid.call_id)
    assert (joined.prompt_tokens, joined.usage_source) == (None, "none")
    assert joined.response_blob == paid.response_blob
    assert [attempt.call_id for attempt in attempts] == [paid.call_id]


async def test_a_call_whose_answer_has_not_begun_is_joined_from_another_worker(log_path: Path) -> None:
    go = asyncio.Event()
    script: list[Step] = [go.wait, json_answer(BILLED, b"200 OK", b"x-request-id: r7")]
    async with LiteralProvider(script) as provider, crew(log_path, provider.url, on_429="absorb") as made:
        asking = await joined_before_it_begins(made, provider)
        go.set()
        answer, _ = await asking
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-request-id: r7\r\n" in answer
    assert answer.endswith(BILLED)
    assert len(provider.received) == 1
    assert not made.members[1].joined


async def test_a_call_that_gets_no_answer_gives_none_to_who_has_joined_it(log_path: Path) -> None:
    go = asyncio.Event()
    async with (
        LiteralProvider([go.wait, b"no HTTP\r\n\r\n"]) as provider,
        crew(log_path, provider.url, on_429="absorb") as made,
    ):
        asking = await joined_before_it_begins(made, provider)
        go.set()
        assert (await asking)[0].startswith(b"HTTP/1.1 502 ")
    (paid, joined), _ = rows(log_path)
    assert (paid.outcome, joined.outcome) == ("upstream_unreachable", "upstream_unreachable")
    assert joined.attached_to == paid.call_id


async def test_equal_requests_whose_clients_are_there_are_two_calls_on_two_workers_too(log_path: Path) -> None:
    go = asyncio.Event()
    async with LiteralProvider(gated(go), gated(go)) as provider, crew(log_path, provider.url, on_429="absorb") as made:
        clients = [await ask(worker) for worker in made.workers]
        await until(lambda: len(provider.received) == 2)
        go.set()
        for client in clients:
            assert text_of((await client.rest())[0]) == TOKEN + STOP + USAGE + DONE
    assert all(call.attached_to is None for call in rows(log_path)[0])


async def test_a_joined_answer_breaks_off_when_the_worker_that_made_the_call_is_gone(log_path: Path) -> None:
    go = asyncio.Event()
    async with LiteralProvider(gated(go)) as provider, crew(log_path, provider.url, on_429="absorb") as made:
        first = await ask(made.workers[0])
        await first.until(TOKEN)
        first.abort()
        second = await ask(made.workers[1])
        await second.until(TOKEN)
        await made.links[0].aclose()
        rest, _ = await second.rest()
        go.set()
    assert LAST_CHUNK not in rest
    assert DONE not in rest
    joined = rows(log_path)[0][1]
    assert joined.outcome == "stream_error"
    assert "the process that made the call is gone" in (joined.error or "")


async def test_two_workers_in_front_of_a_limit_meet_no_refusal_and_use_it(log_path: Path) -> None:
    limit, window = 20, 1.5
    provider = ScriptedProvider(
        [Script(name="any", turns=[Turn(content="hello")])], limit=RateLimit(requests=limit, window_s=window)
    )
    loop = asyncio.get_running_loop()
    async with provider, crew(log_path, provider.url, on_429="pace") as made, aiohttp.ClientSession() as session:

        async def call(number: int) -> tuple[int, float]:
            url = made.workers[number % 2].url + PATH
            async with session.post(url, data=JSON_BODY, headers={"Authorization": "Bearer k"}) as answer:
                await answer.read()
                return answer.status, loop.time()

        answers = await asyncio.gather(*(call(number) for number in range(60)))
        assert not any(member.places for member in made.members)
    assert {status for status, _ in answers} == {200}
    ends = [at for _, at in answers]
    assert 60 / (limit * ((max(ends) - min(ends)) / window + 1)) >= 0.9
    calls, attempts = rows(log_path)
    assert [attempt.status for attempt in attempts].count(429) <= 3
    assert all(call.queue_ms is not None and call.outcome == "ok" for call in calls)


async def test_what_waits_in_a_queue_is_refused_when_the_coordinator_is_lost_and_so_is_what_comes(
    log_path: Path,
) -> None:
    go = asyncio.Event()
    held: list[list[Step]] = [[go.wait, json_answer(BILLED)] for _ in range(4)]
    async with LiteralProvider(*held) as provider, crew(log_path, provider.url, on_429="pace") as made:
        bodies = [b'{"model":"m","messages":[],"n":%d}' % number for number in range(6)]
        clients = [await ask(made.workers[0], body) for body in bodies[:5]]
        await until(lambda: len(provider.received) == 4 and len(made.members[0].places) == 5)
        await made.members[0].link.aclose()
        assert (await clients[4].rest())[0].startswith(b"HTTP/1.1 503 ")
        assert (await (await ask(made.workers[0], bodies[5])).rest())[0].startswith(b"HTTP/1.1 503 ")
        go.set()
        for client in clients[:4]:
            assert (await client.rest())[0].endswith(BILLED)
    refused = [call for call in rows(log_path)[0] if call.status == 503]
    assert [call.outcome for call in refused] == ["rejected", "rejected"]
    assert {call.error for call in refused} == {
        "not served, because the process that paces the calls is gone",
        "not served, because the proxy's other process is gone",
    }
    assert len(provider.received) == 4


async def test_the_places_of_a_worker_that_is_gone_are_free_for_the_others(log_path: Path) -> None:
    go = asyncio.Event()
    held: list[list[Step]] = [[go.wait, json_answer(BILLED)] for _ in range(4)]
    provider = LiteralProvider(*held, [json_answer(BILLED)])
    async with provider, crew(log_path, provider.url, on_429="pace") as made:
        clients = [await ask(made.workers[0], b'{"model":"m","n":%d}' % number) for number in range(4)]
        await until(lambda: len(provider.received) == 4)
        last = await ask(made.workers[1], JSON_BODY)
        await until(lambda: made.members[1].places)
        assert len(provider.received) == 4
        await made.links[0].aclose()
        assert (await last.rest())[0].endswith(BILLED)
        go.set()
        for client in clients:
            await client.rest()


async def test_no_number_of_concurrent_calls_to_two_workers_exceeds_a_budget_of_calls(log_path: Path) -> None:
    scripts: list[list[Step]] = [[json_answer(BILLED)] for _ in range(9)]
    async with LiteralProvider(*scripts) as provider, crew(log_path, provider.url, budget=Budget(calls=7)) as made:
        clients = await asyncio.gather(*(ask(made.workers[number % 2], JSON_BODY) for number in range(16)))
        answers = [(await client.rest())[0] for client in clients]
    assert len([answer for answer in answers if answer.startswith(b"HTTP/1.1 200 ")]) == 7
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 400 ")]
    assert len(refused) == 9
    assert all(b"the budget of 7 calls of this session is spent (7 made)" in answer for answer in refused)
    assert len(provider.received) == 7


async def test_tokens_that_one_worker_has_spent_are_spent_for_the_other(log_path: Path) -> None:
    async with (
        LiteralProvider([json_answer(BILLED)]) as provider,
        crew(log_path, provider.url, budget=Budget(tokens=100)) as made,
    ):
        assert (await (await ask(made.workers[0], JSON_BODY)).rest())[0].startswith(b"HTTP/1.1 200 ")
        answer = (await (await ask(made.workers[1], JSON_BODY)).rest())[0]
        assert b"the budget of 100 tokens of this session is spent (100 used)" in answer


async def test_a_worker_that_died_between_its_commit_and_its_word_is_charged_by_the_row(log_path: Path) -> None:
    row = Call(call_id="1", session="s", writer="w/1/1", method="POST", started_at=1, seq=1, state="closed")
    spent = replace(row, prompt_tokens=60, completion_tokens=40, usage_source="provider", status=200, outcome="ok")
    async with crew(log_path, "http://127.0.0.1:9/v1", budget=Budget(tokens=100)) as made:
        for call_id in ("1", "that came to no row"):
            assert (await made.links[0].ask(TakeOn(call_id=call_id, session="s"), Objection)).reason is None
        with Log.create(log_path) as log:
            log.append(spent)
        await made.links[0].aclose()
        await made.attending[0]
        assert (await made.links[1].ask(TakeOn(call_id="2", session="s"), Objection)).reason is None
        await made.coordinator.settle_with(made.members[0])
        refused = await made.links[1].ask(TakeOn(call_id="3", session="s"), Objection)
    assert refused.reason == "the budget of 100 tokens of this session is spent (100 used)"


async def test_a_call_is_refused_where_nobody_can_say_what_the_budget_allows(log_path: Path) -> None:
    async with (
        LiteralProvider([json_answer(BILLED)]) as provider,
        crew(log_path, provider.url, budget=Budget(calls=7)) as made,
    ):
        await made.members[0].link.aclose()
        answer = (await (await ask(made.workers[0], JSON_BODY)).rest())[0]
        for page in ("health", "metrics"):
            async with aiohttp.request("GET", f"{made.workers[0].url}/_cellmeter/{page}") as shown:
                assert shown.status == 503
                assert "coordinator_lost" in await shown.text()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"coordinator_lost" in answer
    assert provider.received == []


async def test_the_counts_are_those_of_all_workers_and_outlive_one(log_path: Path) -> None:
    async def shown(worker: Running, path: str) -> str:
        async with session.get(worker.url + path) as answer:
            return await answer.text()

    total = 'cellmeter_calls_total{dialect="chat.completions",outcome="ok",status_class="2xx"} 3.0'
    go = asyncio.Event()
    scripts: list[list[Step]] = [[json_answer(BILLED)] for _ in range(3)]
    provider = LiteralProvider(*scripts, gated(go))
    async with provider, aiohttp.ClientSession() as session, crew(log_path, provider.url) as made:
        for number in (0, 1, 1):
            await (await ask(made.workers[number], JSON_BODY)).rest()
        for worker in made.workers:
            text = await shown(worker, "/_cellmeter/metrics")
            assert total in text
            assert 'cellmeter_build_info{version="1"} 1.0' in text
            assert 'cellmeter_tokens_total{kind="prompt"} 180.0' in text
        client = await ask(made.workers[0])
        await client.until(TOKEN)
        assert '"open_calls":1' in await shown(made.workers[1], "/_cellmeter/health")
        go.set()
        await client.rest()
        await made.links[1].aclose()
        await made.attending[1]
        assert "cellmeter_open_calls 0.0" in await shown(made.workers[0], "/_cellmeter/metrics")
        assert total.replace("3.0", "4.0") in await shown(made.workers[0], "/_cellmeter/metrics")


async def test_one_accountant_works_for_all_workers(log_path: Path) -> None:
    priced = b'{"id":"c1","choices":[],"usage":{"prompt_tokens":60,"completion_tokens":40,"cost":0.5}}'
    provider = LiteralProvider([json_answer(priced)], [json_answer(priced)])
    async with provider, crew(log_path, provider.url) as made:
        for worker in made.workers:
            await (await ask(worker, JSON_BODY)).rest()
    assert [call.cost for call in rows(log_path)[0]] == [0.5, 0.5]


@pytest.mark.parametrize("budget", [None, Budget(cost_usd=3)])
async def test_once_a_rate_is_known_every_worker_closes_rows_with_their_cost_and_each_is_charged_once(
    log_path: Path, budget: Budget | None
) -> None:
    async def make(worker: int, call_id: str, size: int) -> Call:
        commons = made.shares[worker].commons
        assert await commons.till.take_on(call_id, "s", None) is None
        row = commons.accountant.priced(priced_call(call_id, size))
        await made.writer.append(row)
        commons.till.settle(row)
        commons.accountant.take(row)
        return row

    def is_known(share: Shared) -> bool:
        return share.commons.accountant.priced(priced_call("b", 1)).cost is not None

    told: list[Numbers] = []
    async with crew(log_path, "https://api.openai.com/v1", budget=budget) as made:
        learn = made.accountant.on_numbers
        assert learn is not None

        def listen(numbers: Numbers) -> None:
            told.append(numbers)
            learn(numbers)

        made.accountant.on_numbers = listen
        assert (await make(0, "a", 400_000)).cost is None
        await until(lambda: all(map(is_known, made.shares)))
        assert (await make(1, "b", 800_000)).cost == 2.0
        refusal = await made.shares[0].commons.till.take_on("c", "s", None)
        await made.links[1].ask(Scrape(), Counts)
        heard: list[Message] = []
        late = await started_later(made, heard)
        await until(lambda: heard)
        await late.aclose()
    assert (refusal is None) == (budget is None)
    assert [one.call_id for one in told] == (["a"] if budget is None else ["a", "b"])
    assert [call.cost for call in rows(log_path)[0]] == [1.0, 2.0]
    assert isinstance(heard[0], Learnt)


async def test_queues_fall_apart_by_model_for_all_workers(log_path: Path) -> None:
    async with crew(log_path, "http://127.0.0.1:9/v1", on_429="pace") as made:
        lanes = [share.commons.lane_of("k") for share in made.shares]
        first = [lane.queue(1, again=False, model=model) for lane, model in zip(lanes, MODELS, strict=True)]
        await asyncio.wait({waiter.turn for waiter in first})
        small, large = (waiter.slot for waiter in first)
        assert small is not None
        assert large is not None
        small.answered({"requests": Limit(limit=2, remaining=0, reset_ms=60_000)})
        await made.links[0].ask(Scrape(), Counts)
        waits = lanes[1].queue(1, again=False, model="small")
        await made.links[1].ask(Scrape(), Counts)
        goes = lanes[0].queue(1, again=False, model="large")
        await made.links[0].ask(Scrape(), Counts)
        large.answered({"requests": Limit(limit=100, remaining=99, reset_ms=60_000)})
        await until(goes.turn.done)
        await made.links[1].ask(Scrape(), Counts)
        assert not waits.turn.done()


async def test_what_one_worker_finds_out_of_a_provider_the_other_knows(log_path: Path) -> None:
    refusal = json_answer(b'{"error":{"message":"unknown field: stream_options"}}', b"400 Bad")
    go = asyncio.Event()
    go.set()
    provider = LiteralProvider([refusal], *(gated(go) for _ in range(3)))
    async with provider, crew(log_path, provider.url) as made:
        await (await ask(made.workers[0], NOT_ASKING)).rest()
        await made.links[0].ask(Scrape(), Counts)
        await (await ask(made.workers[1], NOT_ASKING)).rest()
    assert [b"include_usage" in received for received in provider.received] == [True, False, False]
