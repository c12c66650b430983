"""Timelines as columns."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.blobs.arrivals import pack, timeline, unpack
from cellmeter_proxy.blobs.ints import Cursor, column, number


def test_a_timeline_is_json_to_a_tenth_of_a_millisecond() -> None:
    content = b"[[0.0,3],[12.3,100],[70.0,1]]"
    assert timeline([0.04, 12.3499, 70.0], [3, 100, 1]) == (content, pack(content))
    assert timeline([], []) == (b"[]", pack(b"[]"))


@given(st.lists(st.tuples(st.floats(0, 1e8), st.integers(0, 2**33)), max_size=60))
def test_a_timeline_is_taken_apart_on_the_way_as_it_would_be_later(chunks: list[tuple[float, int]]) -> None:
    times = sorted(at for at, _ in chunks)
    content, packed = timeline(times, [size for _, size in chunks])
    assert packed == pack(content)


def test_a_timeline_is_its_gaps_and_its_sizes_less_what_all_frames_have() -> None:
    packed = pack(b"[[12.5,101],[20.0,103],[20.0,100],[31.7,14]]")
    assert packed is not None
    # The sizes less 13, the shortest less one.
    assert packed == number(1) + number(13) + column([125, 75, 0, 117]) + column([88, 90, 87, 1])
    assert unpack(Cursor(packed)) == b"[[12.5,101],[20.0,103],[20.0,100],[31.7,14]]"


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2**32 - 1)), max_size=60),
    st.sampled_from([0, 1, 3]),
)
def test_any_timeline_comes_back_byte_for_byte(pairs: list[tuple[int, int]], digits: int) -> None:
    times = sorted(at for at, _ in pairs)
    content = msgspec.json.encode([(at / 10**digits, size) for at, (_, size) in zip(times, pairs, strict=True)])
    packed = pack(content)
    assert packed is not None
    assert unpack(Cursor(packed)) == content


@pytest.mark.parametrize(
    "content",
    [
        b"[[1,2]]",
        b"[[1.0, 2]]",
        b"[[2.0,1],[1.0,1]]",
        b"[[1.00001,1]]",
        b"[[-1.0,1]]",
        b"[[1.0,-1]]",
        b"[[1e300,1]]",
        b"[[1.0,99999999999]]",
        b"[[1.0]]",
        b"[[",
        b'[["a",1]]',
    ],
)
def test_what_would_not_come_back_is_not_packed(content: bytes) -> None:
    assert pack(content) is None
