"""``cellmeter proxy --workers N`` as a user runs it: real processes, one port, one log, the same promises."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.scripted import Fault, RateLimit, Script, ScriptedProvider, Turn
from cellmeter_proxy.server import ProxyConfig
from cellmeter_proxy.supervisor import supervise

CELLMETER = [sys.executable, "-m", "cellmeter_harness"]
WORDS = "one two three four five six seven eight nine ten"


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass
class Proxy:
    """A running ``cellmeter proxy``."""

    process: "subprocess.Popen[str]"
    url: str

    def workers(self) -> list[int]:
        return children_of(self.process.pid)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and stderr."""
        self.process.send_signal(number)
        _, talk = await asyncio.to_thread(self.process.communicate, timeout=40)
        return self.process.returncode, talk


def command(log: Path, upstream: str, *options: str) -> list[str]:
    return [*CELLMETER, "proxy", "--upstream", upstream, "--listen", "127.0.0.1:0", "--log", str(log), *options]


@asynccontextmanager
async def proxy(log: Path, upstream: str, *options: str) -> AsyncIterator[Proxy]:
    process = subprocess.Popen(
        command(log, upstream, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert line.startswith("listening on http://127.0.0.1:"), line
        yield Proxy(process, line.split()[-1])
    finally:
        process.kill()
        process.communicate()


def provider(*, frame_ms: float = 0, limit: RateLimit | None = None) -> ScriptedProvider:
    turn = Turn(content=WORDS, fault=Fault(frame_ms=frame_ms))
    return ScriptedProvider([Script(name="any", turns=[turn])], limit=limit)


def session() -> aiohttp.ClientSession:
    """One that makes a connection for each call, so that they are dealt out."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))


async def ask(client: aiohttp.ClientSession, proxy: Proxy, number: int, *, stream: bool = False) -> tuple[int, bytes]:
    return await ask_at(client, proxy.url, number, stream=stream)


async def ask_at(client: aiohttp.ClientSession, url: str, number: int, *, stream: bool = False) -> tuple[int, bytes]:
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": f"question {number}"}]}
    headers = {"Authorization": "Bearer k"}
    async with client.post(f"{url}/chat/completions", json=body, headers=headers) as answer:
        return answer.status, await answer.read()


def rows(log: Path) -> list[Call]:
    with Log.read(log) as opened:
        return sorted(opened.rows(Call), key=lambda call: call.seq or 0)


def findings(log: Path) -> list[dict[str, object]]:
    done = subprocess.run([*CELLMETER, "verify", str(log), "--format", "json"], capture_output=True, check=False)
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


async def until_asked(upstream: ScriptedProvider, calls: int) -> None:
    await until(lambda: len(upstream.ledger) >= calls)


async def until_gone(pids: list[int]) -> None:
    await until(lambda: not any(runs(pid) for pid in pids))


def writers(log: Path) -> set[str]:
    """Those that have recorded a completed answer."""
    with Log.read(log) as opened:
        return {call.writer for call in opened.rows(Call, "outcome = 'ok'")}


def has_open(log: Path, pid: int) -> bool:
    with Log.read(log) as opened:
        return any(call.writer.split("/")[1] == str(pid) for call in opened.rows(Call, "state = 'open'"))


async def test_calls_are_dealt_out_and_recorded_in_one_log(tmp_path: Path) -> None:
    log = tmp_path / "calls.db"
    async with provider() as upstream, proxy(log, upstream.url, "--workers", "3") as running, session() as client:
        answers = await asyncio.gather(*(ask(client, running, number) for number in range(60)))
        assert len(running.workers()) == 3
        code, talk = await running.end()
    assert (code, "Traceback" in talk) == (130, False)
    calls = rows(log)
    assert {status for status, _ in answers} == {200}
    assert [call.seq for call in calls] == list(range(1, 61))
    assert len({call.writer for call in calls}) == 3
    assert {call.response_id for call in calls} == {json.loads(body)["id"] for _, body in answers}
    assert {call.response_id for call in calls} == {served.response_id for served in upstream.ledger}
    billed = sum(served.billed.prompt_tokens or 0 for served in upstream.ledger if served.billed)
    assert sum(call.prompt_tokens or 0 for call in calls) == billed
    assert findings(log) == []


async def test_the_death_of_a_worker_under_load_loses_nothing_that_was_completed(tmp_path: Path) -> None:
    log = tmp_path / "calls.db"
    async with (
        provider(frame_ms=20) as upstream,
        proxy(log, upstream.url, "--workers", "2", "--durability", "process") as running,
        session() as client,
    ):
        first = running.workers()
        enough = asyncio.Event()
        outcomes: Counter[str] = Counter()
        completed: set[str] = set()

        async def keep_asking(who: int) -> None:
            number = 0
            while not enough.is_set():
                number += 1
                try:
                    status, body = await ask(client, running, 1000 * who + number, stream=True)
                except aiohttp.ClientError:
                    outcomes["broken"] += 1
                    continue
                outcomes[str(status)] += 1
                assert body.rstrip().endswith(b"data: [DONE]")
                completed.add(json.loads(body.split(b"\n", 1)[0].removeprefix(b"data: "))["id"])

        asking = [asyncio.create_task(keep_asking(who)) for who in range(16)]
        await until(lambda: len(writers(log)) == 2 and has_open(log, first[0]))
        os.kill(first[0], signal.SIGKILL)
        await until(lambda: len(writers(log)) == 3)
        enough.set()
        await asyncio.gather(*asking)
        assert running.workers()[0] == first[1]
        assert len(running.workers()) == 2
        code, talk = await running.end()
    calls = rows(log)
    assert code == 130
    assert "a worker was killed by SIGKILL" in talk
    assert "another takes its place" in talk
    assert set(outcomes) == {"200", "broken"}
    assert outcomes["broken"] <= 16
    closed = {call.response_id for call in calls if call.state == "closed" and call.outcome == "ok"}
    assert completed <= closed
    assert {call.state for call in calls} == {"closed", "interrupted"}
    interrupted = [call for call in calls if call.state == "interrupted"]
    assert {call.writer.split("/")[1] for call in interrupted} == {str(first[0])}
    assert findings(log) == []


async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "calls.db"
    before = children_of(os.getpid())

    def others() -> list[int]:
        return [child for child in children_of(os.getpid()) if child not in before]

    async with provider(frame_ms=20) as upstream, session() as client:
        config = ProxyConfig(upstream=upstream.url, log=log, port=0, durability="process")
        async with supervise(config, 2, hung_s=1.0) as proxy:
            first = others()
            url = f"{proxy.url}/v1"
            asking = [asyncio.create_task(ask_at(client, url, number, stream=True)) for number in range(16)]
            await until(lambda: has_open(log, first[0]))
            os.kill(first[0], signal.SIGSTOP)
            answers = await asyncio.gather(*asking, return_exceptions=True)
            await until(lambda: len(others()) == 2 and first[0] not in others())
            await until(lambda: not has_open(log, first[0]))
            later = await asyncio.gather(*(ask_at(client, url, 100 + number) for number in range(16)))
    assert {answer[0] for answer in later} == {200}
    broken = [answer for answer in answers if isinstance(answer, BaseException)]
    assert broken
    assert all(isinstance(answer, aiohttp.ClientError) for answer in broken)
    interrupted = [call for call in rows(log) if call.state == "interrupted"]
    assert {call.writer.split("/")[1] for call in interrupted} == {str(first[0])}
    assert "a worker has not replied for 1 s and is killed" in caplog.text
    assert findings(log) == []


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_workers_go_on_by_themselves_after_a_file_beside_the_log_was_deleted(tmp_path: Path, suffix: str) -> None:
    log = tmp_path / "calls.db"
    async with provider() as upstream, proxy(log, upstream.url, "--workers", "2") as running, session() as client:
        before = [await ask(client, running, number) for number in range(8)]
        (tmp_path / f"calls.db{suffix}").unlink()
        outcomes: Counter[str] = Counter()

        async def goes_on() -> bool:
            try:
                status, _ = await ask(client, running, 100 + outcomes.total())
            except aiohttp.ClientError:
                outcomes["broken"] += 1
                return False
            outcomes[str(status)] += 1
            return status == 200

        async with asyncio.timeout(30):
            while not await goes_on():
                await asyncio.sleep(0.05)
        after = [await ask(client, running, 1000 + number) for number in range(8)]
        code, talk = await running.end()
    assert code == 130
    assert talk.count("the workers are ended") == 1
    answered = {json.loads(body)["id"] for status, body in before + after if status == 200}
    assert len(answered) == 16
    assert set(outcomes) <= {"200", "503", "broken"}
    calls = rows(log)
    assert answered <= {call.response_id for call in calls if call.outcome == "ok"}
    assert "open" not in {call.state for call in calls}
    assert findings(log) == []


async def test_sigterm_lets_what_is_under_way_end_on_every_worker(tmp_path: Path) -> None:
    log = tmp_path / "calls.db"
    async with (
        provider(frame_ms=100) as upstream,
        proxy(log, upstream.url, "--workers", "2") as running,
        session() as client,
    ):
        asking = [asyncio.create_task(ask(client, running, number, stream=True)) for number in range(24)]
        await until_asked(upstream, 24)
        workers = running.workers()
        code, talk = await running.end()
        answers = await asyncio.gather(*asking)
    assert (code, "Traceback" in talk) == (130, False)
    assert not any(runs(pid) for pid in workers)
    assert all(status == 200 and body.rstrip().endswith(b"data: [DONE]") for status, body in answers)
    assert {(call.state, call.outcome) for call in rows(log)} == {("closed", "ok")}
    assert len({call.writer for call in rows(log)}) == 2


async def test_no_worker_outlives_its_supervisor_and_the_next_proxy_takes_over(tmp_path: Path) -> None:
    log = tmp_path / "calls.db"
    async with provider(frame_ms=50) as upstream, session() as client:
        async with proxy(log, upstream.url, "--workers", "2") as running:
            asking = asyncio.create_task(ask(client, running, 1, stream=True))
            await until_asked(upstream, 1)
            workers = running.workers()
            running.process.kill()
            assert (await asking)[0] == 200
            await until_gone(workers)
        again = ["--workers", "2", "--listen", running.url.removeprefix("http://").removesuffix("/v1")]
        async with proxy(log, upstream.url, *again) as running:
            assert (await ask(client, running, 2))[0] == 200
            assert (await running.end())[0] == 130
    assert [(call.state, call.outcome) for call in rows(log)] == [("closed", "ok")] * 2


async def test_a_port_that_workers_share_is_in_use_for_everybody_else(tmp_path: Path) -> None:
    async with proxy(tmp_path / "a.db", "http://127.0.0.1:9/v1", "--workers", "2") as running:
        listen = running.url.removeprefix("http://").removesuffix("/v1")
        arguments = [*command(tmp_path / "b.db", "http://127.0.0.1:9/v1"), "--listen", listen, "--workers", "2"]
        other = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, timeout=30, check=False)
    assert other.returncode == 1
    assert f"{listen} is in use by another program" in other.stderr.decode()


async def test_workers_that_end_before_they_accept_calls_are_given_up_on_with_a_sentence(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path / "a.db", "http://127.0.0.1:9/v1", "--workers", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    async with asyncio.timeout(20):
        while not (found := children.read_text().split()):
            await asyncio.sleep(0.01)
    os.kill(int(found[0]), signal.SIGKILL)
    said, talk = await asyncio.to_thread(process.communicate, timeout=30)
    assert (process.returncode, said) == (1, "")
    assert "error: the proxy's workers end as soon as they are started: the last one was killed by SIGKILL" in talk
    assert "Traceback" not in talk
    assert not any(runs(int(pid)) for pid in found)


async def test_a_worker_that_cannot_live_is_given_up_on_and_the_others_end(tmp_path: Path) -> None:
    async with proxy(tmp_path / "a.db", "http://127.0.0.1:9/v1", "--workers", "2") as running:
        spared, *_ = seen = running.workers()
        async with asyncio.timeout(40):
            while running.process.poll() is None:
                for pid in running.workers():
                    if pid != spared:
                        seen.append(pid)
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)
        _, talk = running.process.communicate()
    assert running.process.returncode == 1
    assert talk.count("a worker was killed by SIGKILL; another takes its place") in {4, 5}
    assert "error: the proxy's workers end as soon as they are started: the last one was killed by SIGKILL" in talk
    assert not any(runs(pid) for pid in seen)


async def test_a_worker_is_replaced_although_the_log_cannot_be_written_for_a_while(tmp_path: Path) -> None:
    log = tmp_path / "calls.db"
    async with (
        provider(frame_ms=200) as upstream,
        proxy(log, upstream.url, "--workers", "2") as running,
        session() as client,
    ):
        asking = [asyncio.create_task(ask(client, running, number, stream=True)) for number in range(8)]
        await until_asked(upstream, 8)
        first = running.workers()
        aside = log.rename(tmp_path / "aside.db")
        os.kill(first[0], signal.SIGKILL)
        await asyncio.sleep(1.5)
        assert running.workers() == first[1:]
        aside.rename(log)
        await until(lambda: len(running.workers()) == 2)
        assert {status for status, _ in await asyncio.gather(*(ask(client, running, n) for n in range(20, 30)))} == {
            200
        }
        await asyncio.gather(*asking, return_exceptions=True)
        code, talk = await running.end()
    assert code == 130
    assert "a worker that ended is replaced once it can be" in talk
    assert not [call for call in rows(log) if call.state == "open"]


async def test_a_limit_holds_for_all_workers_and_no_refusal_reaches_a_client(tmp_path: Path) -> None:
    log = tmp_path / "calls.db"
    async with (
        provider(limit=RateLimit(requests=20, window_s=1.0)) as upstream,
        proxy(log, upstream.url, "--workers", "2", "--on-429", "pace", "--budget", "calls=45") as running,
        session() as client,
    ):
        answers = await asyncio.gather(*(ask(client, running, number) for number in range(50)))
        assert (await running.end())[0] == 130
    statuses = Counter(status for status, _ in answers)
    assert statuses == {200: 45, 400: 5}
    assert len({call.writer for call in rows(log) if call.status == 200}) == 2
    assert Counter(call.outcome for call in rows(log)) == {"ok": 45, "rejected": 5}
