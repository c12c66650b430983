"""Requests that are no HTTP: the server answers them before a handler of ours sees them, and still they leave a row.

aiohttp tells its access log of every answer, also of those that it gives itself; that is where they are seen.
"""

import asyncio
import logging

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from cellmeter_proxy.http_server import UNREAD
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import UNREADABLE, Call, new_id, now_us
from cellmeter_proxy.writer import LogWriter


def unreadable_requests(writer: LogWriter, writer_name: str, upstream: str) -> type[AbstractAccessLogger]:
    """The access log class that gives a row to every request that could not be read, and no word to any other."""

    class Unreadable(AbstractAccessLogger):
        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            if request.method == UNREAD and not request.raw_headers:
                ended_at = now_us()
                call = Call(
                    call_id=new_id(),
                    session=UNREADABLE,
                    writer=writer_name,
                    state="closed",
                    method=UNREAD,
                    upstream=upstream,
                    status=response.status,
                    outcome="rejected",
                    error="what came is not HTTP",
                    started_at=ended_at - round(time * 1e6),
                    ended_at=ended_at,
                )
                writer.submit(lambda: call, Log.open_call).add_done_callback(_noted)

    return Unreadable


def _noted(row: "asyncio.Future[int]") -> None:
    # The client has its answer, a refusal, and is owed nothing more; a log that fails is told of by the next call.
    if not row.cancelled() and row.exception() is not None:
        logging.getLogger("cellmeter").warning("a request that is not HTTP could not be recorded")
