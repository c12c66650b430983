"""``/_cellmeter/health``: whether calls can be recorded now, which is whether they are served."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec

from cellmeter_proxy.http_message import Reply
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import new_id
from cellmeter_proxy.writer import LogUnwritableError, LogWriter

_PATIENCE_S: Final = 5.0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, as JSON; its status is 200 where all is well and 503 where calls would be refused."""

    status: Literal["ok", "failing"]
    log_writable: bool
    open_calls: int
    """Calls that are being relayed now."""
    error: str | None = None


def health(writer: LogWriter, open_calls: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[Reply]]:
    """The handler."""

    async def handle() -> Reply:
        error = await _why_unwritable(writer)
        found = Health(
            status="ok" if error is None else "failing",
            log_writable=error is None,
            open_calls=await open_calls(),
            error=error,
        )
        status = 200 if error is None else 503
        return Reply(status, msgspec.json.encode(found), b"application/json", x_request_id=new_id())

    return handle


async def _why_unwritable(writer: LogWriter) -> str | None:
    """Only a write proves that the log can be written: of what is there already, so that nothing changes."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await writer.read(_write_the_same)
    except LogUnwritableError as error:
        return error.message
    except TimeoutError:
        return f"the log did not take a write within {_PATIENCE_S:g} s"
    return None


def _write_the_same(log: Log) -> None:
    log.conn.execute("UPDATE meta SET value = value WHERE key = 'schema_version'")
