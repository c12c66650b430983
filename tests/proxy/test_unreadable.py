"""What is no HTTP is refused, recorded, and kills nothing."""

import asyncio
from pathlib import Path

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.server import ProxyConfig, serve
from cellmeter_proxy.testing import LiteralClient, LiteralProvider, json_answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/x HTTP/1.1\r\nBad Name: sk-0123456789abcdefghijkl\r\n\r\n",
    ],
)
async def test_a_request_that_is_no_http_leaves_a_row_without_a_byte_of_it(tmp_path: Path, sent: bytes) -> None:
    log = tmp_path / "a.db"
    async with LiteralProvider([json_answer(b"{}")]) as provider, serve(ProxyConfig(provider.url, log)) as running:
        client = await LiteralClient.connect(running.url)
        await client.send(sent)
        answer, _ = await client.rest()
        assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
        client = await LiteralClient.connect(running.url)
        await client.post("/v1/x", b"{}")
        assert b"200 OK" in await client.until(b"{}")
        await client.close()
        await asyncio.sleep(0)
    with Log.read(log) as reading:
        rows = list(reading.rows(Call))
    assert [(row.session, row.seq, row.state, row.outcome, row.status) for row in rows] == [
        ("unreadable", 1, "closed", "rejected", 400),
        ("anonymous", 1, "closed", "ok", 200),
    ]
    assert rows[0].error == "what came is not HTTP"
    assert b"sk-0123456789" not in b"".join(path.read_bytes() for path in tmp_path.glob("a.db*"))
