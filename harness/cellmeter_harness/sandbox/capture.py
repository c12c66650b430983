"""Output of a command, kept within a bound.

Invariant: the first bytes and the last bytes are kept whole, and what lay between is counted, so that no
output is taken for complete that is not.
"""

import asyncio
from collections import deque
from typing import Final

HEAD_BYTES: Final = 1_048_576
TAIL_BYTES: Final = 3_145_728
_READ_BYTES: Final = 65_536


class Capture:
    """The output of one stream: its head, its tail, and how many bytes were dropped between them."""

    def __init__(self, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._head_room = head_bytes
        self._tail_bytes = tail_bytes
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self.dropped = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        taken = chunk[: self._head_room - len(self._head)]
        self._head += taken
        if rest := chunk[len(taken) :]:
            self._tail.append(rest)
            self._tail_size += len(rest)
        while self._tail_size > self._tail_bytes:
            self._drop(self._tail_size - self._tail_bytes)

    def content(self) -> bytes:
        """What was kept, with a line that says what was dropped where anything was."""
        note = f"\n[{self.dropped} bytes of output dropped here]\n".encode() if self.dropped else b""
        return bytes(self._head) + note + b"".join(self._tail)

    def text(self) -> str:
        """The content as text; bytes that are not UTF-8 are replaced."""
        return self.content().decode("utf-8", "replace")

    async def drain(self, reader: asyncio.StreamReader) -> None:
        """Take a stream to its end."""
        while chunk := await reader.read(_READ_BYTES):
            self.feed(chunk)

    def _drop(self, size: int) -> None:
        first = self._tail.popleft()
        if len(first) > size:
            self._tail.appendleft(first[size:])
        gone = min(size, len(first))
        self._tail_size -= gone
        self.dropped += gone
