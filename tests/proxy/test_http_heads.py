"""A head that was parsed before says what the parser would say of it, and no more is told apart without the parser."""

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import StreamReader
from hypothesis import example, given
from hypothesis import strategies as st

from cellmeter_proxy.http_heads import Heads, Whole, whole

PLAIN = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CLOSING = PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
LINES = (
    *(b"POST /v1/x?a=b HTTP/1.1", b"GET / HTTP/1.0", b"CONNECT a:1 HTTP/1.1", b"POST http://a/b HTTP/1.1"),
    *(
        b"Host: a",
        b"host: b",
        b"Content-Length: %d",
        b"content-length: %d",
        b"CONTENT-LENGTH: %d",
        b"Content-Length:%d",
    ),
    *(
        b"Content-Length: ",
        b"Content-Length: 5",
        b"Content-Length: +%d",
        b"X-Content-Length: %d",
        b" Content-Length: %d",
    ),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Connection: close", b"Connection: keep-alive"),
    *(b"Upgrade: websocket", b"Connection: upgrade", b"Expect: 100-continue", b"Content-Encoding: gzip", b" folded"),
    *(b"X-A: \xff\x00", b"X-A: a\nContent-Length: %d", b"X-A: a\rb", b"no header", b"", b"Authorization: Bearer sk-a"),
)
usual = st.sampled_from([b"X-A: 1", b"X-A: 2", b"Connection: close"])
heads = st.builds(
    lambda first, lines, end: b"\r\n".join([first, *lines]) + end,
    st.one_of(*[st.just(LINES[0])] * 5, st.sampled_from(LINES)),
    st.permutations([b"Host: a", b"Content-Length: %d"]).flatmap(
        lambda lines: st.lists(st.one_of(usual, st.sampled_from(LINES)), max_size=2).map(lambda more: [*lines, *more])
    ),
    st.sampled_from([b"\r\n\r\n", b"\n\n"]),
)
bodies = st.one_of(
    st.binary(min_size=1, max_size=20), st.sampled_from([b"0\r\n\r\n", b"2\r\nab\r\n0\r\n\r\n", b"{}" * 50])
)


def request(head: bytes, body: bytes) -> bytes:
    return head.replace(b"%d", b"%d" % len(body)) + body


class Parsed:
    """What a fresh parser says of bytes."""

    def __init__(self, data: bytes) -> None:
        loop = asyncio.new_event_loop()
        self._parser = HttpRequestParser(BaseProtocol(loop), loop, 65536, auto_decompress=False, max_msg_queue_size=1)
        loop.close()
        self.messages = self.feed(data)

    def feed(self, data: bytes) -> list[tuple[RawRequestMessage, StreamReader]]:
        try:
            return list(self._parser.feed_data(data)[0])
        except HttpProcessingError:
            return []

    def next(self) -> list[tuple[RawRequestMessage, StreamReader]]:
        """What it says of a plain request that follows."""
        self._parser.message_consumed()
        return self.feed(request(PLAIN, b"next"))


def said(message: RawRequestMessage) -> list[object]:
    """All that a parser says of a request, but its length."""
    headers = [(name, value) for name, value in message.headers.items() if name.lower() != "content-length"]
    raw = [(name, value) for name, value in message.raw_headers if name.lower() != b"content-length"]
    flags = [message.should_close, message.compression, message.upgrade, message.chunked]
    return [message.method, message.path, message.version, message.url, headers, raw, flags]


def learnt(request: Whole | None, parsed: Parsed) -> RawRequestMessage | None:
    """What is remembered of a request, if it is."""
    if request is None or not parsed.messages:
        return None
    [(message, content)] = parsed.messages
    return message if request.is_said(message) and content.is_eof() else None


@given(head=heads, again=heads, one=bodies, other=bodies)
@example(head=PLAIN, again=PLAIN, one=b"a", other=b"b" * 1000)
@example(head=CLOSING, again=CLOSING, one=b"a", other=b"bb")
@example(head=CLOSING, again=PLAIN, one=b"a", other=b"bb")
def test_what_is_remembered_of_a_head_is_what_the_parser_says_of_the_next(
    head: bytes, again: bytes, one: bytes, other: bytes
) -> None:
    first = whole(request(head, one))
    message = learnt(first, Parsed(request(head, one)))
    for data in (request(head, other), request(again, other)):
        second = whole(data)
        if message is None or first is None or second is None or first.head != second.head:
            continue
        parsed = Parsed(data)
        [(found, content)] = parsed.messages
        assert said(found) == said(message)
        assert content.is_eof()
        assert content.read_nowait() == second.body
        if not found.should_close:
            [(following, _)] = parsed.next()
            assert following.path == "/v1/x"


@pytest.mark.parametrize(
    "lines", [b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: upgrade\r\nUpgrade: h2c"]
)
def test_what_may_go_on_in_another_protocol_is_not_remembered(lines: bytes) -> None:
    data = request(PLAIN.replace(b"\r\n\r\n", b"\r\n" + lines + b"\r\n\r\n"), b"body")
    assert whole(data) is not None
    assert learnt(whole(data), Parsed(data)) is None


def test_a_plain_request_is_remembered() -> None:
    data = request(PLAIN, b"body")
    found = whole(data)
    assert found is not None
    assert (found.length, found.body) == (b"4", b"body")
    message = learnt(found, Parsed(data))
    assert message is not None
    known = Heads()
    assert known.find(found.head) is None
    known.learn(found.head, message)
    other = whole(request(PLAIN, b"another body"))
    assert other is not None
    assert known.find(other.head) is message


def test_what_is_not_one_whole_request_is_for_the_parser() -> None:
    data = request(PLAIN, b"body")
    for part in (b"", data[:-1], data + b"P", data * 2, PLAIN % 0, data.replace(b"Content-Length: 4\r\n", b"")):
        assert whole(part) is None


def test_only_so_many_heads_are_kept() -> None:
    [(message, _)] = Parsed(request(PLAIN, b"body")).messages
    known = Heads()
    for number in range(257):
        known.learn(b"%d" % number, message)
    assert known.find(b"0") is None
    assert known.find(b"256") is message
