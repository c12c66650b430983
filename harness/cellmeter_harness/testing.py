"""A recorder without a proxy, for tests of what runs through one: a real log file, and keys that are counted."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cellmeter_proxy.log import Log, make_blob
from cellmeter_proxy.record import Record

T = TypeVar("T")


class LogRecorder:
    """Writes to a log of its own, at once. Its address is whatever the test serves, or nothing."""

    def __init__(self, path: Path, url: str = "http://127.0.0.1:9", socket_path: Path | None = None) -> None:
        self.log = Log.create(path, durability="process")
        self.keys: dict[str, tuple[str, int]] = {}
        """Every key that was issued, with its cell and attempt."""
        self.valid: set[str] = set()
        self._url = url
        self._socket_path = socket_path

    @property
    def url(self) -> str:
        return self._url

    @property
    def socket_path(self) -> Path | None:
        return self._socket_path

    def issue_key(self, cell_id: str, attempt: int) -> str:
        key = f"cm-{len(self.keys):032d}"
        self.keys[key] = (cell_id, attempt)
        self.valid.add(key)
        return key

    def revoke_key(self, key: str) -> None:
        self.valid.discard(key)

    async def append(self, *records: Record) -> None:
        self.log.append(*records)

    async def replace(self, record: Record) -> None:
        self.log.replace(record)

    async def store(self, content: bytes) -> str:
        blob = make_blob(content)
        self.log.put_blob(blob)
        return blob.digest

    async def read(self, query: Callable[[Log], T]) -> T:
        return query(self.log)

    def close(self) -> None:
        self.log.close()
