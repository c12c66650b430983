"""What ``--durability full`` promises: an answer that a client has is on the disk, not only on its way there.

The proxy runs above a layer (``wiretap.c``) that writes down, in one order, what it does to files and what it sends.
The power is then cut, on paper, before every answer's last bytes: what had not been synced is lost, or half there.
"""

import asyncio
import json
import os
import random
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from cellmeter_proxy import schema
from cellmeter_proxy.log import Log, digest_of
from cellmeter_proxy.record import Call
from cellmeter_proxy.scripted import Script, ScriptedProvider, Turn
from cellmeter_scoring import verify

HERE: Final = Path(__file__).parent
HEAD: Final = struct.Struct("<cqII")
PATHS: Final = {"chat": "chat/completions", "messages": "messages", "responses": "responses"}
TERMINAL: Final = {"chat": b"data: [DONE]\n\n", "messages": b'"type":"message_stop"}\n\n', "responses": b"}\n\n"}
SECTOR: Final = 512
CLIENTS: Final = 4
ROUNDS: Final = 4
CROWD: Final = 64


class Event(NamedTuple):
    """One record of the trace; see ``wiretap.c``."""

    kind: str
    offset: int
    name: str
    data: bytes


class Held(NamedTuple):
    """An answer that a client has whole, and how much of it makes it whole."""

    port: int
    request: str
    """Digest of its request."""
    response_id: str
    need: int


@pytest.fixture(scope="module")
def wiretap(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    def build() -> Path:
        library = tmp_path_factory.mktemp("wiretap") / "wiretap.so"
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "wiretap.c"), "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        return library

    return build


@asynccontextmanager
async def proxy(wiretap: Path, directory: Path, durability: str, upstream: str) -> AsyncIterator[int]:
    """A proxy process above the layer; its port."""
    (directory / "log").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cellmeter_harness", "proxy", "--upstream", upstream, "--listen", "127.0.0.1:0"]
    command += ["--log", str(directory / "log" / "calls.db"), "--durability", durability]
    tap = {"WIRETAP": str(directory / "trace"), "WIRETAP_UNDER": str(directory / "log"), "LD_PRELOAD": str(wiretap)}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=os.environ | tap
    )
    assert process.stdout is not None
    try:
        yield int((await process.stdout.readline()).split(b"/v1")[0].rpartition(b":")[2])
    finally:
        process.kill()
        await process.wait()


async def ask(port: int, dialect: str, *, stream: bool, text: str) -> Held:
    """One call on a connection of its own, to its end."""
    message = {"role": "user", "content": text}
    document = {"model": "m", "stream": stream, "input" if dialect == "responses" else "messages": [message]}
    if dialect == "messages":
        document["max_tokens"] = 10
    body = json.dumps(document).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/{PATHS[dialect]} HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    local = int(writer.get_extra_info("sockname")[1])
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:300]
    whole = answer.rindex(TERMINAL[dialect]) + len(TERMINAL[dialect]) if stream else len(answer)
    start = answer.index({"chat": b"chatcmpl-", "messages": b"msg_", "responses": b"resp_"}[dialect])
    return Held(local, digest_of(body), answer[start : answer.index(b'"', start)].decode(), whole)


async def work(port: int) -> list[Held]:
    """Calls in every form, some at the same time, and enough of them that the log is checkpointed on the way."""
    noise = random.Random(1)
    held: list[Held] = []
    for number in range(ROUNDS):
        calls = [
            ask(port, dialect, stream=bool((number + n) % 2), text=noise.randbytes(600_000).hex())
            for n, dialect in enumerate([*PATHS, "chat"][:CLIENTS])
        ]
        held += await asyncio.gather(*calls)
    return held


async def crowd(port: int) -> list[Held]:
    """Many calls at the same time."""
    return await asyncio.gather(*(ask(port, "chat", stream=True, text="hi") for _ in range(CROWD)))


async def traced(
    wiretap: Path, directory: Path, durability: str, work: Callable[[int], Awaitable[list[Held]]] = work
) -> tuple[list[Event], dict[int, Held]]:
    """What a proxy did, and the answers that its clients hold, by the event that was about to complete each."""
    turn = Turn(content="an answer that takes a few frames, so that there is something before its end " * 3)
    async with (
        ScriptedProvider([Script(name="x", turns=[turn])]) as provider,
        proxy(wiretap, directory, durability, provider.url) as port,
    ):
        held = await work(port)
    events = list(read(directory / "trace", directory / "log"))
    return events, {completing(events, answer): answer for answer in held}


def read(trace: Path, directory: Path) -> Iterator[Event]:
    data, at = trace.read_bytes(), 0
    # The process was killed, so that its last record may be cut off.
    while at + HEAD.size <= len(data):
        kind, offset, path_size, size = HEAD.unpack_from(data, at)
        at += HEAD.size
        path = data[at : at + path_size].decode()
        yield Event(
            kind.decode(),
            offset,
            path.removeprefix(str(directory)).strip("/"),
            data[at + path_size : at + path_size + size],
        )
        at += path_size + size


def completing(events: Sequence[Event], held: Held) -> int:
    """The index of the send that was about to complete an answer."""
    sent = 0
    for index, event in enumerate(events):
        if event.kind == "S" and event.offset == held.port:
            sent += len(event.data)
            if sent >= held.need:
                return index
    raise AssertionError(f"{held} was never sent whole")


class Inode:
    """A file's content: as its process sees it, and as a disk without power has it."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable = bytearray(content)
        self.pending: list[tuple[int, bytes | None]] = []

    def sync(self) -> None:
        self.durable = self.after(self.pending)
        self.pending = []

    def after(self, writes: Sequence[tuple[int, bytes | None]]) -> bytearray:
        content = bytearray(self.durable)
        for offset, data in writes:
            end = offset + len(data or b"")
            content.extend(bytes(max(end - len(content), 0)))
            if data is None:
                del content[offset:]
            else:
                content[offset:end] = data
        return content


class Disk:
    """Files under POSIX's promises and no others: what was synced is there, a name when its directory was."""

    def __init__(self, *files: Path) -> None:
        self._names = {path.name: Inode(path.read_bytes()) for path in files}
        self._durable_names = dict(self._names)

    def apply(self, event: Event) -> None:
        if event.kind == "F" and not event.name:
            self._durable_names = dict(self._names)
        elif event.kind == "F":
            self._names.setdefault(event.name, Inode()).sync()
        elif event.kind == "D":
            self._names.pop(event.name, None)
        elif event.kind in "WT":
            change = (event.offset, event.data if event.kind == "W" else None)
            self._names.setdefault(event.name, Inode()).pending.append(change)

    def lose_process(self, into: Path) -> None:
        """Write what a process that is killed leaves: all that it wrote, for the system has it."""
        into.mkdir()
        for name, inode in self._names.items():
            (into / name).write_bytes(inode.after(inode.pending))

    def lose_power(self, into: Path, chance: random.Random | None = None) -> None:
        """Write what is left: what was synced, and by chance some of the rest, sector by sector, in any order."""
        into.mkdir()
        names = self._durable_names if chance is None or chance.random() < 0.5 else self._names
        for name, inode in names.items():
            kept = [] if chance is None else [torn(write, chance) for write in inode.pending if chance.random() < 0.5]
            (into / name).write_bytes(inode.after(kept))


def torn(write: tuple[int, bytes | None], chance: random.Random) -> tuple[int, bytes | None]:
    offset, data = write
    return offset, None if data is None else data[: chance.randrange(0, len(data) + 1, SECTOR) or len(data)]


def closed_in(image: Path) -> set[str]:
    """The answers that a log on a disk that lost its power has whole."""
    with Log.create(image / "calls.db") as log:
        log.recover()
        assert log.conn.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        return {call.response_id or "" for call in log.rows(Call, "state = 'closed'")}


def synced_between(events: Sequence[Event], text: str, end: int) -> bool:
    """Whether a row was written to the log, and then synced, before an event; it is known by a text of its own."""
    start = next((n for n in range(end) if events[n].kind == "W" and text.encode() in events[n].data), None)
    assert start is not None, f"event {end} was sent before the row of {text} was written"
    return any(event.kind == "F" and event.name == "calls.db-wal" for event in events[start:end])


async def test_rows_are_synced_before_the_first_and_the_last_bytes_of_their_answers_leave(
    tmp_path: Path, need: Callable[..., str], wiretap: Callable[[], Path]
) -> None:
    need("cc")
    events, held = await traced(wiretap(), tmp_path, "full")
    assert len(held) == CLIENTS * ROUNDS
    for index, answer in held.items():
        first = next(n for n, event in enumerate(events) if event.kind == "S" and event.offset == answer.port)
        assert synced_between(events, answer.request, first), "a byte was released before its row was there"
        assert synced_between(events, answer.response_id, index), "an answer was completed before its row was"
    assert any(event.kind == "W" and event.name == "calls.db" for event in events[min(held) :]), "no checkpoint"
    disk, done, chance = Disk(), set[str](), random.Random(1)
    for index, event in enumerate(events):
        disk.apply(event)
        if index in held:
            done.add(held[index].response_id)
            for dice in (None, chance):
                image = tmp_path / "image"
                disk.lose_power(image, dice)
                assert done <= closed_in(image), f"{index} {'half written' if dice else ''}"
                assert index < max(held) or verify(image / "calls.db") == []
                shutil.rmtree(image)


async def test_without_it_rows_are_written_and_not_synced(
    tmp_path: Path, need: Callable[..., str], wiretap: Callable[[], Path]
) -> None:
    need("cc")
    events, held = await traced(wiretap(), tmp_path, "process", crowd)
    checkpoints = (number for number, event in enumerate(events) if number > min(held) and event.kind == "F")
    first_checkpoint = next(checkpoints, len(events))
    before = {index: answer for index, answer in held.items() if index < first_checkpoint}
    assert len(before) >= CLIENTS
    assert not any(synced_between(events, answer.response_id, index) for index, answer in before.items())
    disk = Disk()
    for event in events[:first_checkpoint]:
        disk.apply(event)
    disk.lose_power(tmp_path / "image")
    assert closed_in(tmp_path / "image") & {answer.response_id for answer in before.values()} == set()


async def test_many_calls_share_a_sync_and_none_of_them_goes_without(
    tmp_path: Path, need: Callable[..., str], wiretap: Callable[[], Path]
) -> None:
    need("cc")
    events, held = await traced(wiretap(), tmp_path, "full", crowd)
    first = min(n for n, event in enumerate(events) if event.kind == "S")
    synced = [n for n, event in enumerate(events) if n > first and event.kind == "F" and event.name == "calls.db-wal"]
    assert len(synced) < CROWD, "each call has two commits, so that alone they would need two syncs each"
    assert all(synced_between(events, answer.response_id, index) for index, answer in held.items())


def first_version(path: Path) -> None:
    """A log as version 1 of the schema had it, whose recorder died with one of its two calls under way."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    steps = Migrations("cellmeter")
    steps(name="m001_first")(schema._m001_first)
    steps.apply(Database(connection, execute_plugins=False))
    connection.execute("INSERT INTO meta VALUES ('schema_version', '1'), ('fingerprint_salt', 'salt')")
    writer = f"{socket.gethostname()}/{os.getpid()}/1"  # this process, if it had started with the machine
    connection.execute(
        "INSERT INTO calls (method, endpoint, via, dialect, usage_source, session, started_at, writer, call_id, seq,"
        " state, outcome, ended_at) VALUES ('POST', '', 'endpoint', 'unknown', 'none', 's', 1, ?1, '1', 1, 'closed',"
        " 'upstream_unreachable', 2),"
        " ('POST', '', 'endpoint', 'unknown', 'none', 's', 1, ?1, '2', 2, 'open', NULL, NULL)",
        (writer,),
    )
    connection.close()


def nothing(_: Path) -> None:
    """No log at all."""


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [(nothing, []), (first_version, [("1", "closed", "upstream_unreachable"), ("2", "interrupted", "interrupted")])],
)
async def test_a_start_may_be_cut_off_at_any_moment_of_creation_migration_and_recovery(
    tmp_path: Path,
    need: Callable[..., str],
    wiretap: Callable[[], Path],
    prepare: Callable[[Path], None],
    expected: list[tuple[str, str, str]],
) -> None:
    need("cc")
    (tmp_path / "log").mkdir()
    prepare(tmp_path / "log" / "calls.db")
    disk = Disk(*(tmp_path / "log").iterdir())
    async with proxy(wiretap(), tmp_path, "full", "http://127.0.0.1:9/v1"):
        pass
    events = list(read(tmp_path / "trace", tmp_path / "log"))
    assert sum(event.kind == "W" for event in events) > 20
    chance = random.Random(2)
    for index, event in enumerate(events):
        disk.apply(event)
        images = [tmp_path / f"{what}-{index}" for what in ("killed", "without-power", "half-written")]
        disk.lose_process(images[0])
        disk.lose_power(images[1])
        disk.lose_power(images[2], chance)
        for image in images:
            with Log.create(image / "calls.db") as log:
                log.recover()
                assert log.meta("schema_version") == str(schema.SCHEMA_VERSION)
                assert [(call.call_id, call.state, call.outcome) for call in log.rows(Call)] == expected, image
                assert verify(log) == []
            shutil.rmtree(image)
