"""Signals while a command's event loop runs, and while it ends."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from cellmeter_harness.cli.aio import run_async


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_what_runs_and_lets_it_complete_its_rows(number: signal.Signals) -> None:
    done: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            done.append("rows")

    with pytest.raises(KeyboardInterrupt):
        run_async(main())
    assert done == ["rows"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_the_loop_ends_is_not_lost(number: signal.Signals) -> None:
    ended = asyncio.Event()

    async def left_over() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
            ended.set()

    one = left_over()

    async def main() -> int:
        return await anext(one)

    with pytest.raises(KeyboardInterrupt):
        run_async(main())
    assert ended.is_set()


def test_what_a_command_handles_itself_stops_nothing() -> None:
    received: list[signal.Signals] = []

    async def main() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        while not received:
            await asyncio.sleep(0)
        return 7

    def deliver(number: signal.Signals) -> bool:
        received.append(number)
        return True

    assert run_async(main(), deliver) == 7
    assert received == [signal.SIGTERM]
