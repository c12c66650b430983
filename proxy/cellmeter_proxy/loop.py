"""The event loop that this project's processes run on: uvloop's where it is installed."""

import asyncio
import importlib.util
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """For ``asyncio.Runner``; None has it use asyncio's own."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop  # noqa: PLC0415 - an extra, and only worth its import where a loop is run

    return uvloop.new_event_loop
