"""The provider of the benchmark: canned answers over raw sockets, so that it costs next to nothing.

    python provider.py json|burst|paced

Prints its port. A paced frame carries the moment it was sent (CLOCK_MONOTONIC, nanoseconds), so that the load
generator on the same machine can tell how late it arrived.
"""

import asyncio
import sys
import time
from typing import cast

FRAMES = 67
PACE_S = 0.020
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MARK = b"000000000000"
JSON_BODY = (
    b'{"id":"chatcmpl-' + MARK + b'","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"' + b"benchmark " * 105 + b'"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1400,"completion_tokens":210,"total_tokens":1610}}'
)
JSON_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(JSON_BODY) + JSON_BODY
).partition(MARK)
FINISH = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1400,"completion_tokens":66,"total_tokens":1466}}\n\n'
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def frame(number: int) -> bytes:
    """A token, with the moment it is sent."""
    return (
        b'data: {"id":"c","object":"chat.completion.chunk","model":"bench","t":%d,"choices":[{"index":0,"delta":'
        b'{"content":"token%d "}}]}\n\n' % (time.monotonic_ns(), number)
    )


class Provider(asyncio.Protocol):
    """One connection: reads whole requests, answers each in the mode that was chosen."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._buffer = bytearray()
        self._need = 0
        self._given = time.time_ns() % 1_000_000 * 1_000
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._take():
            self._answer()

    def _take(self) -> bool:
        """Whether a whole request is there; takes it out."""
        if not self._need:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self._buffer[:end]).lower()
            start = head.find(b"\r\ncontent-length:")
            length = int(head[start + 17 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            self._need = end + 4 + length
        if len(self._buffer) < self._need:
            return False
        del self._buffer[: self._need]
        self._need = 0
        return True

    def _answer(self) -> None:
        assert self._transport is not None
        if self._mode == "json":
            # No two answers of a provider are alike, and a recorder stores what is alike only once.
            self._given += 1
            before, _, after = JSON_ANSWER
            self._transport.write(b"%b%012d%b" % (before, self._given, after))
        elif self._mode == "burst":
            frames = b"".join(chunk(frame(n)) for n in range(FRAMES))
            self._transport.write(HEAD + frames + chunk(FINISH) + chunk(USAGE) + chunk(DONE) + b"0\r\n\r\n")
        else:
            self._transport.write(HEAD)
            self._next(0)

    def _next(self, number: int) -> None:
        if self._transport is None:
            return
        if number == FRAMES:
            self._transport.write(chunk(FINISH) + chunk(USAGE) + chunk(DONE) + b"0\r\n\r\n")
            return
        self._transport.write(chunk(frame(number)))
        asyncio.get_running_loop().call_later(PACE_S, self._next, number + 1)


async def main(mode: str) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(lambda: Provider(mode), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1]))
