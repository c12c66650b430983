"""A stream that is taken apart quickly is the same stream as one that is taken apart with care."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellmeter_proxy.canonical import MAX_ELEMENTS
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.redact import Redactor, redact_stream
from cellmeter_proxy.sse import FrameSplitter, parse_frame, split
from cellmeter_proxy.wire import StreamWatcher
from cellmeter_proxy.wire.fields import load
from cellmeter_proxy.wire.frames import read_frames

TEXT = b'{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}'
PIECES = [
    b"data: " + TEXT + b"\n\n",
    b"data: [DONE]\n\n",
    b"data: {}",
    b"\n\n",
    b"\n",
    b"\r\n",
    b"\r",
    b": ping\n\n",
    b"event: x\n",
    b'data: {"a":',
    b"data: 1}\n\n",
    b"data:2\n\n",
    b"data: \n\n",
    b'data: "\xff"\n\n',
    b'data: "\\ud800"\n\n',
    b"\xef\xbb\xbf",
]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map(b"".join), st.sampled_from(["chat.completions", "unknown"]))
@example(b"data: 1\n\ndata: \n\n\ndata: 2\n\n", "unknown")
@example(b"data: 1\n2\n\ndata: 3\n\n", "unknown")
@example(b"data: 1 2\n\ndata: \n\n", "unknown")
@example(b"data: [1\n\ndata: 2]\n\ndata: 3,4\n\n", "unknown")
@example(b"data: [1\n\ndata: 2]\n\ndata: 3,4,5\n\n", "unknown")
@example(b'data: [1\n\ndata: 2]\n\ndata: 3,"\\u0000\\u0000",4\n\n', "unknown")
def test_every_stream_has_the_frames_that_it_has_byte_by_byte(body: bytes, dialect: Dialect) -> None:
    splitter = FrameSplitter()
    expected = [frame for start in range(len(body)) for frame in splitter.feed(body[start : start + 1])]
    expected += [splitter.rest] if splitter.pending else []
    # A CR at the very end waits for the LF that could follow it, and here nothing follows.
    assert b"".join(split(body)) == body
    parsed = read_frames(body, dialect)
    assert parsed.raw() == split(body)
    if not body.endswith(b"\r"):
        assert parsed.raw() == expected
    events = [parse_frame(frame) for frame in parsed.raw()]
    assert parsed.events == events
    plain = [None if event is None else load(event.data) for event in events]
    assert parsed.values == plain


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), st.integers(1, 120))
def test_a_large_stream_is_parsed_in_parts_and_comes_to_the_same(body: bytes, size: int) -> None:
    whole = read_frames(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellmeter_proxy.wire.frames._AT_ONCE", size)
        assert read_frames(body) == whole


@pytest.mark.parametrize("dialect", ["chat.completions", "responses", "messages", "unknown"])
def test_a_frame_of_too_many_values_is_not_parsed_and_the_others_are(dialect: Dialect) -> None:
    last = b'data: {"type":"error","error":{"message":"m"}}\n\n'
    many = b'data: {"content":"hunter22","data":[' + b"[]," * (MAX_ELEMENTS + 1) + b"1]}\n\n"
    body = many * 8 + b": note\n\n" + last
    began = time.thread_time()
    parsed = read_frames(body, dialect)
    assert parsed.values == [None] * 9 + [{"type": "error", "error": {"message": "m"}}]
    assert b"".join(parsed.raw()) == body
    masked, found = redact_stream(body, dialect, Redactor(["hunter22"]))
    assert (found, masked) == (8, body.replace(b"hunter22", b"********"))
    assert time.thread_time() - began < 3
    watcher = StreamWatcher(dialect)
    watcher.feed(body, 1.0)
    assert (watcher.facts().error, watcher.frames) == ("m", 9)
