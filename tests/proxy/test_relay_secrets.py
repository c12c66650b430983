"""A key that turns up in every place a key can turn up in, and nothing that the proxy writes holds it."""

import gzip
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import zstandard

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Attempt, BlobRow, Call
from cellmeter_proxy.server import Running
from cellmeter_proxy.testing import (
    EVENT_STREAM,
    LAST_CHUNK,
    LiteralClient,
    LiteralProvider,
    Step,
    chunk,
    close,
    json_answer,
)

Recorder = Callable[..., AbstractAsyncContextManager[Running]]
PATH = "/v1/chat/completions"
# None of them has the shape of a known key: what finds them is that they came where a credential belongs.
BEARER, X_API_KEY, QUERY, COOKIE, UPSTREAM = (
    f"{name}.not-a-shape.7731" for name in ("bear", "xapi", "qry", "ck", "up")
)
SHAPED = "sk-proj-abcdefghij0123456789XYZ"
SECRETS = (BEARER, X_API_KEY, QUERY, COOKIE, SHAPED)
CREDENTIALS = (
    f"Authorization: Bearer {BEARER}".encode(),
    f"X-Api-Key: {X_API_KEY}".encode(),
    f"Cookie: theme=dark; session={COOKIE}".encode(),
)
EVERYTHING = " and ".join(SECRETS)


def delta(text: str) -> bytes:
    return b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()


def spread() -> bytes:
    """A stream whose text is the secrets, a few characters in each frame."""
    frames = [delta(EVERYTHING[at : at + 5]) for at in range(0, len(EVERYTHING), 5)]
    stop = b'data: {"id":"%b","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n' % BEARER.encode()
    return b"".join([*frames, stop, b"data: [DONE]\n\n"])


def stored(log_path: Path) -> Iterator[tuple[str, bytes]]:
    """Every byte next to the log, and the content of every blob, which is compressed in the file."""
    for path in log_path.parent.iterdir():
        yield path.name, path.read_bytes()
    with Log.read(log_path) as log:
        for blob in log.rows(BlobRow):
            content = log.blob(blob.digest)
            yield blob.digest, content
            if content.startswith(b"\x1f\x8b"):
                yield f"{blob.digest} decoded", gzip.decompress(content)


def leaks(log_path: Path, *others: str) -> list[tuple[str, str]]:
    texts = [*stored(log_path), *((f"output {n}", text.encode()) for n, text in enumerate(others))]
    return [(name, secret) for name, data in texts for secret in (*SECRETS, UPSTREAM) if secret.encode() in data]


async def exchange(proxy: Running, body: bytes, *headers: bytes, path: str = PATH) -> bytes:
    client = await LiteralClient.connect(proxy.url)
    await client.post(f"{path}?key={QUERY}&v=1", body, *CREDENTIALS, *headers, b"Connection: close")
    return (await client.rest())[0]


async def own_addresses(proxy: Running) -> str:
    """What the proxy says of itself to one who shows a key."""
    said = b""
    for target in (b"GET /_cellmeter/health", b"POST /_cellmeter/other"):
        client = await LiteralClient.connect(proxy.url)
        await client.send(
            b"\r\n".join([target + b" HTTP/1.1", b"Host: p", *CREDENTIALS, b"Connection: close", b"", b""])
        )
        said += (await client.rest())[0]
    return said.decode()


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What went to the logs and to the terminal so far."""
    caplog.set_level(logging.DEBUG)

    def read() -> str:
        captured = capfd.readouterr()
        return caplog.text + captured.out + captured.err

    return read


def request(stream: str = "false") -> bytes:
    content = f'{{"model":"m-{BEARER}","stream":{stream},"messages":[{{"role":"user","content":"{EVERYTHING}"}}]}}'
    return content.encode()


ERROR = f'{{"error":{{"message":"Incorrect API key provided: {EVERYTHING}","type":"{SHAPED}"}}}}'.encode()
USAGE = f'{{"prompt_tokens":1,"completion_tokens":1,"note":"{EVERYTHING}"}}'.encode()
UNARY = b'{"id":"%b","model":"%b","choices":[{"index":0,"message":{"content":"%b"},"finish_reason":"stop"}],"usage":%b}'
ECHO = UNARY % (BEARER.encode(), X_API_KEY.encode(), EVERYTHING.encode(), USAGE)
HEADERS = (
    b"User-Agent: agent/1 " + EVERYTHING.encode(),
    b"x-session-id: " + BEARER.encode(),
    b"x-stainless-retry-count: " + BEARER.encode(),
    b"Content-Encoding: " + COOKIE.encode(),
)
ANSWER_HEADERS = (
    b"x-request-id: " + BEARER.encode(),
    b"x-ratelimit-limit-requests: " + X_API_KEY.encode(),
    b"Set-Cookie: a=" + BEARER.encode(),
)
GARBAGE = b"220 " + EVERYTHING.encode() + b"\r\n"
CUT_CHUNK = EVENT_STREAM + b"zz" + BEARER.encode() + b"\r\n"
ZIPPED_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(([json_answer(ECHO, b"200 OK", *ANSWER_HEADERS)], request(), ()), id="one answer"),
        pytest.param(([json_answer(ECHO)], request(), HEADERS), id="headers"),
        pytest.param(([json_answer(ERROR, b"401 Unauthorized", *ANSWER_HEADERS)], request(), ()), id="error"),
        pytest.param(([json_answer(ERROR)], request("true"), ()), id="error in a 200"),
        pytest.param(([EVENT_STREAM, chunk(spread()), LAST_CHUNK], request("true"), ()), id="stream"),
        pytest.param(([EVENT_STREAM, chunk(spread()), close], request("true"), ()), id="cut stream"),
        pytest.param(([GARBAGE, close], request(), ()), id="no HTTP"),
        pytest.param(([CUT_CHUNK, close], request("true"), ()), id="no chunk"),
        pytest.param(
            ([json_answer(gzip.compress(ECHO), b"200 OK", b"Content-Encoding: gzip")], request(), ()), id="gzip"
        ),
        pytest.param(
            ([ZIPPED_HEAD % len(gzip.compress(spread())), gzip.compress(spread())], request("true"), ()),
            id="gzip stream",
        ),
        pytest.param(([json_answer(ECHO)], gzip.compress(request()), (b"Content-Encoding: gzip",)), id="gzip request"),
        pytest.param(([json_answer(ECHO)], zstandard.compress(request()), (b"Content-Encoding: zstd",)), id="zstd"),
    ],
)
async def test_no_secret_is_written_anywhere(
    recorder: Recorder, log_path: Path, written: Callable[[], str], case: tuple[list[Step], bytes, tuple[bytes, ...]]
) -> None:
    script, body, headers = case
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        await exchange(proxy, body, *headers)
        own = await own_addresses(proxy)
        assert leaks(log_path, own) == []
    assert len(provider.received) == 1
    assert provider.received[0].endswith(body) or b"include_usage" in provider.received[0]
    assert leaks(log_path, written()) == []
    with Log.read(log_path) as log:
        (call,) = log.rows(Call)
    assert call.state == "closed"
    assert call.redactions or b"Content-Encoding: " + COOKIE.encode() in headers


async def test_what_is_masked_stays_readable_as_what_it_was(recorder: Recorder, log_path: Path) -> None:
    script: list[Step] = [json_answer(ERROR, b"401 Unauthorized", *ANSWER_HEADERS)]
    async with LiteralProvider(script) as provider, recorder(provider) as proxy:
        await exchange(proxy, request(), *HEADERS[:2], path=f"/s/mine/v1/{BEARER}/chat/completions")
    with Log.read(log_path) as log:
        (call,) = log.rows(Call)
        (attempt,) = log.rows(Attempt)
    stars = "*" * len(BEARER)
    assert (call.session, call.endpoint) == ("mine", f"/v1/{stars}/chat/completions")
    assert (call.request_model, call.request_id, call.client_session) == (f"m-{stars}", stars, stars)
    assert (call.user_agent or "").startswith(f"agent/1 {stars} and ")
    assert (call.error or "").startswith("sk-proj-")
    assert f"Incorrect API key provided: {stars}" in (call.error or "")
    assert attempt.ratelimit == f'{{"x-ratelimit-limit-requests":"{"*" * len(X_API_KEY)}"}}'
    assert attempt.request_id == stars


async def test_a_key_that_stands_where_a_session_is_named_is_only_a_fingerprint(
    recorder: Recorder, log_path: Path
) -> None:
    async with LiteralProvider([json_answer(b"{}")], [json_answer(b"{}")]) as provider, recorder(provider) as proxy:
        await exchange(proxy, b"{}", path=f"/s/{SHAPED}/v1/embeddings")
        await exchange(proxy, b"{}", path=f"/s/{BEARER}/v1/embeddings")
    with Log.read(log_path) as log:
        sessions = [call.session for call in log.rows(Call)]
    assert all(session.startswith("fp:") for session in sessions)
    assert len(set(sessions)) == 2
    assert leaks(log_path) == []


async def test_the_providers_own_key_is_not_written_where_the_provider_echoes_it(
    recorder: Recorder, log_path: Path, written: Callable[[], str]
) -> None:
    echo = ERROR.replace(SHAPED.encode(), UPSTREAM.encode())
    script: list[Step] = [json_answer(echo, b"401 Unauthorized")]
    async with LiteralProvider(script) as provider, recorder(provider, upstream_key=UPSTREAM) as proxy:
        await exchange(proxy, request())
    assert UPSTREAM.encode() in provider.received[0]
    assert leaks(log_path, written()) == []


@pytest.mark.parametrize(
    "bytes_",
    [
        b"POST /v1/x HTTP/1.1\r\nAuthorization : Bearer " + BEARER.encode() + b"\r\n\r\n",
        b"POST /v1/x?key=" + QUERY.encode() + b" HTTP/9.9\r\n\r\n",
        b"POST /v1/x HTTP/1.1\r\nX-Api-Key: " + X_API_KEY.encode() + b"\x00\r\n\r\n",
        BEARER.encode() + b" / HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_request_that_is_no_http_is_refused_without_being_quoted(
    recorder: Recorder, log_path: Path, written: Callable[[], str], bytes_: bytes
) -> None:
    async with LiteralProvider([json_answer(b"{}")]) as provider, recorder(provider) as proxy:
        client = await LiteralClient.connect(proxy.url)
        await client.post(PATH, b"{}")
        await client.until(b"{}")
        await client.send(bytes_)
        answer, _ = await client.rest()
    assert not answer or b" 400 Bad Request" in answer
    assert leaks(log_path, written()) == []
