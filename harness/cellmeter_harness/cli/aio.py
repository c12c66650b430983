"""How a command runs its event loop: uvloop where it is installed, and SIGTERM handled as Ctrl-C is.

A command that runs another one may have the signals go to it.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from cellmeter_proxy.loop import loop_factory

T = TypeVar("T")
Deliver = Callable[[signal.Signals], bool]
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)
_DELIVERED: Final = (*_STOPPING, signal.SIGHUP, signal.SIGQUIT)


def run_async(main: Coroutine[Any, Any, T], deliver: Deliver | None = None) -> T:
    """Run a command's coroutine to its end.

    Ctrl-C and SIGTERM cancel it, so that its ``finally`` blocks can mark what was under way.

    Args:
        main: the coroutine.
        deliver: is given each signal first, SIGHUP and SIGQUIT too; where it returns True, nothing is cancelled.
            Signals that this process was started to ignore stay ignored then.

    Raises:
        KeyboardInterrupt: it was interrupted, or the loop was while it ended.

    """
    signals = _Signals(deliver)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            result = runner.run(signals.run(main))
    finally:
        # Where Ctrl-C came before the loop did, nothing has awaited it, which Python would complain about.
        main.close()
    if signals.stopped:
        raise KeyboardInterrupt
    return result


class _Signals:
    """What becomes of the signals that arrive while a coroutine runs."""

    def __init__(self, deliver: Deliver | None) -> None:
        self.stopped = False
        self._deliver = deliver

    async def run(self, main: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in _STOPPING if self._deliver is None else _not_ignored(_DELIVERED):
            loop.add_signal_handler(number, self._receive, number, task)
        try:
            return await task
        except asyncio.CancelledError:
            if self.stopped:
                raise KeyboardInterrupt from None
            raise

    def _receive(self, number: signal.Signals, task: "asyncio.Task[Any]") -> None:
        if self._deliver is None or not self._deliver(number):
            self.stopped = True
            task.cancel()


def _not_ignored(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
