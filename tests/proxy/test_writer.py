"""The log's writer: what is resolved is committed, and a failure stays with whoever caused it."""

import asyncio
import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from cellmeter_proxy.log import Log, digest_of, writer_name
from cellmeter_proxy.logfile import Durability
from cellmeter_proxy.record import Attempt, Call, new_id, now_us
from cellmeter_proxy.writer import LogUnwritableError, LogWriter


def a_call(session: str = "s", writer: str | None = None) -> Call:
    return Call(call_id=new_id(), session=session, writer=writer or writer_name(), started_at=now_us())


async def opened(writer: LogWriter, call: Call) -> int:
    return await writer.submit(lambda: call, Log.open_call)


def rows_on_disk(path: Path, sql: str) -> list[tuple[object, ...]]:
    """What another process would find, read past every cache of ours."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def test_a_resolved_write_is_already_committed(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    call = a_call()
    await writer.append(call)
    assert rows_on_disk(tmp_path / "a.db", "SELECT call_id FROM calls") == [(call.call_id,)]
    await writer.aclose()


async def test_calls_of_a_session_are_numbered_from_one_without_gaps(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    calls = [a_call("s") for _ in range(50)] + [a_call("t")]
    seqs = await asyncio.gather(*(opened(writer, call) for call in calls))
    assert seqs == [*range(1, 51), 1]
    await writer.aclose()


async def test_closing_keeps_the_number_and_adds_the_attempts(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    call = a_call()
    await opened(writer, call)
    attempt = Attempt(call_id=call.call_id, n=1, started_at=now_us(), status=200)
    done = replace(call, state="closed", status=200, outcome="ok")
    await writer.submit(lambda: done, lambda log, row: log.close_call(row, [attempt]))
    await writer.aclose()
    with Log.read(tmp_path / "a.db") as log:
        assert list(log.rows(Call)) == [replace(done, seq=1)]
        assert list(log.rows(Attempt)) == [attempt]


async def test_one_bad_write_does_not_take_its_neighbours_along(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    good, twin = a_call(), a_call()
    await writer.append(twin)

    def bad(log: Log, _: None) -> None:
        log.append(twin)

    results = await asyncio.gather(
        writer.append(good), writer.submit(lambda: None, bad), writer.append(a_call()), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), LogUnwritableError, type(None)]
    assert rows_on_disk(tmp_path / "a.db", "SELECT count(*) FROM calls") == [(3,)]
    await writer.aclose()


async def test_a_log_that_lost_its_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = await LogWriter.open(path)
    await writer.append(a_call())
    path.rename(tmp_path / "moved.db")
    with pytest.raises(LogUnwritableError, match="cannot be written"):
        await writer.append(a_call())
    (tmp_path / "moved.db").rename(path)
    await writer.append(a_call())
    assert rows_on_disk(path, "SELECT count(*) FROM calls") == [(2,)]
    await writer.aclose()


async def test_content_is_stored_once_under_its_digest(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    assert await writer.store(b"hello") == await writer.store(b"hello") == digest_of(b"hello")
    assert await writer.read(lambda log: log.blob(digest_of(b"hello"))) == b"hello"
    assert rows_on_disk(tmp_path / "a.db", "SELECT count(*) FROM blobs") == [(1,)]
    await writer.aclose()


async def test_what_a_dead_process_left_open_is_interrupted_and_what_a_live_one_holds_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    host, pid, _ = writer_name().rsplit("/", 2)
    with Log.create(path) as log:
        log.open_call(a_call(writer=f"{host}/{pid}/1"))
        log.open_call(a_call())
        log.open_call(a_call(writer=f"elsewhere-{host}/1/1"))
    writer = await LogWriter.open(path)
    assert writer.interrupted == 1
    assert rows_on_disk(path, "SELECT seq, state, outcome FROM calls ORDER BY seq") == [
        (1, "interrupted", "interrupted"),
        (2, "open", None),
        (3, "open", None),
    ]
    await writer.aclose()


async def test_writing_after_the_end_is_refused(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    await writer.aclose()
    await writer.aclose()
    with pytest.raises(LogUnwritableError, match="is closed"):
        await writer.append(a_call())


async def test_what_must_get_into_the_log_is_tried_again_until_it_does(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = await LogWriter.open(path)
    call = a_call()
    await opened(writer, call)
    path.rename(tmp_path / "moved.db")
    done, late = replace(call, state="closed"), replace(call, state="interrupted")
    with pytest.raises(LogUnwritableError):
        await writer.submit(lambda: done, lambda log, row: log.close_call(row, []), otherwise=lambda _: late)
    was_failing = writer.failing
    assert was_failing
    (tmp_path / "moved.db").rename(path)
    async with asyncio.timeout(10):
        while rows_on_disk(path, "SELECT state FROM calls") != [("interrupted",)]:
            await asyncio.sleep(0.02)
    assert not writer.failing
    await writer.aclose()


async def test_calls_that_were_only_refused_displace_none_that_was_under_way(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = await LogWriter.open(path)
    call = a_call()
    await opened(writer, call)
    sent = writer.defer(a_call, Log.open_call, otherwise=lambda row: replace(row, client_session="sent"))
    path.rename(tmp_path / "moved.db")
    late = replace(call, state="interrupted", outcome="interrupted")
    end = writer.submit(lambda: late, lambda log, row: log.close_call(row, []), otherwise=lambda row: row)
    with pytest.raises(LogUnwritableError):
        await end
    refused = [writer.defer(a_call, Log.open_call, otherwise=lambda row: row) for _ in range(400)]
    for job in refused:
        writer.hurry(job)
    results = await asyncio.gather(sent.future, *(job.future for job in refused), return_exceptions=True)
    assert {type(result) for result in results} == {LogUnwritableError}
    (tmp_path / "moved.db").rename(path)
    await writer.aclose()
    assert rows_on_disk(path, "SELECT state FROM calls WHERE seq = 1") == [("interrupted",)]
    assert rows_on_disk(path, "SELECT seq FROM calls WHERE client_session = 'sent'") == [(2,)]
    assert rows_on_disk(path, "SELECT count(*) FROM calls") == [(2 + 256,)]


async def test_what_comes_just_before_something_is_tried_again_waits_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, loop, may_end = tmp_path / "a.db", asyncio.get_running_loop(), threading.Event()
    writer = await LogWriter.open(path)
    due: list[Callable[[], object]] = []

    def keep(_: float, callback: Callable[[], object]) -> asyncio.Handle:
        due.append(callback)
        return asyncio.Handle(callback, (), loop)

    def slowly(log: Log, call: Call) -> int:
        may_end.wait(10)
        return log.open_call(call)

    path.rename(tmp_path / "moved.db")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_later", keep)
        with pytest.raises(LogUnwritableError):
            await writer.submit(a_call, slowly, otherwise=lambda call: call)
    (tmp_path / "moved.db").rename(path)
    new = writer.submit(a_call, Log.open_call)
    due[0]()  # in the same turn of the event loop
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    may_end.set()
    assert await new == 2
    await writer.aclose()
    assert rows_on_disk(path, "SELECT count(*) FROM calls") == [(2,)]


async def test_a_log_whose_directory_is_another_thing_now_is_refused(tmp_path: Path) -> None:
    place, moved = tmp_path / "place", tmp_path / "moved"
    place.mkdir()
    writer = await LogWriter.open(place / "a.db")
    place.rename(moved)
    place.write_bytes(b"")
    async with asyncio.timeout(10):
        with pytest.raises(LogUnwritableError, match="Not a directory"):
            await writer.append(a_call())
    place.unlink()
    moved.rename(place)
    await writer.append(a_call())
    await writer.aclose()


async def test_a_lock_is_waited_for_once_and_not_by_each_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    writer = await LogWriter.open(path)
    monkeypatch.setattr("cellmeter_proxy.transact.BUSY_MS", 1000)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with asyncio.timeout(10):
        results = await asyncio.gather(*(writer.append(a_call()) for _ in range(30)), return_exceptions=True)
    assert {type(result) for result in results} == {LogUnwritableError}
    other.execute("ROLLBACK")
    other.close()
    await writer.append(a_call())
    await writer.aclose()


@pytest.mark.parametrize("suffixes", [["-wal"], ["-shm"], ["-wal", "-shm"]])
async def test_files_beside_the_log_that_were_deleted_are_made_anew_and_no_row_is_lost(
    tmp_path: Path, suffixes: list[str]
) -> None:
    path = tmp_path / "a.db"
    writer = await LogWriter.open(path)
    await writer.append(*(a_call() for _ in range(20)))
    for suffix in suffixes:
        (tmp_path / f"a.db{suffix}").unlink()
    await writer.append(a_call())
    assert rows_on_disk(path, "SELECT count(*) FROM calls") == [(21,)]
    assert rows_on_disk(path, "PRAGMA integrity_check") == [("ok",)]
    await writer.append(a_call())
    await writer.aclose()
    assert rows_on_disk(path, "SELECT count(*) FROM calls") == [(22,)]


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_they_are_not_made_anew_while_another_process_may_be_writing_by_the_old_ones(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "a.db"
    writer = await LogWriter.open(path)
    await writer.append(a_call())
    other = sqlite3.connect(path)
    other.execute("SELECT count(*) FROM calls").fetchone()
    (tmp_path / f"a.db{suffix}").unlink()
    with pytest.raises(LogUnwritableError, match=f"a.db{suffix} was deleted while another process"):
        await writer.append(a_call())
    other.close()
    await writer.append(a_call())
    assert rows_on_disk(path, "SELECT count(*) FROM calls") == [(2,)]
    await writer.aclose()


@pytest.mark.parametrize(("content", "refused"), [(b"", False), (b"rows of somebody", True)])
async def test_another_file_in_the_place_of_the_write_ahead_file_is_respected_if_it_may_hold_rows(
    tmp_path: Path, content: bytes, *, refused: bool
) -> None:
    path, wal = tmp_path / "a.db", tmp_path / "a.db-wal"
    writer = await LogWriter.open(path)
    await writer.append(a_call())
    wal.unlink()
    wal.write_bytes(content)
    if refused:
        with pytest.raises(LogUnwritableError, match="-wal is gone, and another file in its place"):
            await writer.append(a_call())
        assert wal.read_bytes() == content
        wal.unlink()
    await writer.append(a_call())
    assert rows_on_disk(path, "SELECT count(*) FROM calls") == [(2,)]
    await writer.aclose()


async def test_a_damaged_page_counts_as_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = await LogWriter.open(path)
    await writer.append(a_call("session 1"))
    await writer.aclose()
    ((page, size),) = rows_on_disk(
        path, "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'idx_calls_session_seq'"
    )
    with path.open("r+b") as file:
        file.seek((int(str(page)) - 1) * int(str(size)))
        file.write(b"\xff" * int(str(size)))
    writer = await LogWriter.open(path)
    with pytest.raises(LogUnwritableError, match="malformed"):
        await opened(writer, a_call("session 1"))
    was_failing = writer.failing
    assert was_failing
    await writer.aclose()


@pytest.mark.parametrize("durability", ["full", "process"])
async def test_the_write_ahead_file_is_brought_into_the_log_while_it_grows(
    tmp_path: Path, durability: Durability
) -> None:
    path = tmp_path / "a.db"
    writer = await LogWriter.open(path, durability)
    for number in range(60):
        await writer.store(random.Random(number).randbytes(600_000))
    while path.stat().st_size < 8_000_000:
        await asyncio.sleep(0.01)
    assert path.with_name("a.db-wal").stat().st_size < 25_000_000
    await writer.aclose()
    assert rows_on_disk(path, "PRAGMA integrity_check") == [("ok",)]


async def test_deferred_work_is_written_within_a_moment_though_nobody_asks(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    prepared = asyncio.Event()

    def prepare() -> Call:
        prepared.set()
        return a_call()

    job = writer.defer(prepare, Log.open_call)
    await prepared.wait()
    assert not job.future.done()
    assert rows_on_disk(tmp_path / "a.db", "SELECT count(*) FROM calls") == [(0,)]
    async with asyncio.timeout(10):
        assert await job.future == 1
    await writer.aclose()


async def test_what_is_submitted_is_written_after_what_was_deferred_before_it_and_before_what_is_deferred_later(
    tmp_path: Path,
) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    before = writer.defer(a_call, Log.open_call)
    now = opened(writer, a_call())
    task = asyncio.ensure_future(now)
    await asyncio.sleep(0)
    after = writer.defer(a_call, Log.open_call)
    assert await task == 2
    assert (before.future.result(), after.future.done()) == (1, False)
    writer.hurry(after)
    assert await after.future == 3
    await writer.aclose()


async def test_the_end_of_the_writer_writes_what_was_deferred(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    job = writer.defer(a_call, Log.open_call)
    await writer.aclose()
    assert job.future.result() == 1
    assert rows_on_disk(tmp_path / "a.db", "SELECT count(*) FROM calls") == [(1,)]


async def test_deferred_work_that_cannot_be_prepared_fails_whoever_completes_it(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")

    def broken() -> Call:
        raise ValueError("no such row")

    job = writer.defer(broken, Log.open_call)
    completed = writer.complete(job, lambda call: call, Log.open_call)
    assert completed is not None
    with pytest.raises(ValueError, match="no such row"):
        await completed
    await writer.aclose()
