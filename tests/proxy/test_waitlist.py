"""The order in which work is written."""

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.log import Log
from cellmeter_proxy.transact import Job
from cellmeter_proxy.waitlist import Waiting


def job(*, patient: bool) -> Job[None, None]:
    future: asyncio.Future[None] = asyncio.Future(loop=asyncio.new_event_loop())
    future.get_loop().close()
    return Job(lambda: None, nothing, future, patient=patient)


def nothing(_: Log, __: None) -> None:
    """Work that is none."""


def take(waiting: Waiting, most: int = 100) -> list[Job[None, None]]:
    return waiting.take(most, time.perf_counter() + 10)


def test_a_row_that_somebody_waits_for_is_written_before_the_ends_of_other_calls() -> None:
    waiting = Waiting()
    ends = [job(patient=False) for _ in range(3)]
    begun = job(patient=True)
    for one in (*ends, begun):
        waiting.add(one)
    assert take(waiting, 1) == ends[:1]
    waiting.make_due(begun.number)
    assert take(waiting) == [begun, *ends[1:]]


def test_a_row_that_nobody_waits_for_lets_the_others_go_first() -> None:
    waiting = Waiting()
    end, begun = job(patient=False), job(patient=True)
    waiting.add(end)
    waiting.add(begun)
    assert take(waiting) == [end]
    assert not take(waiting)


@given(st.lists(st.one_of(st.booleans(), st.none())))
def test_whatever_is_added_is_taken_once_in_its_own_order_and_after_the_rows_that_were_there(
    steps: list[bool | None],
) -> None:
    waiting, added, taken = Waiting(), list[Job[None, None]](), list[Job[None, None]]()
    number = {}
    for step in steps:
        if step is None:
            taken += take(waiting, 1)
        else:
            added.append(job(patient=step))
            waiting.add(added[-1])
            number[id(added[-1])] = len(added)
    waiting.make_due()
    taken += take(waiting, len(added) + 1)
    for kind in (True, False):
        assert [one for one in taken if one.patient is kind] == [one for one in added if one.patient is kind]
    for place, one in enumerate(taken):
        if not one.patient:
            later = [other for other in taken[place:] if other.patient]
            assert all(number[id(other)] > number[id(one)] for other in later)
