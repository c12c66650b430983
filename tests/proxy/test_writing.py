"""How the row of a call gets into the log: when it begins and when it ends, or all at once."""

import asyncio
import gzip
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cellmeter_proxy.log import Log, digest_of, writer_name
from cellmeter_proxy.outcome import Head
from cellmeter_proxy.record import Attempt, BlobRow, Call, new_id
from cellmeter_proxy.recording import Answer
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.scripted.session import session
from cellmeter_proxy.watch import watch
from cellmeter_proxy.writer import LogUnwritableError, LogWriter
from cellmeter_proxy.writing import close_call, open_call

REDACTOR = Redactor()
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
ANSWER = b'{"id":"c1","model":"m-1","choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'


def call(**fields: Any) -> Call:
    return Call(call_id="c", session="s", writer="w", dialect="chat.completions", started_at=1, **fields)


def call_of(session: str, number: int) -> Call:
    return replace(call(), call_id=str(number), session=session)


def answer() -> Answer:
    watcher = watch("chat.completions", {"content-type": "application/json", "content-length": str(len(ANSWER))})
    watcher.feed(ANSWER, 2.0)
    watcher.finish()
    return Answer(Head(200, 1.5, "application/json", None, None), watcher)


def attempt(number: int) -> Attempt:
    return Attempt(call_id=str(number), n=1, started_at=1, status=200)


async def statements(writer: LogWriter) -> list[str]:
    """The statements that change the log, as they come."""
    seen: list[str] = []

    def note(statement: str) -> None:
        if statement.startswith(("INSERT", "UPDATE", "COMMIT")):
            seen.append(" ".join(statement.split()[:3]).removesuffix("SET"))

    await writer.read(lambda log: log.conn.set_trace_callback(note))
    seen.clear()
    return seen


async def test_a_call_that_is_answered_before_its_row_was_committed_is_one_row_written_once(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    seen = await statements(writer)
    opening = open_call(writer, call_of("s", 1), BODY, REDACTOR)
    described = await opening.described()
    assert (described.request_model, described.seq, opening.is_committed, seen) == ("m", None, False, [])
    closed = close_call(writer, described, [attempt(1)], answer(), REDACTOR, opening=opening)
    row = await closed
    assert await opening == row
    assert opening.is_committed
    assert [what for what in seen if "calls" in what or what == "COMMIT"] == ["INSERT INTO calls", "COMMIT"]
    assert (row.state, row.seq, row.new_messages, row.response_model) == ("closed", 1, 1, "m-1")
    await writer.aclose()
    with Log.read(tmp_path / "a.db") as log:
        assert list(log.rows(Call)) == [row]
        assert list(log.rows(Attempt)) == [attempt(1)]
        assert [log.blob(digest) for digest in (row.request_blob, row.response_blob) if digest] == [BODY, ANSWER]


@pytest.mark.parametrize("begin", ["committed", "being committed", "waiting"])
async def test_a_row_is_the_same_however_it_is_written(tmp_path: Path, begin: str) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    opening = open_call(writer, call_of("s", 1), BODY, REDACTOR, sent=b"other")
    if begin != "waiting":
        asked = asyncio.ensure_future(opening)
        await (asyncio.sleep(0) if begin == "being committed" else asked)
    row = replace(await opening.described(), ended_at=5, latency_ms=2.5)
    await close_call(writer, row, [attempt(1)], answer(), REDACTOR, opening=opening)
    await writer.aclose()
    with Log.read(tmp_path / "a.db") as log:
        (found,) = log.rows(Call)
    assert (found.seq, found.new_messages, found.sent_hash) == (1, 1, digest_of(b"other"))
    assert (found.state, found.outcome, found.status, found.ended_at, found.latency_ms) == ("closed", "ok", 200, 5, 2.5)
    assert (found.request_hash, found.response_bytes, found.headers_ms) == (row.request_hash, len(ANSWER), 1.5)


async def test_a_call_that_is_closed_again_before_it_was_written_is_as_it_was_closed_last(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    opening = open_call(writer, call_of("s", 1), BODY, REDACTOR)
    row = await opening.described()
    gone = replace(row, client_gone_at=9)
    closes = [close_call(writer, one, [attempt(1)], answer(), REDACTOR, opening=opening) for one in (row, gone)]
    assert [one.outcome for one in await asyncio.gather(*closes)] == ["ok", "client_gone"]
    await writer.aclose()
    with Log.read(tmp_path / "a.db") as log:
        assert [(one.seq, one.outcome) for one in log.rows(Call)] == [(1, "client_gone")]
        assert list(log.rows(Attempt)) == [attempt(1)]


async def test_calls_are_numbered_as_they_began_whichever_is_answered_first(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    openings = [open_call(writer, call_of("s", number), BODY, REDACTOR) for number in (1, 2, 3)]
    row = await openings[1].described()
    assert (await close_call(writer, row, [], answer(), REDACTOR, opening=openings[1])).seq == 2
    assert [opening.is_committed for opening in openings] == [True, True, False]
    assert [(await opening).seq for opening in openings] == [1, 2, 3]
    await writer.aclose()


async def test_what_cannot_be_written_when_the_answer_is_there_is_refused_and_marked_later(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writer = await LogWriter.open(path)
    path.rename(tmp_path / "moved.db")
    opening = open_call(writer, call_of("s", 1), BODY, REDACTOR)
    row = await opening.described()
    with pytest.raises(LogUnwritableError):
        await close_call(writer, row, [attempt(1)], answer(), REDACTOR, opening=opening)
    assert not opening.is_committed
    with pytest.raises(LogUnwritableError):
        await opening
    (tmp_path / "moved.db").rename(path)
    await writer.aclose()
    with Log.read(path) as log:
        (found,) = log.rows(Call)
        assert (found.seq, found.state, found.status, found.response_blob) == (1, "interrupted", 503, None)
        assert found.error == "the log could not be written at its beginning"
        assert log.blob(found.request_blob or "") == BODY
        assert list(log.rows(Attempt)) == []


async def test_an_end_that_cannot_be_read_does_not_cost_the_beginning(tmp_path: Path) -> None:
    def price(_: Call) -> Call:
        raise ZeroDivisionError

    writer = await LogWriter.open(tmp_path / "a.db")
    opening = open_call(writer, call_of("s", 1), BODY, REDACTOR)
    row = await opening.described()
    other = open_call(writer, call_of("s", 2), BODY, REDACTOR)
    with pytest.raises(ZeroDivisionError):
        await close_call(writer, row, [attempt(1)], answer(), REDACTOR, price=price, opening=opening)
    assert [(begun.state, begun.outcome) for begun in (await opening, await other)] == [("open", None)] * 2
    failed = replace(await opening, state="closed", outcome="interrupted", error="a bug of ours")
    await close_call(writer, failed, [attempt(1)], None, REDACTOR, opening=opening)
    await writer.aclose()
    with Log.read(tmp_path / "a.db") as log:
        rows = {found.call_id: found for found in log.rows(Call)}
        assert (rows["1"].state, rows["1"].error, rows["2"].state) == ("closed", "a bug of ours", "open")
        assert sorted(found.seq or 0 for found in rows.values()) == [1, 2]
        assert list(log.rows(Attempt)) == [attempt(1)]


async def test_an_end_that_cannot_be_written_does_not_cost_the_beginning_either(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    opening = open_call(writer, call_of("s", 1), BODY, REDACTOR)
    row = await opening.described()
    too_large = replace(attempt(1), status=1 << 64)
    closed = close_call(writer, row, [too_large], answer(), REDACTOR, opening=opening)
    await writer.aclose()  # while both wait
    with pytest.raises(OverflowError):
        await closed
    with Log.read(tmp_path / "a.db") as log:
        assert [(found.state, found.seq) for found in log.rows(Call)] == [("open", 1)]
        assert list(log.rows(Attempt)) == []


async def test_whoever_waits_for_the_end_may_be_cancelled_and_the_beginning_is_told(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    opening = open_call(writer, call_of("s", 1), BODY, REDACTOR)
    closed = close_call(writer, await opening.described(), [], answer(), REDACTOR, opening=opening)
    closed.cancel()
    assert (await opening).state == "closed"
    await writer.aclose()


async def test_a_large_request_is_read_in_a_thread_and_described_once_it_is_committed(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    body = BODY[:-1] + b" " * 200_000 + b"}"
    opening = open_call(writer, call_of("s", 1), body, REDACTOR)
    row = await opening.described()
    assert (row.seq, row.request_bytes, opening.is_committed) == (1, len(body), True)
    await close_call(writer, row, [], answer(), REDACTOR, opening=opening)
    await writer.aclose()
    with Log.read(tmp_path / "a.db") as log:
        assert [found.state for found in log.rows(Call)] == ["closed"]


async def test_what_may_decode_to_much_is_decoded_in_a_thread(tmp_path: Path) -> None:
    threads: list[str] = []

    def price(row: Call) -> Call:
        threads.append(threading.current_thread().name)
        return row

    coded = gzip.compress(ANSWER[:-1] + b" " * 1_000_000 + b"}")
    headers = {"content-type": "application/json", "content-encoding": "gzip", "content-length": str(len(coded))}
    watcher = watch("chat.completions", headers)
    watcher.feed(coded, 2.0)
    watcher.finish()
    writer = await LogWriter.open(tmp_path / "a.db")
    opening = open_call(writer, replace(call_of("s", 1), request_encoding="gzip"), gzip.compress(BODY), REDACTOR)
    row = await opening.described()
    assert (row.request_model, row.seq, opening.is_committed) == ("m", 1, True)
    bomb = Answer(Head(200, 1.5, "application/json", "gzip", None), watcher)
    closed = await close_call(writer, row, [], bomb, REDACTOR, price=price, opening=opening)
    await writer.aclose()
    assert (closed.outcome, closed.response_bytes) == ("ok", len(coded))
    assert threads == ["cellmeter-large_0"]


async def test_a_request_is_stored_as_what_is_new_since_the_one_whose_history_it_goes_on_from(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    (first, second), (other, _) = session("chat.completions", 2, seed=1), session("chat.completions", 2, seed=2)
    rows = []
    for bodies in ([first.request, other.request], [second.request]):  # the recorder is restarted in between
        writer = await LogWriter.open(path)
        rows += [
            await open_call(writer, replace(call(), call_id=new_id(), writer=writer_name()), body, REDACTOR)
            for body in bodies
        ]
        await writer.aclose()
    assert [(row.seq, row.new_messages) for row in rows] == [(1, 2), (2, 2), (3, 2)]
    with Log.read(path) as log:
        assert [log.blob(row.request_blob or "") for row in rows] == [first.request, other.request, second.request]
        stored = {row.digest: len(row.data or b"") for row in log.rows(BlobRow)}
    sizes = [stored[row.request_blob or ""] for row in rows]
    assert sizes[2] * 3 < min(sizes[:2])


async def test_new_messages_are_those_that_the_session_had_not_sent_before(tmp_path: Path) -> None:
    def request(*texts: str) -> bytes:
        messages = [{"role": "user", "content": text} for text in texts]
        return msgspec.json.encode({"model": "m", "messages": messages})

    many = [f"message {number}" for number in range(40)]
    requests = [many[:2], many[:3], many[:3], many[:20], many[:1], many, [*many[:20], "other", "way"], ["new"] * 20, []]
    writer = await LogWriter.open(tmp_path / "a.db")
    found = [
        (await open_call(writer, call_of("s", number), request(*texts), REDACTOR)).new_messages
        for number, texts in enumerate(requests)
    ]
    elsewhere = await open_call(writer, call_of("t", 99), request(*many[:2]), REDACTOR)
    await writer.aclose()
    assert found == [2, 1, 0, 17, 1, 20, 2, 20, None]
    assert elsewhere.new_messages == 2


async def test_a_row_gets_its_cost_as_it_is_closed_where_somebody_knows_it(tmp_path: Path) -> None:
    writer = await LogWriter.open(tmp_path / "a.db")
    opened = await open_call(writer, call_of("s", 1), BODY, REDACTOR)
    row = await close_call(writer, opened, [], None, REDACTOR, price=lambda row: replace(row, cost=0.25))
    stored = await writer.read(lambda log: list(log.rows(Call)))
    await writer.aclose()
    assert stored == [row] == [replace(opened, cost=0.25)]
