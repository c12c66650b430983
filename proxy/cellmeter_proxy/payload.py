"""A request body that is already in memory, as aiohttp's client takes it."""

import select
from typing import Final

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

_HANG_UP: Final = sum(getattr(select, name, 0) for name in ("POLLHUP", "POLLERR", "POLLRDHUP"))


class PeerHungUpError(Exception):
    """The other side had closed the connection before anything of the request was written to it."""


class WholeBody(Payload):
    """Bytes, written as they are, unless the other side has hung up already.

    aiohttp's own class for bytes warns above 1 MiB, which agents pass every day, and names a content type.
    aiohttp holds the head back until the first bytes of the body, so that ``begun`` tells of the whole request.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._size = len(body)
        self._body = body
        self.begun = False
        """Something of the request may have left this process."""

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body.

        Raises:
            PeerHungUpError: the other side had closed the connection; nothing was written.

        """
        if _has_hung_up(writer):
            raise PeerHungUpError
        self.begun = True
        await writer.write(self._body)


def _has_hung_up(writer: AbstractStreamWriter) -> bool:
    """Whether the end of the connection has arrived, even where the event loop has not come to see it (poll(2))."""
    transport = writer.transport
    if transport is None or transport.is_closing():
        return True
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _HANG_UP)
    return bool(poll.poll(0))
