"""Work that must be done is done, and the cancellation is delivered afterwards."""

import asyncio

import pytest

from cellmeter_harness.uninterrupted import uninterrupted


async def test_the_result_is_that_of_the_work() -> None:
    async def work() -> int:
        return 3

    assert await uninterrupted(work()) == 3


async def test_a_cancelled_caller_waits_for_the_work_and_is_cancelled_then() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    done = []

    async def work() -> None:
        begun.set()
        await may_end.wait()
        done.append(1)

    caller = asyncio.create_task(uninterrupted(work()))
    await begun.wait()
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    assert not caller.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done == [1]


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await uninterrupted(work())
