"""The scripted provider's server: takes a request, has it decided, sends the plan, keeps the ledger.

Invariant: a request is in the ledger before the first byte of its answer; ``ledger[n - 1].n == n``.
"""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aiohttp import web
from msgspec.structs import replace

from cellmeter_proxy.scripted.asked import dialect_of
from cellmeter_proxy.scripted.desk import Desk, RateLimit
from cellmeter_proxy.scripted.ledger import Served, ServedOutcome
from cellmeter_proxy.scripted.plan import Plan
from cellmeter_proxy.scripted.script import Script

MAX_BODY = 1 << 30


class ScriptedProvider:
    """An OpenAI-compatible provider on this machine.

    Use it as an async context manager; ``url`` holds while it runs, ``ledger`` stays.

    Args:
        scripts: tried in order; a request that none matches is answered 404 with ``model_not_found``.
        key: the API key that is asked for, as a bearer token or ``x-api-key``; None asks for none.
        limit: how many requests it takes.
        models: what ``/v1/models`` lists beside the models that scripts name.
        host: the address to listen on.
        port: 0 takes a free one.

    """

    def __init__(
        self,
        scripts: Sequence[Script],
        *,
        key: str | None = None,
        limit: RateLimit | None = None,
        models: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.ledger: list[Served] = []
        self._desk = Desk(scripts, key=key, limit=limit, models=models)
        self._host, self._port = host, port
        self._runner = self._make_runner()

    @property
    def root(self) -> str:
        """The address without ``/v1``, as Anthropic's clients want it."""
        return f"http://{self._host}:{self._port}"

    @property
    def url(self) -> str:
        """The address as OpenAI's clients want it."""
        return f"{self.root}/v1"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def _make_runner(self) -> web.AppRunner:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._serve)
        # Handlers are cancelled when their client goes, so that the ledger can say so.
        return web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        arrived = _arrived(request, await request.read(), n=len(self.ledger) + 1)
        served, plan = self._desk.decide(arrived, now=time.monotonic())
        self.ledger.append(served)
        response = _response(served, plan)
        try:
            await self._send(request, response, served, plan)
        except ConnectionError:
            self._client_gone(served, plan)
        except asyncio.CancelledError:
            self._client_gone(served, plan)
            raise
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, served: Served, plan: Plan) -> None:
        if plan.headers_first:
            await response.prepare(request)
        await asyncio.sleep(plan.first_byte_ms / 1000)
        if plan.frames or plan.ending != "hang":
            await response.prepare(request)
        for i, frame in enumerate(plan.frames):
            if i:
                await asyncio.sleep(plan.frame_ms / 1000)
            await response.write(frame)
            self._note(served, frames=i + 1)
        if plan.ending == "hang":
            await asyncio.Event().wait()
        if plan.ending == "cut" and request.transport is not None:
            # Closed without the end that the headers promise; an abort could lose frames already sent.
            request.transport.close()

    def _client_gone(self, served: Served, plan: Plan) -> None:
        """Who leaves after the last frame has had the answer; who leaves one that hangs was meant to."""
        if self.ledger[served.n - 1].frames < len(plan.frames):
            self._note(served, outcome="client_gone")

    def _note(self, served: Served, *, frames: int | None = None, outcome: ServedOutcome | None = None) -> None:
        row = self.ledger[served.n - 1]
        self.ledger[served.n - 1] = replace(
            row, frames=row.frames if frames is None else frames, outcome=outcome or row.outcome
        )


def _arrived(request: web.Request, body: bytes, *, n: int) -> Served:
    retries = request.headers.get("x-stainless-retry-count", "")
    return Served(
        n=n,
        method=request.method,
        path=request.path,
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers),
        body=body,
        dialect="models" if request.path.startswith("/v1/models") else dialect_of(request.path),
        retry_number=int(retries) if retries.isdecimal() else None,
        request_id=f"req_{n:024d}",
    )


def _response(served: Served, plan: Plan) -> web.StreamResponse:
    response = web.StreamResponse(status=plan.status)
    response.headers["Content-Type"] = plan.content_type
    response.headers["x-request-id"] = served.request_id
    response.headers.extend(plan.headers)
    if plan.content_length is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = plan.content_length
    return response
