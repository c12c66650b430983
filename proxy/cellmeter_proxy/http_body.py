"""The body of a provider's answer as it arrives, in as many pieces as there are.

A piece is given, in the callback of the event loop that brought it, to whoever waits for it: a token of a stream need
not wait for a task to be woken. Invariant: every piece is taken once, in order; what is not taken at once waits here,
and when that is much, the provider is held back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import aiohttp

Take = Callable[[bytes], bool]
"""Takes a piece of a body the moment it arrives; False where there is more to do for it than can be done at once."""

_MAX_WAITING: Final = 128 * 1024


async def each_of(chunks: AsyncIterator[bytes], take: Take) -> AsyncIterator[None]:
    """Have pieces taken that an iterator gives; yields for each that ``take`` left (see ``ArrivingBody.each``)."""
    async for chunk in chunks:
        if not take(chunk):
            yield


class ProviderLine(Protocol):
    """What an answer asks of the connection that it comes over."""

    def listen(self) -> None:
        """Count the provider's silence from now on."""

    def be_patient(self) -> None:
        """Count it no longer."""

    def hold(self) -> None:
        """Read nothing more for now."""

    def go_on(self) -> None:
        """Read on."""

    def done(self, *, keep: bool) -> None:
        """The answer has ended. ``keep``: its provider takes another request on the same connection."""

    def close(self) -> None:
        """End the connection."""


class ArrivingBody:
    """A body that comes over a connection. Whoever fills it puts pieces in with ``on_body``, and then tells.

    Args:
        line: the connection.
        loop: the event loop that runs.

    """

    __slots__ = ("_error", "_is_held", "_line", "_loop", "_pieces", "_take", "_waiter", "is_whole", "on_body")

    def __init__(self, line: ProviderLine, loop: asyncio.AbstractEventLoop) -> None:
        self.is_whole = False
        """Nothing of the body is still to come."""
        self._line: ProviderLine | None = line
        self._loop = loop
        self._error: Exception | None = None  # why no more of the body comes
        self._pieces: list[bytes] = []
        self._is_held = False
        self._take: Take | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self.on_body = self._pieces.append

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece as it arrives.

        Raises:
            TimeoutError: the provider fell silent.
            aiohttp.ClientError: it broke off.

        """
        taken: list[bytes] = []

        def take(piece: bytes) -> bool:
            taken.append(piece)
            return False

        async for _ in self.each(take):
            yield taken.pop()

    async def each(self, take: Take) -> AsyncIterator[None]:
        """Have the body taken piece by piece as it arrives; the iterator yields for each piece that ``take`` left.

        Nothing more is taken until the iterator is asked on.

        Raises:
            TimeoutError: the provider fell silent.
            aiohttp.ClientError: it broke off.

        """
        while await self._left(take):
            yield

    def take_all(self) -> bytes:
        """What has come of the body and was not taken."""
        return self._joined() if self._pieces else b""

    async def _left(self, take: Take) -> bool:
        """Wait until a piece was not taken; False at the end of the body."""
        if self._pieces and not take(self._joined()):
            return True
        if self._error is not None:
            raise self._error
        if self.is_whole:
            return False
        line = self._line
        if line is None:
            raise aiohttp.ClientPayloadError("the answer was closed")
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._take, self._waiter = take, waiter
        line.listen()
        try:
            return await waiter
        finally:
            self._take = self._waiter = None
            if self._line is not None:
                # A client that is slow to take a piece is not the provider's silence.
                self._line.be_patient()

    def _joined(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._is_held and self._line is not None:
            self._is_held = False
            self._line.go_on()
        return data

    def _tell(self) -> None:
        """Have what has come taken, or its end noticed, where somebody waits for it."""
        take, waiter = self._take, self._waiter
        if take is None or waiter is None:
            self._hold_if_much()
            return
        if waiter.done():
            return
        try:
            if self._pieces and not take(self._joined()):
                self._take = None
                waiter.set_result(True)
            elif self._error is not None:
                waiter.set_exception(self._error)
            elif self.is_whole:
                waiter.set_result(False)
        except Exception as error:  # noqa: BLE001 - goes to whoever waits
            waiter.set_exception(error)

    def _hold_if_much(self) -> None:
        line = self._line
        if line is not None and not self._is_held and sum(map(len, self._pieces)) > _MAX_WAITING:
            self._is_held = True
            line.hold()

    def _stop(self) -> None:
        """Take no more pieces: where the parser goes on, it is with something else."""
        self._pieces = self._pieces[:]
