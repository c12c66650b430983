"""One call while it lasts: what came in, what is known of it so far, and the row that is being written."""

import asyncio
import time
from contextlib import ExitStack

from aiohttp import web
from msgspec import Struct

from cellmeter_proxy.http_message import Request, Response
from cellmeter_proxy.record import Attempt, Call
from cellmeter_proxy.recording import Answer
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.transfer import below_chunked
from cellmeter_proxy.writing import Opening


class Exchange(Struct):
    """One call while it lasts."""

    request: Request
    body: bytes
    """Exactly as received."""
    call: Call
    """The row as it stands in the log, once it has been opened."""
    redactor: Redactor
    began: float
    opening: Opening
    asking: bytes | None = None
    """What goes to the provider instead of the body, so that its stream reports usage."""
    attempts: list[Attempt] = []
    client_gone_at: int | None = None
    response: Response | None = None
    """The answer to the client, once its head has been released."""
    answer: Answer | None = None
    """The provider's answer, as far as it has come."""
    early: Response | None = None
    """The answer to the client, where its head was released before the provider had answered."""
    queue_ms: float | None = None
    """How long the call was held back before its first try."""
    followers: int = 0
    """How many clients have joined this call after its own had left."""
    attached_to: str | None = None
    """The call that this one has joined."""
    closing: tuple[Call, Answer | None] | None = None
    """What the row is being closed with."""
    closed: bool = False
    """The row is closed and committed."""
    _ends: ExitStack | None = None

    @property
    def awaited(self) -> bool:
        """Somebody still waits for the answer."""
        return self.client_gone_at is None or self.followers > 0

    @property
    def ends(self) -> ExitStack:
        """What ends with the call."""
        if self._ends is None:
            self._ends = ExitStack()
        return self._ends

    def end(self) -> None:
        """The call is over."""
        if self._ends is not None:
            self._ends.close()

    def ms(self) -> float:
        """Milliseconds since the whole request had been received."""
        return (time.perf_counter() - self.began) * 1000

    async def opened(self) -> Call:
        """The row as written, after its commit. Whoever waits may be cancelled; the row may not."""
        self.call = await self.opening
        return self.call


class Upload(Struct):
    """The body of a request as it came."""

    chunks: list[bytes] = []
    trouble: Exception | None = None
    """Why it is not whole."""

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def take(self, request: Request) -> bool:
        """Take a body that came with the head; False where it is to be received."""
        if request.body is None:
            return False
        self.chunks.append(request.body)
        return True

    async def receive(self, request: Request, silence_s: float) -> None:
        """Read the whole body as it comes, or as much of it as does."""
        applied = below_chunked(request.headers)
        if applied is not None:
            self.trouble = web.RequestPayloadError(f"its transfer coding is not known here: {applied[:100]}")
            return
        try:
            if request.content.is_eof():
                self.chunks.append(request.content.read_nowait())
                return
            request.invite_body()
            async with asyncio.timeout(silence_s) as patience:
                async for chunk in request.content.iter_any():
                    self.chunks.append(chunk)
                    patience.reschedule(asyncio.get_running_loop().time() + silence_s)
        except (TimeoutError, ConnectionError, web.RequestPayloadError) as error:
            self.trouble = error
