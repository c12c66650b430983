"""The load: connections that send one request after another, and see when each byte comes.

    python load.py PORT CONNECTIONS CALLS BODY_BYTES

Prints one JSON object: calls, seconds, errors, p50 and p99 of a call in ms, p99 lateness of a paced frame in ms.
"""

import asyncio
import json
import re
import sys
import time
from typing import cast

MARK = "000000000000"
WORDS = str(re.__doc__).replace('"', "'")
_SENT = re.compile(rb'"t":(\d+)')


def request(size: int) -> tuple[bytes, bytes]:
    """A chat completion request with a body of about ``size`` bytes, in two halves: no two calls send the same body.

    Its text is English, so that it compresses, and is searched for secrets, like what agents send.
    """
    text = f"call {MARK} {(WORDS * (size // len(WORDS) + 1))[: max(size - 170, 10)]}"
    body = json.dumps(
        {
            "model": "bench",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": text}],
        }
    ).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer sk-bench-0123456789abcdef\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    before, _, after = (head + body).partition(MARK.encode())
    return before, after


class Caller(asyncio.Protocol):
    """One connection of the load."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._length: int | None = None
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._began:
            self._load.errors += 1
            self._load.left -= 1
            self._load.check()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._load.late += [(now - int(sent)) / 1e6 for sent in _SENT.findall(data)]
        self._buffer += data
        if self._length is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            if not head.startswith(b"http/1.1 200"):
                self._load.errors += 1
            start = head.find(b"\r\ncontent-length:")
            self._length = end + 4 + int(head[start + 17 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if (self._length and len(self._buffer) >= self._length) or (
            not self._length and self._buffer.endswith(b"0\r\n\r\n")
        ):
            self._load.took.append(time.perf_counter() - self._began)
            self._load.left -= 1
            self._began = 0.0
            self._load.check()
            self._send()

    def _send(self) -> None:
        if self._load.to_start <= 0 or self._transport is None:
            return
        self._load.to_start -= 1
        self._buffer.clear()
        self._length = None
        self._began = time.perf_counter()
        self._transport.write(self._load.next_request())


class Load:
    """All connections together."""

    def __init__(self, calls: int, body: int) -> None:
        self._request = request(body)
        self._sent = time.time_ns() % 1_000_000 * 100_000
        self.to_start = self.left = calls
        self.errors = 0
        self.took: list[float] = []
        self.late: list[float] = []
        self.done = asyncio.Event()

    def next_request(self) -> bytes:
        """The next call's request, unlike all others."""
        self._sent += 1
        before, after = self._request
        return b"%b%012d%b" % (before, self._sent, after)

    def check(self) -> None:
        """Note the end of the last call."""
        if self.left <= 0:
            self.done.set()


def percentile(values: list[float], share: float) -> float | None:
    """The value that ``share`` of the values do not exceed; None of none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else None


async def main(port: int, connections: int, calls: int, body: int) -> None:
    """Make the calls and print what they took."""
    load = Load(calls, body)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Caller(load), "127.0.0.1", port)
    async with asyncio.timeout(180):
        await load.done.wait()
    took = [one * 1000 for one in load.took]
    print(
        json.dumps(
            {
                "calls": len(took),
                "seconds": time.perf_counter() - began,
                "errors": load.errors,
                "p50": percentile(took, 0.5),
                "p99": percentile(took, 0.99),
                "late_p99": percentile(load.late, 0.99),
                "frames": len(load.late),
            }
        )
    )


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(*map(int, sys.argv[1:5])))
