"""A client of the chaos: it speaks HTTP/1.1 by hand, so that it knows exactly what it holds when something breaks.

Invariant: a request is noted as sent before its last byte is, and never noted twice.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from benchmarks.chaos.evidence import MARK

from cellmeter_proxy.log import digest_of
from cellmeter_proxy.record import Dialect

PATHS: Final[dict[Dialect, str]] = {
    "chat.completions": "chat/completions",
    "messages": "messages",
    "responses": "responses",
}
_TERMINAL: Final[dict[Dialect, bytes]] = {
    "chat.completions": b"data: [DONE]\n\n",
    "messages": b"event: message_stop\n",
    "responses": b"event: response.completed\n",
}
_HEAD_END: Final = b"\r\n\r\n"
UNRECORDABLE: Final = "log_unwritable"
"""The code of the one answer that no row tells of."""


class Leave(Exception):  # noqa: N818 - no error, but a decision
    """The client goes away now."""


class Request(NamedTuple):
    """What to send, and how long to stay."""

    mark: str
    dialect: Dialect
    session: str
    body: bytes
    stay: int | None = None
    """Bytes of the answer's body after which to go away; None stays to the end."""


@dataclass
class Answer:
    """What came back, as far as it came."""

    status: int | None = None
    streamed: bool = False
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reusable: bool = False

    def is_complete(self, dialect: Dialect) -> bool:
        """Whether whoever has these bytes has the whole answer."""
        if self.ended or not self.streamed:
            return self.ended
        place = self.body.find(_TERMINAL[dialect])
        return place >= 0 and self.body.find(b"\n\n", place) >= 0

    def own_code(self) -> str | None:
        """The code of an error that the recorder itself made, or None where the provider answered."""
        if not self.ended or b'"cellmeter: ' not in self.body[:128]:
            return None
        error = json.loads(bytes(self.body))["error"]
        # Anthropic's form of an error has no code, so that its sentence must do.
        return UNRECORDABLE if "cannot be recorded" in error["message"] else str(error.get("code") or error["type"])

    def digest(self) -> str:
        """Of what came of the body."""
        return digest_of(bytes(self.body))


class Connection:
    """One connection to a recorder, for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect; raises OSError where nobody listens."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def ask(self, request: Request, answer: Answer) -> None:
        """Send a request and read its answer; what came stays in ``answer`` whatever happens.

        Raises:
            OSError: the connection broke.
            EOFError: it ended too early.
            Leave: the client goes away, as it was told to.

        """
        head = (
            f"POST /s/{request.session}/v1/{PATHS[request.dialect]} HTTP/1.1\r\nHost: recorder\r\n"
            f"Content-Type: application/json\r\n{MARK}: {request.mark}\r\n"
            f"Content-Length: {len(request.body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + request.body)
        await self._writer.drain()
        if request.stay == 0:
            raise Leave
        await self._read(request, answer)

    async def _read(self, request: Request, answer: Answer) -> None:
        head = (await self._reader.readuntil(_HEAD_END)).decode("latin-1").lower()
        answer.status = int(head.split(" ", 2)[1])
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        answer.streamed = "event-stream" in headers.get("content-type", "")
        answer.reusable = headers.get("connection") != "close"
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                await self._take(request, answer, size)
                await self._reader.readexactly(2)
            await self._reader.readexactly(2)
        else:
            await self._take(request, answer, int(headers["content-length"]))
        answer.ended = True

    async def _take(self, request: Request, answer: Answer, size: int) -> None:
        end = len(answer.body) + size
        while len(answer.body) < end:
            data = await self._reader.read(end - len(answer.body))
            if not data:
                raise EOFError
            answer.body += data
            if request.stay is not None and len(answer.body) >= request.stay:
                raise Leave

    def abort(self) -> None:
        """Go away without a word."""
        self._writer.transport.abort()
