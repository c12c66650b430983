import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.record import Call, Reported
from cellmeter_scoring.reconcile import meant_by, printed_as, reconcile
from cellmeter_scoring.testing import make_call, make_cell, make_failed_call


def agreement(prompt: int, *calls: Call) -> str:
    (line,) = reconcile(make_cell(reported=Reported(prompt_tokens=prompt)), calls)
    return line.agreement


@pytest.mark.parametrize(
    ("printed", "low", "high"),
    [
        (1300, 1250, 1349),
        (606, 606, 606),
        (1234, 1234, 1234),
        (12_000, 11_500, 12_499),
        (10_500, 10_450, 10_549),
        (1_200_000, 1_150_000, 1_249_999),
        (1_234_000, 1_233_500, 1_234_499),
    ],
)
def test_a_rounded_number_means_a_range(printed: int, low: int, high: int) -> None:
    assert meant_by(printed) == (low, high)


@given(st.integers(0, 2_000_000))
def test_what_an_agent_prints_means_what_it_counted_give_or_take_a_tie(count: int) -> None:
    low, high = meant_by(printed_as(count))
    assert low - 1 <= count <= high + 1


def test_a_total_within_the_rounding_agrees() -> None:
    assert agreement(1300, make_call("a", prompt_tokens=1349)) == "agrees"
    assert agreement(1300, make_call("a", prompt_tokens=1350)) == "differs"


@pytest.mark.parametrize(("printed", "first", "second"), [(1400, 700, 750), (10_000, 5000, 5500), (12_000, 6000, 6450)])
def test_a_total_that_is_rounded_as_floats_are_agrees(printed: int, first: int, second: int) -> None:
    """``f"{1.45:.1f}"`` is 1.4, ``round(10.5)`` is 10."""
    calls = [make_call("a", 1, prompt_tokens=first), make_call("b", 3, prompt_tokens=second)]
    assert agreement(printed, *calls) == "agrees"
    assert agreement(printed + 1, *calls) == "differs"


def test_a_sum_of_numbers_rounded_one_by_one_agrees() -> None:
    calls = [make_call("a", 1, prompt_tokens=1349), make_call("b", 3, prompt_tokens=1440)]
    assert agreement(1300 + 1400, *calls) == "agrees"


def test_an_agent_that_prints_its_last_call_only_is_found_out() -> None:
    calls = [make_call("a", 1, prompt_tokens=1255), make_call("b", 3, prompt_tokens=1440)]
    assert agreement(1400, *calls) == "last call only"


def test_a_refused_call_has_nothing_to_reconcile() -> None:
    assert agreement(1000, make_failed_call("a", 1, 429), make_call("b", 3)) == "agrees"


def test_where_a_call_has_no_count_nobody_can_tell() -> None:
    blind = make_call("a", 1, prompt_tokens=None, usage_source="none")
    assert agreement(5000, blind, make_call("b", 3)) == "unknown"


def test_an_agent_that_printed_nothing_has_no_line() -> None:
    assert reconcile(make_cell(), [make_call("a")]) == []
    assert reconcile(make_cell(reported=Reported(completion_tokens=None)), [make_call("a")]) == []
