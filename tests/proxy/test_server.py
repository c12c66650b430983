"""What the proxy answers by itself, and the addresses it listens on."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.server import Running, parse_upstream
from cellmeter_proxy.testing import LiteralClient, LiteralProvider, json_answer

Recorder = Callable[..., AbstractAsyncContextManager[Running]]


async def fetch(proxy: Running, request: bytes) -> bytes:
    """Everything that comes back for a request line and more header lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(request + b"\r\nHost: p\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


def json_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def calls(path: Path) -> list[Call]:
    with Log.read(path) as log:
        return list(log.rows(Call))


@pytest.mark.parametrize("path", [b"/", b"/s/mine", b"/s/mine/"])
async def test_what_agents_probe_with_is_answered_here(recorder: Recorder, log_path: Path, path: bytes) -> None:
    async with LiteralProvider() as provider, recorder(provider) as proxy:
        head = await fetch(proxy, b"HEAD " + path + b" HTTP/1.1")
        got = await fetch(proxy, b"GET " + path + b" HTTP/1.1")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.endswith(b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"x-request-id: " in got
    assert calls(log_path) == []


async def test_the_list_of_models_is_the_providers(recorder: Recorder, log_path: Path) -> None:
    models = b'{"object":"list","data":[{"id":"m"}]}'
    head_only = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n"
    async with LiteralProvider([json_answer(models)], [head_only]) as provider, recorder(provider) as proxy:
        got = await fetch(proxy, b"GET /s/mine/v1/models?limit=3 HTTP/1.1")
        head = await fetch(proxy, b"HEAD /s/mine/v1/models HTTP/1.1")
    assert got.endswith(models)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nContent-Length: 37\r\n" in head
    assert provider.received[0].startswith(b"GET /v1/models?limit=3 HTTP/1.1\r\n")
    rows = calls(log_path)
    assert [(row.dialect, row.endpoint, row.session, row.outcome) for row in rows] == [
        ("models", "/v1/models", "mine", "ok")
    ] * 2


async def test_a_websocket_is_sent_to_http_at_once(recorder: Recorder, log_path: Path) -> None:
    upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA"
    async with LiteralProvider() as provider, recorder(provider) as proxy:
        answer = await fetch(proxy, b"GET /v1/responses HTTP/1.1" + upgrade)
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"x-request-id: " in answer
    assert (provider.received, calls(log_path)) == ([], [])


@pytest.mark.parametrize("start", [b"POST /_cellmeter/health", b"GET /_cellmeter/", b"GET /_cellmeter/other"])
async def test_the_proxys_own_addresses_never_reach_the_provider(recorder: Recorder, start: bytes) -> None:
    async with LiteralProvider() as provider, recorder(provider) as proxy:
        answer = await fetch(proxy, start + b" HTTP/1.1")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert json_of(answer)["error"]["code"] == "not_found"
    assert provider.received == []


async def test_health_says_whether_calls_can_be_recorded_and_how_many_are_open(
    recorder: Recorder, log_path: Path, tmp_path: Path
) -> None:
    go = asyncio.Event()
    async with LiteralProvider([go.wait, json_answer(b"{}")]) as provider, recorder(provider) as proxy:
        well = await fetch(proxy, b"GET /_cellmeter/health HTTP/1.1")
        client = await LiteralClient.connect(proxy.url)
        await client.post("/v1/chat/completions", b"{}")
        while not provider.received:
            await asyncio.sleep(0.01)
        busy = await fetch(proxy, b"GET /_cellmeter/health HTTP/1.1")
        go.set()
        await client.until(b"{}")
        await client.close()
        log_path.rename(tmp_path / "away.db")
        ill = await fetch(proxy, b"GET /_cellmeter/health HTTP/1.1")
        (tmp_path / "away.db").rename(log_path)
        again = await fetch(proxy, b"GET /_cellmeter/health HTTP/1.1")
    assert well.startswith(b"HTTP/1.1 200 ")
    assert json_of(well) == {"status": "ok", "log_writable": True, "open_calls": 0, "error": None}
    assert json_of(busy)["open_calls"] == 1
    assert ill.startswith(b"HTTP/1.1 503 ")
    assert (json_of(ill)["status"], json_of(ill)["log_writable"]) == ("failing", False)
    assert "cannot be written" in json_of(ill)["error"]
    assert again.startswith(b"HTTP/1.1 200 ")


async def test_health_leaves_the_log_as_it_was(recorder: Recorder, log_path: Path) -> None:
    async with LiteralProvider() as provider, recorder(provider) as proxy:
        with Log.read(log_path) as log:
            before = log.conn.execute("SELECT key, value FROM meta ORDER BY key").fetchall()
        await fetch(proxy, b"GET /_cellmeter/health HTTP/1.1")
    with Log.read(log_path) as log:
        assert log.conn.execute("SELECT key, value FROM meta ORDER BY key").fetchall() == before


async def test_a_refusal_carries_the_id_of_its_row(recorder: Recorder, log_path: Path) -> None:
    async with LiteralProvider() as provider, recorder(provider, cells_only=True) as proxy:
        answer = await fetch(proxy, b"GET /v1/models HTTP/1.1")
    (call,) = calls(log_path)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert f"x-request-id: {call.call_id}\r\n".encode() in answer


async def test_a_second_address_can_be_a_socket_in_the_file_system(recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    async with LiteralProvider([json_answer(b"{}")]) as provider, recorder(provider, socket_path=path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /v1/embeddings HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_port_that_is_taken_is_named(recorder: Recorder) -> None:
    async with LiteralProvider() as provider, recorder(provider) as proxy:
        port = int(proxy.url.rpartition(":")[2])
        with pytest.raises(CellmeterError, match=f"127.0.0.1:{port} is in use"):
            async with recorder(provider, port=port):
                raise AssertionError


@pytest.mark.parametrize(
    "text", ["", "api.example.com", "ftp://h/", "http://", "http://u:p@h/v1", "https://h/v1?key=1", "http://[::1/v1"]
)
def test_an_upstream_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(CellmeterError) as caught:
        parse_upstream(text)
    assert caught.value.exit_code == 2
