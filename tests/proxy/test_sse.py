"""Frames do not depend on how the bytes arrive."""

import itertools
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.sse import Event, FrameSplitter, parse_frame, split

MIXED = (
    b"\xef\xbb\xbf: hello\n\n"
    b"event: a\r\ndata: one\r\ndata:two\r\n\r\n"
    b"data: cr\rid: 7\r\r"
    b"\n"
    b"data\n\r\n"
    b": keep-alive\n\n"
    b"data: last"
)


def feed_all(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = FrameSplitter()
    return [frame for chunk in chunks for frame in splitter.feed(chunk)], splitter.rest


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[low:high] for low, high in itertools.pairwise(edges)]


def test_a_stream_is_cut_after_each_empty_line() -> None:
    frames, rest = feed_all([MIXED])
    assert frames == [
        b"\xef\xbb\xbf: hello\n\n",
        b"event: a\r\ndata: one\r\ndata:two\r\n\r\n",
        b"data: cr\rid: 7\r\r\n",
        b"data\n\r\n",
        b": keep-alive\n\n",
    ]
    assert rest == b"data: last"
    assert split(MIXED) == [*frames, rest]


def test_frames_are_the_same_wherever_the_stream_is_split() -> None:
    whole = feed_all([MIXED])
    for place in range(len(MIXED) + 1):
        assert feed_all([MIXED[:place], MIXED[place:]]) == whole
    assert feed_all([MIXED[place : place + 1] for place in range(len(MIXED))]) == whole


@given(st.lists(st.sampled_from([b"data: x", b"event: y", b":", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf"])), st.data())
def test_any_split_gives_the_same_frames_and_loses_nothing(parts: list[bytes], data: st.DataObject) -> None:
    body = b"".join(parts)
    chunks = cut(body, data.draw(st.lists(st.integers(0, 200))))
    frames, rest = feed_all(chunks)
    assert (frames, rest) == feed_all([body])
    assert b"".join(frames) + rest == body


@given(st.binary())
def test_no_bytes_make_a_frame_raise(raw: bytes) -> None:
    parse_frame(raw)


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        (b"data: x\n\n", Event(None, b"x")),
        (b"data:x\n\n", Event(None, b"x")),
        (b"data:  x\n\n", Event(None, b" x")),
        (b"event: e\ndata: x\n\n", Event("e", b"x")),
        (b"data: x\nevent:e\n\n", Event("e", b"x")),
        (b"data: a\r\ndata: b\rdata:\ndata\n\n", Event(None, b"a\nb\n\n")),
        (b"\xef\xbb\xbfdata: x\n\n", Event(None, b"x")),
        (b"event: ping\n\n", Event("ping", b"")),
        (b"data: x", Event(None, b"x")),
        (b"event: \xff\n\n", Event("�", b"")),
        (b": comment\n\n", None),
        (b"id: 4\nretry: 10\n\n", None),
        (b"\n\n", None),
        (b"", None),
    ],
)
def test_a_frame_says_its_event_and_its_data(raw: bytes, event: Event | None) -> None:
    assert parse_frame(raw) == event


def test_a_line_of_megabytes_in_small_chunks_costs_linear_time() -> None:
    splitter = FrameSplitter()
    started = time.process_time()
    for _ in range(8000):
        assert splitter.feed(b"x" * 1000) == []
    (frame,) = splitter.feed(b"\r\n\r\nrest")
    assert len(frame) == 8_000_004
    assert time.process_time() - started < 3


class Counting(bytearray):
    """Counts the bytes that are looked at in search of something."""

    looked_at = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        end = len(self) if end is None else end
        found = super().find(sub, start, end)
        self.looked_at += (end if found < 0 else found) - start
        return found


@pytest.mark.parametrize("rare", [b"", b"data: y\r\n\r\n"])
def test_many_frames_in_one_chunk_cost_time_linear_in_their_bytes(rare: bytes) -> None:
    body = b"data: x\n\n" * 5000 + rare + b"data: x\n\n" * 5000
    splitter = FrameSplitter()
    buffer = splitter._buffer = Counting()
    assert len(splitter.feed(body)) == 10_000 + bool(rare)
    assert buffer.looked_at < 5 * len(body)
