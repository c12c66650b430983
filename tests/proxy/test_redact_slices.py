"""Large data is looked through a slice at a time, and what is found is what a look at all of it at once finds."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cellmeter_proxy.redact import Redactor, mask
from cellmeter_proxy.redact.slices import SLICE, find, slices

GIVEN = ("hunter22", 'pa"ss,wo', "A1/" * 60)
KEYS = (
    b"sk-ant-" + b"a1B2" * 5,
    b"cm-" + b"a1B2" * 4,
    b"github_pat_" + b"Z9" * 11,
    b"xoxb-" + b"12345" * 2,
    b"AIza" + b"a1B2c" * 7,
    b"eyJ" + b"a" * 10 + b".eyJ" + b"b" * 10 + b"." + b"c" * 10,
    b"Bearer " + b"a1" * 8,
    *(secret.encode() for secret in GIVEN),
)
PARTS = (*KEYS, b"sk-", b"cm-", b"-", b"eyJ", b".eyJ", b"a", b"1", b" ", b'"', b"\\n", b"\xff", b"a1B2" * 40)
MANY = 10**9


@given(st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join), st.integers(1, 300))
@settings(max_examples=600, deadline=None)
def test_what_is_found_slice_by_slice_is_what_is_found_at_once(data: bytes, size: int) -> None:
    redactor = Redactor(GIVEN)
    with pytest.MonkeyPatch.context() as patch:
        found = {}
        for slice_size in (size, MANY):
            patch.setattr("cellmeter_proxy.redact.slices.SLICE", slice_size)
            patch.setattr("cellmeter_proxy.redact.secrets.SLICE", slice_size)
            found[slice_size] = (redactor.spans(data), redactor.has_none(data, data))
    assert found[size] == found[MANY]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("filler", [b" ", b"+"])
def test_a_key_is_masked_wherever_it_stands_across_a_border(key: bytes, filler: bytes) -> None:
    redactor = Redactor(GIVEN)
    ((start, end),) = redactor.spans(b"  " + key)
    for at in range(SLICE - len(key) - 80, SLICE + 3, 9):
        data = filler * at + key + b'"' * SLICE
        assert redactor.spans(data) == [(at + start - 2, at + end - 2)]


@given(st.lists(st.sampled_from([b"ab", b"a", b"-"]), max_size=40).map(b"".join), st.integers(0, 50))
def test_a_text_is_found_where_bytes_find_it(data: bytes, start: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for size in (1, 3, 8):
            patch.setattr("cellmeter_proxy.redact.slices.SLICE", size)
            for text in (b"a", b"ab-", b"-abab"):
                assert find(data, text, start) == data.find(text, start)
            assert b"".join(part[:size] for part in slices(data, 4)) == data


@pytest.mark.parametrize("part", [b"sk-", b"cm-", b"eyJ-", b"eyJabcdefghij-", b"eyJaaaaaaaaaaaa.", b"Bearer ", b"xox-"])
def test_what_looks_like_keys_and_is_none_takes_no_longer_than_it_is_long(part: bytes) -> None:
    data = part * 100_000
    began = time.thread_time()
    Redactor().spans(data)
    assert time.thread_time() - began < 2


TRAPS = st.sampled_from([b"sk-", b"sk-proj-", b"cm-", b"eyJ", b".eyJ", b".", b"a" * 10, b"_", b"1", b"a1" * 10, b" "])


@given(st.lists(TRAPS, max_size=16).map(b"".join))
@example(b"eyJaaaaaaaaaa.1." + KEYS[5])
@example(b"sk-aaaaaaa.sk-" + b"a1" * 10)
@settings(max_examples=600)
def test_what_is_passed_over_holds_no_key(data: bytes) -> None:
    start = rb"(?<![A-Za-z0-9])"
    shapes = (
        start + rb"sk-(?:proj-)?()(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}",
        start + rb"cm-()(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{16,}",
        start + rb"eyJ()[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    )
    out = bytearray(data)
    for match in (match for shape in shapes for match in re.finditer(shape, data)):
        out[match.end(1) : match.end()] = b"*" * (match.end() - match.end(1))
    assert Redactor().bytes(data)[0] == bytes(out)


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=8, unique=True))
def test_masking_replaces_the_spans_and_nothing_else(data: bytes, places: list[int]) -> None:
    bounds = sorted(min(place, len(data)) for place in places)
    spans = list(zip(bounds[::2], bounds[1::2], strict=False))
    inside = {at for start, end in spans for at in range(start, end)}
    assert mask(data, spans) == bytes(ord("*") if at in inside else byte for at, byte in enumerate(data))
