"""What goes to a provider is what was to be sent, and what comes back is what it said."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from cellmeter_proxy.http_answer import ProviderAnswer
from cellmeter_proxy.http_client import PeerHungUpError, ProviderClient
from cellmeter_proxy.http_wire import Wire
from cellmeter_proxy.testing import EVENT_STREAM, LAST_CHUNK, LiteralProvider, Step, chunk, close, json_answer


def client_of(url: str, http_proxy: str | None = None) -> ProviderClient:
    return ProviderClient(URL(url), connect_s=1, silence_s=1, http_proxy=http_proxy)


@asynccontextmanager
async def asked(client: ProviderClient, method: str = "GET") -> AsyncIterator[ProviderAnswer]:
    answer = await client.request(method, "/", b"", b"")
    try:
        yield answer
    finally:
        answer.close()


async def ask(url: str, method: str = "POST", body: bytes = b"x", http_proxy: str | None = None) -> tuple[int, bytes]:
    async with client_of(url, http_proxy) as client:
        answer = await client.request(method, "/v1/x?y", b"", body)
        return answer.status, b"".join([piece async for piece in answer.chunks()])


async def test_a_request_is_sent_as_given_with_its_host_and_length() -> None:
    async with LiteralProvider([json_answer(b"{}")]) as provider, client_of(provider.url) as client:
        headers = b"x-A: \xff\r\nX-a: 2\r\n"
        (await client.request("POST", "/v1/a%2Fb?q=%20", headers, b"body")).close()
    host = provider.url.removeprefix("http://").removesuffix("/v1").encode()
    head = b"POST /v1/a%2Fb?q=%20 HTTP/1.1\r\nHost: " + host + b"\r\nx-A: \xff\r\nX-a: 2\r\nContent-Length: 4\r\n\r\n"
    assert provider.received == [head + b"body"]


@pytest.mark.parametrize(("method", "says"), [("POST", True), ("PATCH", True), ("GET", False), ("HEAD", False)])
async def test_a_request_without_a_body_says_so_where_one_is_expected(method: str, says: bool) -> None:
    async with LiteralProvider([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]) as provider:
        assert await ask(provider.url, method, b"") == (200, b"")
    assert (b"Content-Length: 0" in provider.received[0]) is says


async def kept(client: ProviderClient) -> object:
    """The address of the connection that the next request would use."""
    wire = await client.connect()
    assert wire.transport is not None
    name: object = wire.transport.get_extra_info("sockname")
    client.keep(wire)
    return name


async def test_a_connection_is_kept_after_a_whole_answer_and_closed_when_one_is_left() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    async with LiteralProvider([json_answer(b"{}")], [half]) as provider, client_of(provider.url) as client:
        first = await kept(client)
        async with asked(client) as answer:
            assert [piece async for piece in answer.chunks()] == [b"{}"]
        assert await kept(client) == first
        (await client.request("GET", "/", b"", b"")).close()
        assert await kept(client) != first


async def test_what_is_said_before_the_answer_is_passed_over() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with LiteralProvider([early, json_answer(b"{}")]) as provider:
        assert await ask(provider.url) == (200, b"{}")


async def test_silence_after_such_a_word_is_a_timeout_all_the_same() -> None:
    async with LiteralProvider([b"HTTP/1.1 103 Early Hints\r\n\r\n", asyncio.Event().wait]) as provider:
        with pytest.raises(aiohttp.SocketTimeoutError):
            async with asyncio.timeout(5):
                await ask(provider.url)


async def test_what_a_provider_says_unasked_is_no_answer_to_the_next_request() -> None:
    said, heard = asyncio.Event(), json_answer(b"", b"408 Request Timeout")
    async with (
        LiteralProvider([json_answer(b"1"), said.wait, heard], [json_answer(b"2")]) as provider,
        client_of(provider.url) as client,
    ):
        async with asked(client) as answer:
            assert [piece async for piece in answer.chunks()] == [b"1"]
        wire = await client.connect()
        client.keep(wire)
        said.set()
        async with asyncio.timeout(5):
            while not wire.spent:
                await asyncio.sleep(0)
        with pytest.raises(PeerHungUpError):
            await client.request("GET", "/", b"", b"")
        async with asked(client) as answer:
            assert [piece async for piece in answer.chunks()] == [b"2"]


async def test_what_ended_one_idle_connection_is_met_once() -> None:
    late = asyncio.Event()
    answers: list[list[Step]] = [[json_answer(b"1"), late.wait, json_answer(b"", b"408 Request Timeout")]] * 3
    async with LiteralProvider(*answers, [json_answer(b"2")]) as provider, client_of(provider.url) as client:
        wires = [await client.connect() for _ in range(3)]
        for wire in wires:
            client.keep(wire)
        for answer in await asyncio.gather(*(client.request("GET", "/", b"", b"") for _ in range(3))):
            assert [piece async for piece in answer.chunks()] == [b"1"]
        late.set()
        async with asyncio.timeout(5):
            while not all(wire.spent for wire in wires):
                await asyncio.sleep(0)
        with pytest.raises(PeerHungUpError):
            await client.request("GET", "/", b"", b"")
        async with asked(client) as answer:
            assert [piece async for piece in answer.chunks()] == [b"2"]


async def test_the_time_that_a_client_takes_is_not_the_providers_silence() -> None:
    second, third = asyncio.Event(), asyncio.Event()
    taken: list[bytes] = []

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return False

    script: list[Step] = [EVENT_STREAM, chunk(b"a"), second.wait, chunk(b"b"), third.wait, chunk(b"c"), LAST_CHUNK]
    async with (
        LiteralProvider(script) as provider,
        ProviderClient(URL(provider.url), connect_s=1, silence_s=0.5) as client,
        asked(client) as answer,
    ):
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, second.set)
        async for _ in answer.each(take):
            if taken[-1] == b"b":
                loop.call_later(0.8, third.set)
                await asyncio.sleep(0.7)
    assert taken == [b"a", b"b", b"c"]


async def test_what_came_before_a_break_is_taken_however_late() -> None:
    slow = asyncio.Event()
    taken: list[bytes] = []

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return False

    script: list[Step] = [EVENT_STREAM, chunk(b"a"), slow.wait, chunk(b"b"), close]

    async def be_slow(answer: ProviderAnswer, wire: Wire) -> None:
        async for _ in answer.each(take):
            slow.set()
            while wire.transport is not None:
                await asyncio.sleep(0)

    async with asyncio.timeout(5), LiteralProvider(script) as provider, client_of(provider.url) as client:
        wire = await client.connect()
        client.keep(wire)
        async with asked(client) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await be_slow(answer, wire)
    assert taken == [b"a", b"b"]


@pytest.mark.parametrize(("method", "status"), [("POST", b"204 No Content"), ("HEAD", b"200 OK")])
async def test_of_an_answer_without_a_body_nothing_is_taken(method: str, status: bytes) -> None:
    async with (
        LiteralProvider([b"HTTP/1.1 " + status + b"\r\n\r\n"]) as provider,
        client_of(provider.url) as client,
        asked(client, method) as answer,
    ):
        assert [None async for _ in answer.each(lambda _: False)] == []


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with LiteralProvider([b"HTTP/1.1 200 OK\r\n\r\nall of it", close]) as provider:
        assert await ask(provider.url) == (200, b"all of it")


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with LiteralProvider([head, chunk(b"a"), close]) as provider:
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(provider.url)


@pytest.mark.parametrize("lines", [b"gzip, chunked", b"gzip\r\nTransfer-Encoding: Chunked ", b"gzip ,\tchunked"])
async def test_a_break_is_an_error_however_the_coding_of_the_transfer_is_written(lines: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + lines + b"\r\n\r\n"
    async with LiteralProvider([head, chunk(b"a"), close]) as provider:
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(provider.url)


async def test_a_plain_provider_behind_a_proxy_is_named_to_it_whole() -> None:
    async with LiteralProvider([json_answer(b"{}")]) as network:
        proxy = network.url.removesuffix("/v1")
        assert await ask("http://api.example:81/v1", http_proxy=proxy) == (200, b"{}")
    assert network.received[0].startswith(b"POST http://api.example:81/v1/x?y HTTP/1.1\r\nHost: api.example:81\r\n")


async def test_a_plain_provider_behind_a_proxy_with_a_password_is_reached_with_it() -> None:
    async with LiteralProvider([json_answer(b"{}")]) as network:
        proxy = network.url.removesuffix("/v1").replace("//", "//user:word@")
        assert await ask("http://api.example:81/v1", http_proxy=proxy) == (200, b"{}")
    assert b"\r\nProxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in network.received[0]


async def test_what_has_not_gone_out_when_the_answer_comes_is_not_sent_any_more() -> None:
    size, answered = 30_000_000, asyncio.Event()
    came: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(json_answer(b"no", b"413 Content Too Large"))
        await answered.wait()
        read = 0
        with suppress(ConnectionError):
            while piece := await reader.read(1_000_000):
                read += len(piece)
        came.set_result(read)
        writer.close()

    async with asyncio.timeout(5), await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        assert await ask(f"http://{host}:{port}/v1", body=b"x" * size) == (413, b"no")
        answered.set()
        assert await came < size


async def test_a_large_body_goes_whole() -> None:
    body = b"x" * 3_000_000
    async with LiteralProvider([chunk_answer()]) as provider:
        assert await ask(provider.url, body=body) == (200, b"ok")
    assert provider.received[0].endswith(b"\r\n\r\n" + body)


def chunk_answer() -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"ok") + LAST_CHUNK


@asynccontextmanager
async def met() -> AsyncIterator[tuple[ProviderClient, Wire, socket.socket]]:
    """A client, a connection of it that is fresh, and the other side of that, which nobody reads in the event loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        async with client_of(f"http://{host}:{port}/v1") as client:
            wire = await client.connect()
            peer, _ = listener.accept()
            with peer:
                yield client, wire, peer


async def test_an_end_that_has_arrived_is_seen_before_the_event_loop_sees_it() -> None:
    async with met() as (_, wire, peer):
        assert not wire.is_spent()
        peer.close()
        assert wire.is_spent()
        wire.close()
        assert wire.is_spent()


async def test_what_was_said_unasked_is_seen_before_the_event_loop_sees_it() -> None:
    async with met() as (client, wire, peer):
        answer = wire.ask(b"GET / HTTP/1.1\r\n\r\n", b"", bodiless=False)
        peer.sendall(json_answer(b"1"))
        await answer.head
        assert not wire.is_spent()
        peer.sendall(json_answer(b"of another"))
        with pytest.raises(PeerHungUpError):
            await client.request("GET", "/", b"", b"")


async def test_a_provider_that_speaks_first_speaks_no_http() -> None:
    async with met() as (client, wire, peer):
        peer.sendall(b"220 mail.example ESMTP\r\n")
        client.keep(wire)
        with pytest.raises(HttpProcessingError):
            await client.request("GET", "/", b"", b"")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: a\r\n" % number for number in range(300)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 2_000_000,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 000 Nothing\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-request-id: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_head_without_measure_or_meaning_is_no_answer(head: bytes) -> None:
    async with LiteralProvider([head]) as provider:
        with pytest.raises(HttpProcessingError):
            await ask(provider.url)


async def test_headers_are_given_as_they_came_and_trailers_are_none_of_them() -> None:
    head = b"HTTP/1.1 200 Fine \xff\r\nX-a:  1 \r\nx-A: \xff\r\nEmpty:\r\nTransfer-Encoding: chunked\r\n\r\n"
    script = [head + chunk(b"a") + b"0\r\nx-trailer: 1\r\n\r\n"]
    async with (
        LiteralProvider(script) as provider,
        client_of(provider.url) as client,
        asked(client) as answer,
    ):
        assert answer.reason == b"Fine \xff"
        named = [(b"X-a", b"1"), (b"x-A", b"\xff"), (b"Empty", b""), (b"Transfer-Encoding", b"chunked")]
        assert answer.raw_headers == named
        assert answer.headers.getall("x-a") == ["1", "\udcff"]
        assert answer.take_all() == b"a"


@pytest.mark.parametrize("more", [json_answer(b"no"), b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 404 Not Found"])
async def test_what_follows_an_answer_in_one_piece_changes_nothing_of_its_head(more: bytes) -> None:
    async with (
        LiteralProvider([json_answer(b"{}") + more]) as provider,
        client_of(provider.url) as client,
        asked(client) as answer,
    ):
        assert (answer.status, answer.reason, answer.take_all()) == (200, b"OK", b"{}")
        assert answer.raw_headers == [(b"content-type", b"application/json"), (b"content-length", b"2")]


@pytest.mark.parametrize(("framing", "body"), [(b"Content-Length", b"2"), (b"Transfer-Encoding", b"chunked")])
async def test_what_stands_between_a_name_and_its_colon_is_removed(framing: bytes, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + framing + b" : " + body + b"\r\n\r\n"
    async with (
        LiteralProvider([head, close]) as provider,
        client_of(provider.url) as client,
        asked(client) as answer,
    ):
        assert answer.raw_headers == [(framing, body)]
        assert answer.headers[framing.decode()] == body.decode()


async def test_a_provider_is_held_back_while_nobody_reads() -> None:
    size, sent = 30_000_000, asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await writer.drain()
        sent.set()
        writer.close()

    async with asyncio.timeout(10), await asyncio.start_server(flood, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with (
            client_of(f"http://{host}:{port}/v1") as client,
            asked(client) as answer,
        ):
            await asyncio.sleep(0.2)
            assert not sent.is_set()
            assert sum([len(piece) async for piece in answer.chunks()]) == size
