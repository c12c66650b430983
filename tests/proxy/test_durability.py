"""The proxy as a process: stopped, and with its log taken away from under it. Refused with a reason, and not lost."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.testing import EVENT_STREAM, LAST_CHUNK, LiteralClient, LiteralProvider, Step, chunk, json_answer
from cellmeter_scoring import verify

PATH: Final = "/v1/chat/completions"
BODY: Final = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAM_BODY: Final = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
ANSWER: Final = json_answer(b'{"id":"c1","choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}')
TOKEN: Final = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STOP: Final = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE: Final = b"data: [DONE]\n\n"
END: Final = (chunk(STOP), chunk(DONE), LAST_CHUNK)


@dataclass
class Proxy:
    """A proxy process that accepts calls."""

    process: asyncio.subprocess.Process
    url: str
    log: Path
    talk: list[str] = field(default_factory=list)
    """Its stderr, once it has ended."""

    async def answer(self, body: bytes = BODY) -> bytes:
        """Everything that the client of one call sees."""
        client = await LiteralClient.connect(self.url)
        await client.post(PATH, body, b"Connection: close")
        return (await client.rest())[0]

    async def stream(self) -> LiteralClient:
        """A client whose answer has begun."""
        client = await LiteralClient.connect(self.url)
        await client.post(PATH, STREAM_BODY)
        await client.until(TOKEN)
        return client

    async def refuses_connections(self) -> None:
        while True:
            try:
                await (await LiteralClient.connect(self.url)).close()
            except ConnectionError:  # refused, or reset where it was waiting to be accepted
                return

    async def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await self.process.wait() == 130

    def rows(self) -> list[tuple[str, str | None]]:
        with Log.read(self.log) as log:
            return [(call.state, call.outcome) for call in log.rows(Call)]

    def refusals(self) -> list[str]:
        return [line for line in self.talk if "calls are refused" in line]


def command(log: Path, upstream: str, *options: str) -> list[str]:
    proxy = [sys.executable, "-m", "cellmeter_harness", "proxy", "--upstream", upstream, "--listen", "127.0.0.1:0"]
    return [*proxy, "--log", str(log), *options]


@asynccontextmanager
async def running(log: Path, upstream: str, *options: str, before: tuple[str, ...] = ()) -> AsyncIterator[Proxy]:
    process = await asyncio.create_subprocess_exec(
        *before, *command(log, upstream, *options), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = (await process.stdout.readline()).decode()
    proxy = Proxy(process, said.strip().removesuffix("/v1").rpartition(" ")[2], log)
    talk = asyncio.create_task(process.stderr.read())
    try:
        yield proxy
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        proxy.talk = (await talk).decode().splitlines()


async def test_sigterm_lets_streams_end_within_a_bound_and_interrupts_the_rest(tmp_path: Path) -> None:
    go, never = asyncio.Event(), asyncio.Event()
    scripts: list[list[Step]] = [[EVENT_STREAM, chunk(TOKEN), go.wait, *END], [EVENT_STREAM, chunk(TOKEN), never.wait]]
    async with LiteralProvider(*scripts) as provider, running(
        tmp_path / "a.db", provider.url, "--shutdown", "5"
    ) as proxy:  # fmt: skip
        ends, hangs = await proxy.stream(), await proxy.stream()
        since = time.monotonic()
        proxy.process.send_signal(signal.SIGTERM)
        await proxy.refuses_connections()
        go.set()
        assert (await ends.until(LAST_CHUNK)).endswith(chunk(DONE) + LAST_CHUNK)
        async with asyncio.timeout(30):
            assert await proxy.process.wait() == 130
        assert 5 <= time.monotonic() - since < 10
        assert LAST_CHUNK not in (await hangs.rest())[0]
        await ends.close()
    assert proxy.rows() == [("closed", "ok"), ("interrupted", "interrupted")]
    assert verify(proxy.log) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_the_wait_and_marks_what_was_under_way(
    tmp_path: Path, number: signal.Signals
) -> None:
    never = asyncio.Event()
    script: list[Step] = [EVENT_STREAM, chunk(TOKEN), never.wait]
    async with LiteralProvider(script) as provider, running(
        tmp_path / "a.db", provider.url, "--shutdown", "60"
    ) as proxy:  # fmt: skip
        client = await proxy.stream()
        proxy.process.send_signal(number)
        await proxy.refuses_connections()
        proxy.process.send_signal(number)
        async with asyncio.timeout(30):
            assert await proxy.process.wait() == 130
        assert LAST_CHUNK not in (await client.rest())[0]
    assert "Traceback" not in "".join(proxy.talk)
    assert proxy.rows() == [("interrupted", "interrupted")]
    assert verify(proxy.log) == []


async def test_a_lock_that_another_process_holds_is_a_503_and_then_calls_are_served_again(tmp_path: Path) -> None:
    async with LiteralProvider(*([ANSWER],) * 9) as provider, running(tmp_path / "a.db", provider.url) as proxy:
        await proxy.answer()
        other = sqlite3.connect(proxy.log, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        refused = await asyncio.gather(*(proxy.answer() for _ in range(3)))
        received = len(provider.received)
        refused.append(await proxy.answer())
        assert all(b" 503 " in answer[:20] and b"database is locked" in answer for answer in refused)
        assert len(provider.received) == received  # it was known by then, and not paid for
        other.execute("ROLLBACK")
        other.close()
        assert b" 200 " in (await proxy.answer())[:20]
        await proxy.stop()
    assert len(proxy.refusals()) == 1
    assert sorted(proxy.rows()) == [("closed", "ok")] * 2 + [("interrupted", "interrupted")] * 4


async def test_a_log_that_was_moved_away_is_a_503_until_it_is_back(tmp_path: Path) -> None:
    async with LiteralProvider(*([ANSWER],) * 9) as provider, running(tmp_path / "a.db", provider.url) as proxy:
        await proxy.answer()
        proxy.log.rename(tmp_path / "moved.db")
        refused = [await proxy.answer() for _ in range(3)]
        assert all(
            b" 503 " in answer[:20] and b"a.db is gone, and nothing in its place" in answer for answer in refused
        )
        (tmp_path / "moved.db").rename(proxy.log)
        assert b" 200 " in (await proxy.answer())[:20]
        await proxy.stop()
    assert len(proxy.refusals()) == 1
    assert sorted(proxy.rows()) == [("closed", "ok")] * 2 + [("interrupted", "interrupted")] * 3
    assert verify(proxy.log) == []


async def test_a_log_that_was_deleted_is_a_503_and_nothing_is_served_unrecorded(tmp_path: Path) -> None:
    async with LiteralProvider(*([ANSWER],) * 9) as provider, running(tmp_path / "a.db", provider.url) as proxy:
        await proxy.answer()
        for path in tmp_path.glob("a.db*"):
            path.unlink()
        assert all([b" 503 " in (await proxy.answer())[:20] for _ in range(3)])
        proxy.log.write_bytes(b"")
        assert b"another file in its place" in await proxy.answer()
        proxy.log.unlink()
    async with LiteralProvider([ANSWER]) as provider, running(tmp_path / "a.db", provider.url) as proxy:
        assert b" 200 " in (await proxy.answer())[:20]
    assert proxy.rows() == [("closed", "ok")]


@pytest.mark.parametrize("suffixes", [["-wal"], ["-shm"], ["-wal", "-shm"]])
async def test_files_beside_the_log_that_were_deleted_cost_neither_a_call_nor_a_row(
    tmp_path: Path, suffixes: list[str]
) -> None:
    async with LiteralProvider(*([ANSWER],) * 9) as provider, running(tmp_path / "a.db", provider.url) as proxy:
        await proxy.answer()
        for suffix in suffixes:
            (tmp_path / f"a.db{suffix}").unlink()
        assert b" 200 " in (await proxy.answer())[:20]
        proxy.process.kill()
        await proxy.process.wait()
    assert any("was deleted; every row is in a.db" in line for line in proxy.talk)
    assert proxy.rows() == [("closed", "ok")] * 2
    assert verify(proxy.log) == []


async def test_proxies_that_start_on_one_new_log_at_the_same_time_all_record_into_it(tmp_path: Path) -> None:
    log = tmp_path / "a.db"
    async with LiteralProvider(*([ANSWER],) * 3) as provider, contextlib.AsyncExitStack() as stack:
        starts = (stack.enter_async_context(running(log, provider.url)) for _ in range(3))
        proxies = await asyncio.gather(*starts)
        answers = await asyncio.gather(*(proxy.answer() for proxy in proxies))
        assert all(b" 200 " in answer[:20] for answer in answers)
    assert proxies[0].rows() == [("closed", "ok")] * 3
    assert verify(log) == []


def test_a_log_that_may_only_be_read_is_refused_at_the_start(tmp_path: Path, need: Callable[..., str]) -> None:
    log = tmp_path / "a.db"
    Log.create(log).close()
    log.chmod(0o444)
    # The superuser may write whatever the mode says, unless that capability is taken away (capabilities(7)).
    drop = [need("setpriv"), "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    done = subprocess.run([*drop, *command(log, "http://127.0.0.1:9/v1")], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"a.db cannot be opened: attempt to write a readonly database" in done.stderr
    assert b"Traceback" not in done.stderr


def page_of(log: Path, name: str) -> tuple[int, int]:
    """Where the first page of a table or an index stands in the file, and its size."""
    connection = sqlite3.connect(log)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page, size = connection.execute(
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = ?", (name,)
    ).fetchone()
    connection.close()
    return (page - 1) * size, size


async def test_a_damaged_page_is_a_sentence_at_the_start_or_a_503_and_verify_names_it(tmp_path: Path) -> None:
    log = tmp_path / "a.db"
    async with LiteralProvider([ANSWER]) as provider, running(log, provider.url) as proxy:
        await proxy.answer()
    offset, size = page_of(log, "idx_calls_session_seq")
    with log.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    async with LiteralProvider([ANSWER], [ANSWER]) as provider, running(log, provider.url) as proxy:
        refused = [await proxy.answer() for _ in range(3)]
        assert all(b" 503 " in answer[:20] and b"malformed" in answer for answer in refused)
        assert len(provider.received) == 1
    assert len(proxy.refusals()) == 1
    assert {finding.kind for finding in verify(log)} & {"file", "unreadable"}
    with log.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (log.stat().st_size - 4096))
    done = subprocess.run(command(log, "http://127.0.0.1:9/v1"), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"a.db is damaged: database disk image is malformed" in done.stderr
    assert b"Traceback" not in done.stderr


class Disk(Protocol):
    """Where a log is, and whether there is room."""

    before: tuple[str, ...]

    def directory(self, pid: int, /) -> Path: ...
    def fill(self, pid: int) -> None: ...
    def free(self, pid: int) -> None: ...


class SmallDisk:
    """A file system of two megabytes that only the proxy sees, gone with it; seen through its ``/proc`` entry."""

    def __init__(self, place: Path, unshare: list[str]) -> None:
        self._place = place
        mount = f'mount -t tmpfs -o size=2m none {place} && exec "$@"'
        self.before = (*unshare, "sh", "-c", mount, "sh")

    def directory(self, pid: int) -> Path:
        return Path(f"/proc/{pid}/root{self._place}")

    def fill(self, pid: int) -> None:
        with contextlib.suppress(OSError), (self.directory(pid) / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass

    def free(self, pid: int) -> None:
        (self.directory(pid) / "filler").unlink()


class LimitedFiles:
    """A limit on the size of the proxy's files (RLIMIT_FSIZE), where no file system may be mounted."""

    before: tuple[str, ...] = ()

    def __init__(self, place: Path) -> None:
        self._place = place

    def directory(self, _: int) -> Path:
        return self._place

    def fill(self, pid: int) -> None:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))

    def free(self, pid: int) -> None:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def small_disk(place: Path) -> Disk:
    """A small file system where one may be mounted, as root or in a name space of one's own; else a limit."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is not None:
        try_it = [*unshare, "mount", "-t", "tmpfs", "none", str(place)]
        if subprocess.run(try_it, capture_output=True, timeout=20, check=False).returncode == 0:
            return SmallDisk(place, unshare)
    return LimitedFiles(place)


@pytest.mark.parametrize("kind", [small_disk, LimitedFiles])
async def test_a_full_disk_breaks_off_what_cannot_be_recorded_and_service_resumes_with_room(
    tmp_path: Path, kind: Callable[[Path], Disk]
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    disk = kind(place)
    go = asyncio.Event()
    streamed: list[Step] = [EVENT_STREAM, chunk(TOKEN), go.wait, *END]
    async with (
        LiteralProvider(streamed, *([ANSWER],) * 9) as provider,
        running(place / "a.db", provider.url, before=disk.before) as proxy,
    ):
        client, pid = await proxy.stream(), proxy.process.pid
        disk.fill(pid)
        assert b" 503 " in (await proxy.answer())[:20]
        go.set()
        assert DONE not in (await client.rest())[0]
        refused = await proxy.answer()
        assert b" 503 " in refused[:20]
        assert b"full" in refused or b"disk I/O error" in refused
        disk.free(pid)
        while b" 200 " not in (await proxy.answer())[:20]:
            await asyncio.sleep(0.05)
        while (found := errors(disk.directory(pid), pid, tmp_path))[0] is None or len(found) < len(provider.received):
            await asyncio.sleep(0.1)
    # The stream's row comes first, then what was refused and what was served, in the order in which they got in.
    assert found[0] == "the log could not be written at its end"
    assert found.count(None) == 1
    assert set(found[1:]) == {None, "the log could not be written at its beginning"}
    assert len(proxy.refusals()) == 1
    assert verify(tmp_path / "a.db") == []


def errors(directory: Path, pid: int, into: Path) -> list[str | None]:
    """What the rows of a log say went wrong, from a copy that is made while its proxy stands still."""
    os.kill(pid, signal.SIGSTOP)
    for name in ("a.db", "a.db-wal"):
        shutil.copy(directory / name, into)
    os.kill(pid, signal.SIGCONT)
    with Log.read(into / "a.db") as copy:
        return [call.error for call in copy.rows(Call)]
