"""Work that a cancellation may not cut short: ending processes, completing rows."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end although the caller is cancelled meanwhile, then deliver the cancellation.

    Raises:
        asyncio.CancelledError: the caller was cancelled; the work has been done.
        Exception: whatever the work raises, in place of a cancellation if there was one.

    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    result = task.result()
    if cancelled:
        raise asyncio.CancelledError
    return result
