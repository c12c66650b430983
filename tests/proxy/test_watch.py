"""What may be released of an answer, and when, for every way in which a provider can label and cut it."""

import gzip
import zlib

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from cellmeter_proxy.watch import relabelled, watch
from cellmeter_proxy.wire.stream import UNREADABLE_TAIL

ANSWER = b'{"id":"c1","choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}'
EVENTS = {"content-type": "text/event-stream"}


def released(headers: dict[str, str], *pieces: bytes) -> tuple[list[bytes], bytes]:
    """What passed with each piece, and what was kept to the end."""
    watcher = watch("chat.completions", headers)
    passed = [watcher.feed(piece, 0) for piece in pieces]
    return passed, watcher.finish()


@pytest.mark.parametrize("headers", [{}, {"content-length": str(len(ANSWER) + 2)}])
def test_white_space_after_an_answer_does_not_release_it(headers: dict[str, str]) -> None:
    passed, kept = released(headers, ANSWER[:9], ANSWER[9:], b"\n", b"\n")
    assert passed == [b"", ANSWER[:9], b"", b""]
    assert kept == ANSWER[9:] + b"\n\n"


def test_white_space_before_an_answer_passes() -> None:
    assert released({}, b" ", b"\n", ANSWER) == ([b" ", b"\n", b""], ANSWER)


@pytest.mark.parametrize(
    ("encoding", "body", "trailer"),
    [
        ("gzip", gzip.compress(ANSWER, mtime=0), 8),
        ("deflate", zlib.compress(ANSWER), 4),
        ("br", brotli.compress(ANSWER), 1),
        ("zstd", zstandard.ZstdCompressor(write_checksum=True).compress(ANSWER), 4),
    ],
)
def test_the_trailer_of_a_coding_does_not_release_the_answer(encoding: str, body: bytes, trailer: int) -> None:
    for place in range(len(body) - trailer, len(body)):
        passed, kept = released({"content-encoding": encoding}, body[:place], body[place:])
        decoder = zlib.decompressobj(31) if encoding == "gzip" else None
        assert b"".join(passed) + kept == body
        if decoder is not None:
            assert not decoder.decompress(b"".join(passed)).endswith(b"}")
        if place < len(body) - 1 or encoding != "br":
            assert kept.endswith(body[place:])
            assert passed[0] + passed[1] == b""


def test_what_cannot_be_decoded_keeps_its_last_64_kib() -> None:
    for headers in ({}, EVENTS):
        passed, kept = released({**headers, "content-encoding": "rot13"}, b"x" * UNREADABLE_TAIL, b"y" * 5, b"z")
        assert passed == [b"", b"x" * 5, b"x"]
        assert len(kept) == UNREADABLE_TAIL


def test_a_stream_with_a_length_keeps_what_fulfils_it() -> None:
    frame = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    watcher = watch("chat.completions", {**EVENTS, "content-length": str(2 * len(frame))})
    assert watcher.feed(frame, 0) == frame
    before = watcher.terminal
    assert watcher.feed(frame, 1) == b""
    assert (before, watcher.terminal) == (False, True)
    assert not watcher.facts().complete
    assert watcher.take_held() == frame
    assert watcher.finish() == b""


@pytest.mark.parametrize(
    ("content_type", "beginning", "is_stream"),
    [
        ("text/event-stream", b'\n {"id"', False),
        ("text/event-stream", b"data", True),
        ("text/event-stream", b"<html>", True),
        ("application/json", b"d", True),
        ("application/json", b"\xef\xbb\xbfevent: x", True),
        ("text/plain", b": ping", True),
        ("application/json", b'{"data:', False),
        ("text/plain", b"dear", False),
    ],
)
def test_the_first_bytes_say_what_an_answer_is(content_type: str, beginning: bytes, *, is_stream: bool) -> None:
    headers = {"content-type": content_type}
    watcher = watch("chat.completions", headers)
    watcher.feed(b" ", 0)
    assert relabelled(watcher, "chat.completions", headers) is None
    watcher.feed(beginning, 0)
    found = relabelled(watcher, "chat.completions", headers)
    assert found is not None
    assert (found.frames is not None) is is_stream


def test_an_answer_that_begins_with_much_white_space_is_what_its_headers_say() -> None:
    headers = {"content-type": "text/event-stream"}
    watcher = watch("chat.completions", headers)
    watcher.feed(b" " * (64 * 1024 - 1), 1.0)
    assert relabelled(watcher, "chat.completions", headers) is None
    watcher.feed(b" ", 2.0)
    assert relabelled(watcher, "chat.completions", headers) is watcher
