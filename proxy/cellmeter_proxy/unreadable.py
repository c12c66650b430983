"""Requests that are no HTTP: the server answers them before a handler sees them, and still they leave a row."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from cellmeter_proxy.http_message import Reply
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import UNREADABLE, Call, new_id, now_us
from cellmeter_proxy.replies import error_reply
from cellmeter_proxy.writer import LogWriter

_METHOD: Final = "UNKNOWN"
_STATUS: Final = 400
_logger: Final = logging.getLogger("cellmeter")


def refusing(writer: LogWriter, writer_name: str, upstream: str) -> Callable[[str], Reply]:
    """What gives a row and an answer to every request that could not be read (see ``http_server.Server``)."""

    def refuse(kind: str) -> Reply:
        # Not with which bytes: they may hold a key.
        _logger.warning("a request is not valid HTTP: %s", kind)
        now = now_us()
        call = Call(
            call_id=new_id(),
            session=UNREADABLE,
            writer=writer_name,
            state="closed",
            method=_METHOD,
            upstream=upstream,
            status=_STATUS,
            outcome="rejected",
            error="what came is not HTTP",
            started_at=now,
            ended_at=now,
        )
        writer.submit(lambda: call, Log.open_call).add_done_callback(_noted)
        return error_reply(
            "unknown",
            _STATUS,
            "what came is not HTTP",
            type_="invalid_request_error",
            code="malformed_request",
            request_id=call.call_id,
        )

    return refuse


def _noted(row: "asyncio.Future[int]") -> None:
    # The client has its answer, a refusal, and is owed nothing more; a log that fails is told of by the next call.
    if not row.cancelled() and row.exception() is not None:
        _logger.warning("a request that is not HTTP could not be recorded")
