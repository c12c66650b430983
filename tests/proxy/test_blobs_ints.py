"""Whole numbers as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.blobs.ints import Cursor, column, number


@pytest.mark.parametrize(
    ("value", "written"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (624485, b"\xe5\x8e\x26")]
)
def test_a_number_is_written_as_leb128(value: int, written: bytes) -> None:
    assert number(value) == written
    assert Cursor(written).number() == value


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([], b"\x00\x01"),
        ([1, 2, 255], b"\x03\x01\x01\x02\xff"),
        ([1, 0x0302], b"\x02\x02\x01\x02\x00\x03"),
        ([1 << 24], b"\x01\x04\x00\x00\x00\x01"),
    ],
)
def test_a_column_has_its_lowest_bytes_first(values: list[int], written: bytes) -> None:
    assert column(values) == written
    assert Cursor(written).column() == tuple(values)


@given(st.lists(st.integers(0, 2**64 - 1)), st.integers(0, 2**80))
def test_what_is_written_is_read_again_and_no_further(values: list[int], value: int) -> None:
    cursor = Cursor(number(value) + column(values) + b"rest")
    assert (cursor.number(), cursor.column(), cursor.take(4)) == (value, tuple(values), b"rest")


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x05\x01abcd", b"\x01\x03abc", b"\x01\x00"])
def test_bytes_that_break_off_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"breaks off|should follow|bytes wide"):
        Cursor(data).column()
