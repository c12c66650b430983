"""A body on its way from a provider's connection to whoever takes it, in the callback that brought it.

Invariant: every piece is taken once, in order; what is not taken at once waits in the connection's own buffer, which
holds the provider back when it is full.
"""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader

Take = Callable[[bytes], bool]
"""Takes a piece of a body the moment it arrives; False where there is more to do for it than can be done at once."""


class Protocol(ResponseHandler):
    """A connection that tells of what comes, at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.on_news: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Without data this is a part of somebody's reading, which goes on by itself.
        if data and self.on_news is not None:
            self.on_news()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's signature
        # A reader says so after every piece; only what was paused has anything to resume, which is costly.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.on_news is not None:
            self.on_news()


class Flow:
    """One body on its way from its connection to whoever takes it."""

    def __init__(self, content: StreamReader, protocol: Protocol, take: Take, silence_s: float) -> None:
        self._content = content
        self._protocol = protocol
        self._take = take
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._waiter: asyncio.Future[bool] | None = None
        self._listening: asyncio.TimerHandle | None = None

    async def left(self) -> bool:
        """Wait until a piece was not taken; False at the end of the body."""
        found = self._look()
        if found is not None:
            return found
        # Its own timer is set anew for every piece; ours once in a while.
        self._protocol.read_timeout = None
        # A client that was slow to take the last piece is not the provider's silence.
        self._heard = self._loop.time()
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter = waiter
        self._protocol.on_news = self._on_news
        self._listen()
        try:
            return await waiter
        finally:
            self._protocol.on_news = self._waiter = None
            if self._listening is not None:
                self._listening.cancel()

    def _look(self) -> bool | None:
        """Have everything taken that is there: whether something was left; None where more is to come."""
        while data := self._next():
            if not self._take(data):
                return True
        error = self._content.exception()
        if error is not None:
            raise error
        return False if self._content.at_eof() else None

    def _next(self) -> bytes:
        if self._content.exception() is None:
            return self._content.read_nowait()
        # aiohttp gives nothing more once the connection has broken, not even what came before.
        return self._content._read_nowait(-1)  # noqa: SLF001 - see above

    def _on_news(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        self._heard = self._loop.time()
        try:
            found = self._look()
        except Exception as error:  # noqa: BLE001 - goes to whoever waits
            waiter.set_exception(error)
        else:
            if found is not None:
                waiter.set_result(found)

    def _listen(self) -> None:
        left_s = self._heard + self._silence_s - self._loop.time()
        if left_s > 0:
            self._listening = self._loop.call_later(left_s, self._listen)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(aiohttp.SocketTimeoutError("nothing more of the answer came"))
