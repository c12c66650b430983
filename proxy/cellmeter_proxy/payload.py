"""A request body that is already in memory, as aiohttp's client takes it."""

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload


class WholeBody(Payload):
    """Bytes, written as they are.

    aiohttp's own class for bytes warns above 1 MiB, which agents pass every day, and names a content type.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._size = len(body)
        self._body = body

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await writer.write(self._body)
