"""Connections of clients: requests one after another, whatever is sent ahead."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cellmeter_proxy.http_message import Reply, Request
from cellmeter_proxy.http_server import Server
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.server import Running
from cellmeter_proxy.testing import LAST_CHUNK, LiteralClient, LiteralProvider, Step, chunk, json_answer

Recorder = Callable[..., AbstractAsyncContextManager[Running]]


def request(body: bytes) -> bytes:
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def statuses(path: Path) -> list[int | None]:
    with Log.read(path) as log:
        return [call.status for call in log.rows(Call)]


async def test_requests_that_are_sent_ahead_are_answered_in_their_order(recorder: Recorder, log_path: Path) -> None:
    answers = [[json_answer(b'{"n":%d}' % number)] for number in range(3)]
    async with LiteralProvider(*answers) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.send(b"".join(request(b'{"n":%d}' % number) for number in range(3)))
        for number in range(3):
            assert (await client.until(b"}")).endswith(b'\r\n\r\n{"n":%d}' % number)
        await client.close()
    assert [sent.rpartition(b"\r\n\r\n")[2] for sent in provider.received] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
    assert statuses(log_path) == [200] * 3


async def test_what_is_no_http_costs_only_itself(recorder: Recorder, log_path: Path) -> None:
    async with LiteralProvider([json_answer(b"{}")]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.send(request(b"{}") + b"no http at all\r\n\r\n")
        data, _ = await client.rest()
    first, second = data.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 OK\r\n")
    assert second.startswith(b"400 Bad Request\r\n")
    assert b"no http" not in second
    assert sorted(filter(None, statuses(log_path))) == [200, 400]


async def test_a_megabyte_sent_ahead_waits_for_its_turn(recorder: Recorder, log_path: Path) -> None:
    large = b'{"text":"%b"}' % (b"x" * 1_000_000)
    async with LiteralProvider([json_answer(b"{}")], [json_answer(b"{}")]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.send(request(b"{}") + request(large))
        assert (await client.until(b"{}")).startswith(b"HTTP/1.1 200 ")
        assert (await client.until(b"{}")).startswith(b"HTTP/1.1 200 ")
        await client.close()
    assert statuses(log_path) == [200] * 2


async def test_requests_with_one_head_have_each_their_own_body_however_they_come(
    recorder: Recorder, log_path: Path
) -> None:
    bodies = [b'{"n":%d}' % 10**number for number in range(6)]
    chunked = b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n"
    last = chunked + chunk(b'{"n":') + chunk(b"0}") + LAST_CHUNK
    answers = [[json_answer(b'{"n":%d}' % number)] for number in range(9)]
    async with LiteralProvider(*answers) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        for data in [*map(request, bodies), request(bodies[0]) + request(bodies[5]), last]:
            await client.send(data)
            await client.until(b"}")
        await client.until(b"}")
        await client.close()
    sent = [data.rpartition(b"\r\n\r\n")[2] for data in provider.received]
    assert sent == [*bodies, bodies[0], bodies[5], b'{"n":0}']
    with Log.read(log_path) as log:
        assert [log.blob(call.request_blob or "") for call in log.rows(Call)] == sent


async def test_a_head_that_came_before_may_come_in_pieces(recorder: Recorder, log_path: Path) -> None:
    data = request(b'{"n":1}')
    async with LiteralProvider(*[[json_answer(b"{}")] for _ in data[:60:9]]) as provider, recorder(provider) as proxy:
        for at in range(0, 60, 9):
            client = await LiteralClient.connect(proxy.url)
            await client.send(data[:at])
            await asyncio.sleep(0.01)
            await client.send(data[at:])
            await client.until(b"}")
            await client.close()
    assert {sent.rpartition(b"\r\n\r\n")[2] for sent in provider.received} == {b'{"n":1}'}
    assert statuses(log_path) == [200] * 7


async def test_nothing_stays_of_a_connection_that_has_ended() -> None:
    async def answer(asked: Request) -> Reply:
        return Reply(200, b"", b"text/plain")

    server = Server(answer, lambda _: Reply(400, b"", b"text/plain"), linger_s=0.1)
    async with asyncio.timeout(5), await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0) as listener:
        host, port = listener.sockets[0].getsockname()
        clients = [await LiteralClient.connect(f"http://{host}:{port}") for _ in range(3)]
        for client in clients[:2]:
            for _ in range(2):
                await client.send(request(b"{}"))
                await client.until(b"\r\n\r\n")
        assert len(server.tasks) == 2
        for client in clients:
            await client.close()
        while server.tasks or server.connections:
            await asyncio.sleep(0)


async def test_a_client_that_says_it_sends_nothing_more_counts_as_gone(recorder: Recorder, log_path: Path) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked.set()
        await left.wait()

    async with LiteralProvider([wait, json_answer(b"{}")]) as provider, recorder(provider) as proxy:
        address = urlsplit(proxy.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(request(b"{}"))
        await asked.wait()
        writer.write_eof()
        assert await reader.read() == b""
        left.set()
        writer.close()
        async with asyncio.timeout(5):
            while proxy.open_calls():
                await asyncio.sleep(0)
    with Log.read(log_path) as log:
        assert [(call.outcome, call.status) for call in log.rows(Call)] == [("client_gone", 200)]


@pytest.mark.parametrize("more", [b"and more", b"HTTP/1.1 200 OK\r\n", json_answer(b'{"n":9}')])
async def test_what_follows_a_whole_answer_is_no_part_of_it_nor_of_the_next(
    recorder: Recorder, log_path: Path, more: bytes
) -> None:
    spoilt: list[Step] = [json_answer(b'{"n":1}') + more]
    async with LiteralProvider(spoilt, [json_answer(b'{"n":2}')]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        for number in (1, 2):
            await client.send(request(b"{}"))
            assert (await client.until(b"}")).endswith(b'\r\n\r\n{"n":%d}' % number)
        await client.close()
    assert statuses(log_path) == [200] * 2
