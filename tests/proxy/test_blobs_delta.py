"""What a text has in common with an older one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.blobs.delta import Copy, common_prefix, common_suffix, diff

OLD = b"".join(b"line %d of what was said before;" % number for number in range(400))


def rebuilt(old: bytes, new: bytes, copies: list[Copy]) -> bytes:
    """The newer text from the stretches and what stands between them; each stretch is checked against both."""
    out, at = b"", 0
    for copy in copies:
        assert copy.at >= at
        assert copy.size > 0
        out += new[at : copy.at] + old[copy.source : copy.source + copy.size]
        at = copy.at + copy.size
    return out + new[at:]


def copied(old: bytes, new: bytes) -> int:
    copies = diff(old, new)
    assert rebuilt(old, new, copies) == new
    return sum(copy.size for copy in copies)


def test_a_history_with_a_message_put_in_before_its_end_is_two_copies() -> None:
    new = OLD[:9000] + b"NEW MESSAGE" + OLD[9000:]
    assert diff(OLD, new) == [Copy(0, 0, 9000), Copy(9011, 9000, len(OLD) - 9000)]


@pytest.mark.parametrize(
    ("new", "written_out"),
    [
        pytest.param(OLD, 0, id="the same"),
        pytest.param(b"12:00:01" + OLD + b"more", 12, id="something before and after"),
        pytest.param(OLD[:50] + b"#" + OLD[51:7000] + b"#" + OLD[7001:9000] + b"new" + OLD[9000:], 5, id="edits"),
        pytest.param(OLD[:300] + b"[left out]" + OLD[5000:] + b"new", 13, id="something left out"),
        pytest.param(OLD[2000:], 0, id="the beginning left out"),
    ],
)
def test_what_an_agent_does_to_its_history_is_found(new: bytes, written_out: int) -> None:
    assert len(new) - copied(OLD, new) <= written_out + 40


def test_texts_that_share_nothing_have_no_stretches() -> None:
    assert diff(b"a" * 1000, b"b" * 900) == []
    assert diff(b"", OLD) == diff(OLD, b"") == diff(b"", b"") == []


@given(st.binary(max_size=400), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 90), st.binary(max_size=60))))
def test_any_text_is_rebuilt_from_any_other(seed: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    old = seed * 5
    new = old
    for at, gone, put in edits:
        new = new[:at] + put + new[at + gone :]
    copied(old, new)
    copied(new, old)
    copied(seed, new)


@given(st.binary(max_size=9), st.integers(0, 900), st.binary(max_size=9), st.binary(max_size=9))
def test_equal_ends_are_counted_to_the_byte(one: bytes, size: int, two: bytes, three: bytes) -> None:
    shared = one * size
    expected = 0
    while expected < min(len(two), len(three)) and two[expected] == three[expected]:
        expected += 1
    assert common_prefix(shared + two, shared + three) == len(shared) + expected
    left, right = two[::-1] + shared, three[::-1] + shared
    assert common_suffix(left, right, min(len(left), len(right))) == len(shared) + expected
    assert common_suffix(left, right, len(shared) // 2) == len(shared) // 2


@given(st.integers(0, 20_000), st.integers(0, 20_000), st.integers(0, 3000))
def test_a_byte_that_differs_is_found_wherever_it_stands(before: int, after: int, most: int) -> None:
    old, new = b"a" * before + b"x" + b"a" * after, b"a" * before + b"y" + b"a" * after
    assert common_prefix(old, new) == before
    assert common_prefix(old, new, most=most) == min(before, most)
    assert common_prefix(old, new, before // 2, before // 3) == before - before // 2
    assert common_suffix(old, new, len(old)) == after
    assert common_suffix(old, new, min(most, len(old))) == min(after, most)
