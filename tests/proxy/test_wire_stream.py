"""What is released of a stream, and when: the same whatever way the bytes arrive."""

import gzip
import time
import zlib
from collections.abc import Callable
from itertools import pairwise

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.wire import AnswerFacts, StreamWatcher

DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'


def content(text: str, usage: str = "") -> bytes:
    return f'data: {{"id":"c","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]{usage}}}\n\n'.encode()


CHAT = b": hi\n\n" + content("a [DONE] error") + content("b", ',"usage":null') + USAGE + DONE
MESSAGES = (
    b'event: message_start\r\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3}}}\r\n\r\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"message_stop"}}\n\n'
    b'data: {"type":"content_block_delta","delta":{"text":"error"}}\n\n'
    b'event: message_delta\rdata: {"type":"message_delta","usage":{"output_tokens":4}}\r\r'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
RESPONSES = (
    b'\xef\xbb\xbfevent: response.created\ndata: {"type":"response.created","response":{"id":"r","error":null}}\n\n'
    b'data: {"delta":"response.completed","type":"response.output_text.delta"}\n\n'
    b': x\ndata: {"response":{"id":"r","status":"completed"},\ndata: "type":"response.completed"}\n\n'
)

HUGE = b'data: {"usage":{"prompt_tokens":1,"x":"' + b"x" * 20_000 + b'"}}\n\n'
ERROR_IN_CHAT = content("a") + b"event:error\ndata: x\n\n" + content("b")

Streams = list[tuple[Dialect, bytes, int]]
STREAMS: Streams = [
    ("chat.completions", CHAT, len(CHAT) - len(DONE)),
    ("chat.completions", CHAT[:-2], len(CHAT) - len(DONE)),
    ("chat.completions", CHAT.replace(b"\n", b"\r\n"), CHAT.replace(b"\n", b"\r\n").index(b"data: [DONE]")),
    ("chat.completions", CHAT.replace(b"\n", b"\r"), CHAT.index(b"data: [DONE]")),
    ("chat.completions", b"\xef\xbb\xbfdata:[DONE]\n\n" + content("late"), 0),
    ("chat.completions", ERROR_IN_CHAT, len(ERROR_IN_CHAT)),
    ("chat.completions", content("a") + b"data:  [DONE]\n\n", len(content("a"))),
    ("messages", b"event:  message_stop\ndata: {}\n\n", 0),
    ("messages", b"event:error\ndata: x\n\n", 0),
    ("chat.completions", content("a") + b"data: [DON", len(content("a")) + 10),
    ("completions", b'data: {"choices":[{"text":"x"}]}\n\n' + DONE + b": bye\n\n", 34),
    ("messages", MESSAGES, MESSAGES.index(b"event: message_stop")),
    ("messages", MESSAGES[:-2], MESSAGES.index(b"event: message_stop")),
    ("messages", b'data: {"type":"error"}\n\n', 0),
    ("messages", b'event: ping\ndata: {"type":"message_stop"}\n\n' + DONE, 43),
    ("messages", b'event: ping\r\ndata: {"type":"message_stop"}\r\n\r\n' + DONE, 46),
    ("responses", RESPONSES, RESPONSES.index(b'data: {"response"')),
    ("unknown", MESSAGES + RESPONSES, MESSAGES.index(b"event: message_stop")),
]


def watch(
    dialect: Dialect, chunks: list[bytes], *, strip_usage: bool = False, encoding: str | None = None
) -> tuple[bytes, bytes, StreamWatcher]:
    """What was released while the stream ran, what at its end, and the watcher."""
    watcher = StreamWatcher(dialect, strip_usage=strip_usage, encoding=encoding)
    released = b"".join(watcher.feed(chunk, number) for number, chunk in enumerate(chunks))
    return released, watcher.finish(), watcher


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[low:high] for low, high in pairwise(edges)]


def beginning_of_end(body: bytes, released: bytes, end: bytes) -> int:
    assert released + end == body
    return len(released)


@pytest.mark.parametrize(("dialect", "body", "kept_from"), STREAMS)
def test_everything_passes_up_to_the_terminal_event_wherever_the_stream_is_split(
    dialect: Dialect, body: bytes, kept_from: int
) -> None:
    whole, end, watcher = watch(dialect, [body])
    facts = watcher.facts()
    if watcher.terminal:
        assert beginning_of_end(body, whole, end) == kept_from
    for place in range(len(body) + 1):
        released, end, split_watcher = watch(dialect, [body[:place], body[place:]])
        assert beginning_of_end(body, released, end) == len(whole)
        assert split_watcher.facts() == facts
        assert split_watcher.frames == watcher.frames
        assert split_watcher.terminal == watcher.terminal
    released, end, _ = watch(dialect, [body[at : at + 1] for at in range(len(body))])
    assert beginning_of_end(body, released, end) == len(whole)


@pytest.mark.parametrize(("dialect", "body", "kept_from"), STREAMS)
def test_the_terminal_flag_is_raised_by_a_whole_terminal_event(dialect: Dialect, body: bytes, kept_from: int) -> None:
    _, _, watcher = watch(dialect, [body])
    assert watcher.terminal == (kept_from < len(body))
    assert watcher.facts().complete == watcher.terminal


def test_a_frame_passes_at_once_and_so_does_half_of_one() -> None:
    watcher = StreamWatcher("chat.completions")
    for chunk in (
        content("a"),
        b'data: {"id',
        b'":1}',
        b"\n",
        b"\n",
        b"event: x\n",
        b": comm",
        b"ent\n",
        b'data: {"id',
    ):
        assert watcher.feed(chunk, 0) == chunk


def test_only_what_could_become_terminal_waits() -> None:
    watcher = StreamWatcher("chat.completions")
    assert watcher.feed(b"dat", 0) == b""
    assert watcher.feed(b"a: [DO", 0) == b""
    assert watcher.feed(b"OR]", 0) == b"data: [DOOR]"
    assert watcher.feed(b"\ndata: [DONE]", 0) == b"\n"
    flags = [watcher.terminal]
    assert watcher.feed(b"\n\n", 0) == b""
    assert [*flags, watcher.terminal] == [False, True]
    assert watcher.take_held() == DONE
    assert watcher.feed(b": late", 0) == b""
    assert watcher.take_held() == b": late"
    assert watcher.finish() == b""


def test_named_data_passes_at_once_and_unnamed_data_waits_for_its_type() -> None:
    watcher = StreamWatcher("messages")
    named = b'event: content_block_delta\ndata: {"type":"mess'
    assert watcher.feed(named, 0) == named
    assert watcher.feed(b'age_stop"}\n\n', 0) == b'age_stop"}\n\n'
    assert [watcher.feed(part, 0) for part in (b"event: pi", b"ng\nda", b"ta: {")] == [
        b"event: pi",
        b"ng\n",
        b"data: {",
    ]
    assert watcher.feed(b"}\n\n", 0) == b"}\n\n"
    assert watcher.feed(b'data: {"type":"ping"', 0) == b""
    assert watcher.feed(b"}\n\n", 0) == b'data: {"type":"ping"}\n\n'


def test_a_terminal_event_that_is_cut_off_is_not_whole() -> None:
    head = b'event: response.completed\ndata: {"type":"response.completed","resp'
    released, end, watcher = watch("responses", [head])
    assert (released, end, watcher.terminal, watcher.facts().complete) == (b"", head, False, False)
    body = b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r"}}'
    assert watch("responses", [body])[2].facts() == AnswerFacts(response_id="r", finish_reason=None, complete=True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (CHAT, CHAT.replace(USAGE, b"")),
        (CHAT.replace(b"\n", b"\r\n"), CHAT.replace(USAGE, b"").replace(b"\n", b"\r\n")),
        (CHAT.replace(b"\n", b"\r"), CHAT.replace(USAGE, b"").replace(b"\n", b"\r")),
        (content("a") + USAGE[:-2], content("a")),
        (DONE + USAGE, DONE),
        (USAGE.replace(b"[]", b"null") + DONE, DONE),
        (b'data: {"choices":[],\ndata: "usage":{"prompt_tokens":1}}\n\n' + DONE, DONE),
        (content("a", ',"usage":{"prompt_tokens":1}') + DONE, content("a", ',"usage":{"prompt_tokens":1}') + DONE),
        (b'data: {"choices":[],"usage":null}\n\n', b'data: {"choices":[],"usage":null}\n\n'),
        (
            b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
            b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
        ),
        (b'data: {"error":{"x":1},"usage":{"a":1}}\n\n', b'data: {"error":{"x":1},"usage":{"a":1}}\n\n'),
        (HUGE, HUGE),
    ],
)
def test_the_usage_chunk_is_taken_out_and_nothing_else(body: bytes, expected: bytes) -> None:
    released, end, watcher = watch("chat.completions", [body], strip_usage=True)
    assert released + end == expected
    facts = watcher.facts()
    step = max(len(body) // 500, 1)
    for place in range(0, len(body) + 1, step):
        part, rest, other = watch("chat.completions", [body[:place], body[place:]], strip_usage=True)
        assert (part, rest) == (released, end)
        assert other.facts() == facts
        assert other.received == body
    assert (
        b"".join(watch("chat.completions", cut(body, list(range(0, len(body), step))), strip_usage=True)[:2])
        == expected
    )


def test_with_usage_taken_out_a_frame_with_a_choice_passes_before_it_is_whole() -> None:
    watcher = StreamWatcher("chat.completions", strip_usage=True)
    assert watcher.feed(b'data: {"choices":[', 0) == b""
    assert watcher.feed(b'{"delta":', 0) == b'data: {"choices":[{"delta":'
    assert watcher.feed(b'{"content":"x"}', 0) == b'{"content":"x"}'
    assert watcher.feed(b"}]}\n\n" + USAGE, 0) == b"}]}\n\n"


def sync_flushed_gzip(parts: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj(wbits=31)
    chunks = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*chunks, packer.flush()]


def test_of_a_compressed_stream_whole_chunks_wait() -> None:
    chunks = sync_flushed_gzip([content("a"), content("b") + b"data", b": 1\n\n", b"x" + DONE, DONE])
    watcher = StreamWatcher("chat.completions", encoding="gzip")
    released = [watcher.feed(chunk, number) for number, chunk in enumerate(chunks)]
    assert released == [chunks[0], b"", chunks[1] + chunks[2], chunks[3], b"", b""]
    assert watcher.terminal
    assert watcher.take_held() == chunks[4] + chunks[5]
    assert watcher.finish() == b""
    assert watcher.received == b"".join(chunks)
    assert watcher.decoded == content("a") + content("b") + b"data: 1\n\nx" + DONE + DONE
    assert watcher.decode_error is None
    assert (watcher.ttft_ms, watcher.facts().complete) == (0, True)


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("br", brotli.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
        ("deflate", zlib.compress),
    ],
)
def test_a_compressed_stream_gives_the_same_facts(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    body = bytes(encode(CHAT))
    _, _, plain = watch("chat.completions", [CHAT])
    for size in (1, 7, len(body)):
        released, end, watcher = watch(
            "chat.completions", cut(body, list(range(0, len(body), size))), encoding=encoding
        )
        assert released + end == body
        assert watcher.facts() == plain.facts()
        assert watcher.decoded == CHAT


def test_a_compressed_stream_that_is_damaged_passes_and_says_so() -> None:
    body = gzip.compress(CHAT)[:30] + b"\0" * 40
    released, end, watcher = watch("chat.completions", [body, b"more"], encoding="gzip")
    assert released + end == body + b"more"
    assert watcher.decode_error is not None
    assert not watcher.facts().complete


def test_times_are_those_of_the_chunks_that_completed_a_frame() -> None:
    watcher = StreamWatcher("chat.completions")
    arrivals: list[tuple[float, bytes]] = [
        (1.0, b": keep-alive\n\n"),
        (5.0, b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'),
        (9.0, content("a")[:-1]),
        (10.0, b"\n" + content("b")),
        (60.0, b": keep-alive\n\n"),
        (90.0, DONE),
    ]
    for at, chunk in arrivals:
        watcher.feed(chunk, at)
    assert watcher.timeline == [(at, len(chunk)) for at, chunk in arrivals]
    assert (watcher.ttft_ms, watcher.max_gap_ms, watcher.frames) == (10.0, 80.0, 4)
    empty = StreamWatcher("chat.completions")
    assert (empty.ttft_ms, empty.max_gap_ms, empty.frames, empty.facts()) == (None, None, 0, AnswerFacts())


def test_a_line_of_megabytes_in_small_chunks_costs_linear_time() -> None:
    started = time.process_time()
    for head in (b'data: {"type":"x', b'event: response.completed\ndata: {"type":"response.completed","x":"'):
        _, _, watcher = watch("responses", [head, *[b"x" * 1000] * 4000, b'"}\n\n', DONE])
        assert watcher.terminal
    watch("chat.completions", [b'data: {"choices":[{"x":"', *[b"x" * 1000] * 4000, b'"}]}\n\n', DONE], strip_usage=True)
    assert time.process_time() - started < 3


LINES = [
    b"",
    b"data: [DONE]",
    b"data:[DONE] x",
    b"event: ping",
    b"event:error",
    b"event: message_stop",
    b'data: {"type":"message_stop"}',
    b'data: {"type":"response.failed"}',
    b'data: {"type":"error",',
    b'data: "type":"error"}',
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    b'data: {"choices":[{"delta":{"content":"x"}}],"usage":null}',
    b": [DONE]",
    b"data",
    b"\xef\xbb\xbf",
    b"\xff",
]
STREAM = st.lists(
    st.tuples(st.sampled_from(LINES), st.sampled_from([b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b""])).map(
        b"".join
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(
    dialect=st.sampled_from(["chat.completions", "completions", "responses", "messages", "unknown"]),
    body=STREAM | st.binary(),
    places=st.lists(st.integers(0, 300), max_size=20),
    strip_usage=st.booleans(),
)
def test_any_split_of_any_stream_gives_the_same_bytes_and_the_same_facts(
    dialect: Dialect, body: bytes, places: list[int], *, strip_usage: bool
) -> None:
    whole, whole_end, watcher = watch(dialect, [body], strip_usage=strip_usage)
    released, end, other = watch(dialect, cut(body, places), strip_usage=strip_usage)
    assert released + end == whole + whole_end
    if watcher.terminal or not strip_usage:
        assert released == whole
    assert other.facts() == watcher.facts()
    assert (other.frames, other.terminal) == (watcher.frames, watcher.terminal)
    assert other.received == body
    if not strip_usage:
        assert released + end == body
