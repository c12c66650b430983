"""One cell from its first row to its last: phases, spans, artifacts, and every way in which it can go wrong."""

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from cellmeter_harness.agent import Agent, load_agent
from cellmeter_harness.cell import Bench, Classify, run_cell
from cellmeter_harness.sandbox import Sandbox
from cellmeter_harness.sandbox.bubblewrap import PORT, BubblewrapSandbox, problem
from cellmeter_harness.sandbox.process import ProcessSandbox
from cellmeter_harness.sweep import CellPlan
from cellmeter_harness.task import Task
from cellmeter_harness.testing import LogRecorder, tiny_agent, tiny_task
from cellmeter_proxy.budget import Budget
from cellmeter_proxy.record import (
    Artifact,
    Attempt,
    Call,
    Cell,
    FailureClass,
    Grade,
    Record,
    Span,
    Workspace,
    now_us,
)
from cellmeter_scoring import classify

FIX = "echo fixed > state"
MASKED = "*" * 35
TROUBLE = problem()


class Verdict(msgspec.Struct, frozen=True):
    failure_class: FailureClass
    reason: str | None
    evidence: list[str]


def by_the_grade(cell: Cell, calls: Sequence[Call], attempts: Sequence[Attempt]) -> Verdict:
    passed = cell.grade is not None and cell.grade.passed
    return Verdict("none" if passed else "agent_error", "judged by its grade", [call.call_id for call in calls])


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[LogRecorder]:
    recorder = LogRecorder(tmp_path / "log.db")
    yield recorder
    recorder.close()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of temporary files, for seeing that nothing stays there."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return tiny_task(tmp_path / "tasks" / "fix")


def plan_of(agent: Agent, task: Task, timeout_s: float = 20) -> CellPlan:
    return CellPlan(sweep_id="s", agent=agent, model="org/model", task=task, run=1, timeout_s=timeout_s)


def bench_of(recorder: LogRecorder, sandbox: Sandbox | None = None, classify: Classify = by_the_grade) -> Bench:
    return Bench(sandbox=sandbox or ProcessSandbox(), recorder=recorder, classify=classify)


def control(tmp_path: Path, kind: str) -> Agent:
    path = tmp_path / f"{kind}.toml"
    path.write_text(f'name = "{kind}"\nversion = "1"\ndescription = "A control"\nkind = "{kind}"\n')
    return load_agent(path)


def artifact(recorder: LogRecorder, name: str) -> str:
    row = next(recorder.log.rows(Artifact, "name = ?", (name,)))
    content = recorder.log.blob(row.blob)
    assert len(content) == row.size
    return content.decode()


async def test_the_oracle_passes_and_its_row_says_everything(
    tmp_path: Path, recorder: LogRecorder, task: Task, scratch: Path
) -> None:
    cell = await run_cell(plan_of(control(tmp_path, "oracle"), task), 1, bench_of(recorder))

    assert list(recorder.log.rows(Cell)) == [cell]
    assert cell.cell_id == "s/oracle/org/model/tiny/fix#run1"
    assert (cell.category, cell.task, cell.run, cell.attempt) == ("tiny", "fix", 1, 1)
    assert (cell.agent, cell.agent_version, cell.expects_calls) == ("oracle", "1", False)
    assert (cell.isolation, cell.task_digest, cell.task_facts) == ("process", task.digest, task.facts())
    assert cell.workspace == Workspace(modified=["state"])
    assert cell.grade == Grade(exit_code=0, stdout_tail="state is fixed\n", passed=True)
    assert (cell.failure_class, cell.failure_reason) == ("none", "judged by its grade")
    assert (cell.exit_code, cell.timed_out) == (None, False)
    assert [phase.name for phase in cell.phases] == ["prepare", "run", "collect", "grade", "finalize"]
    assert [phase.error for phase in cell.phases] == [None] * 5
    assert recorder.keys == {}
    assert list(scratch.iterdir()) == []


async def test_the_clock_of_a_cell_runs_from_its_preparation_to_the_end_of_the_agent(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    cell = await run_cell(plan_of(control(tmp_path, "oracle"), task), 1, bench_of(recorder))
    run = next(phase for phase in cell.phases if phase.name == "run")
    assert cell.ended_at == run.ended_at
    assert cell.started_at <= cell.phases[0].started_at


async def test_doing_nothing_fails_and_changes_nothing(tmp_path: Path, recorder: LogRecorder, task: Task) -> None:
    cell = await run_cell(plan_of(control(tmp_path, "null"), task), 1, bench_of(recorder))
    assert cell.workspace == Workspace()
    assert cell.grade == Grade(exit_code=1, passed=False, missing=["state is fixed"])
    assert artifact(recorder, "diff") == ""


async def test_an_agents_run_leaves_the_spans_of_the_seed_pages(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    agent = tiny_agent(tmp_path / "doer.toml", FIX, 'git = "marker"')
    cell = await run_cell(plan_of(agent, task), 1, bench_of(recorder))

    spans = {span.name: span for span in recorder.log.rows(Span)}
    assert {(span.kind, span.name) for span in spans.values()} == {
        ("task_setup", "prepare:tiny/fix"),
        ("adapter_run", "doer:tiny/fix"),
        ("task_setup", "doer:git-init-marker"),
        ("tool_call", "applied_plugins"),
        ("container", "doer:launch"),
        ("grade", "grade:tiny/fix"),
        ("cleanup", "cleanup:doer"),
    }
    adapter = spans["doer:tiny/fix"]
    children = {"doer:git-init-marker", "applied_plugins", "doer:launch"}
    assert {name for name, span in spans.items() if span.parent_id == adapter.span_id} == children
    assert all(span.parent_id is None for name, span in spans.items() if name not in children)
    assert {span.cell_id for span in spans.values()} == {cell.cell_id}

    assert spans["prepare:tiny/fix"].attrs.keys() == {"workdir", "task_category", "plugin_stack", "behavior_mode"}
    assert spans["prepare:tiny/fix"].attrs["workdir"].endswith("/workdir")
    assert spans["doer:git-init-marker"].attrs["git_dir_exists"] is True
    assert adapter.attrs == {"timeout_s": 20, "plugin_stack": [], "exit_code": 0}
    launch = spans["doer:launch"]
    assert launch.attrs["argv"] == ["-c", FIX, "tiny", task.description]
    assert {name: launch.attrs[name] for name in ("program", "exit_code", "timed_out", "timeout_s")} == {
        "program": "sh",
        "exit_code": 0,
        "timed_out": False,
        "timeout_s": 20,
    }
    assert 0 < launch.attrs["duration_s"] <= launch.duration_ms / 1000 <= adapter.duration_ms / 1000
    assert spans["applied_plugins"].attrs["count"] == 0
    assert cell.workspace == Workspace(modified=["state"], extra_git_dir=True)


async def test_a_repository_holds_the_task_as_its_one_commit(tmp_path: Path, recorder: LogRecorder, task: Task) -> None:
    script = "git log --format='%an %s %ad'; git status --short; git config user.name"
    agent = tiny_agent(tmp_path / "doer.toml", script, 'git = "repository"')
    cell = await run_cell(plan_of(agent, task), 1, bench_of(recorder))
    assert artifact(recorder, "stdout") == "agent Task Thu Jan 1 00:00:00 2026 +0000\nagent\n"
    assert cell.workspace == Workspace(extra_git_dir=True)


async def test_the_agents_key_is_its_own_ends_with_it_and_is_written_nowhere(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    script = 'echo "$KEY $URL $2"; echo "$KEY" >&2; echo "$KEY" > leak'
    more = '[env]\nKEY = "{api_key}"\nURL = "{base_url} {api_root} {model}"'
    agent = tiny_agent(tmp_path / "doer.toml", script, more)
    agent = msgspec.structs.replace(agent, command=[*agent.command, "--key={api_key}"])
    cell = await run_cell(plan_of(agent, task), 1, bench_of(recorder))

    (key,) = recorder.keys
    assert recorder.keys[key] == (cell.cell_id, 1)
    assert recorder.valid == set()
    assert artifact(recorder, "stdout") == (
        f"{MASKED} http://127.0.0.1:9/v1 http://127.0.0.1:9 org/model --key={MASKED}\n"
    )
    assert f"+{MASKED}\n" in artifact(recorder, "diff")
    recorder.log.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    rows = [str(row) for row in [*recorder.log.rows(Cell), *recorder.log.rows(Span)]]
    blobs = [recorder.log.blob(row.blob).decode() for row in recorder.log.rows(Artifact)]
    assert key not in "".join(rows + blobs)


async def test_what_the_agent_reports_and_its_state_files_are_kept_beside_what_was_recorded(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    more = (
        'state_files = [".doer*"]\nhome = "workspace"\n'
        "[reported]\npattern = 'sent (?P<prompt>[0-9.k]+) got (?P<completion>[0-9.k]+)'\ncombine = \"sum\"\n"
    )
    agent = tiny_agent(tmp_path / "doer.toml", "echo sent 1.3k got 10; echo sent 1 got 2; echo x > $HOME/.doer", more)
    cell = await run_cell(plan_of(agent, task), 1, bench_of(recorder))
    assert cell.reported is not None
    assert (cell.reported.prompt_tokens, cell.reported.completion_tokens) == (1301, 12)
    assert cell.state_files == [".doer*"]
    assert cell.workspace == Workspace(added=[".doer"])


@pytest.mark.parametrize(("combine", "reported"), [("sum", None), ("last", 2)])
async def test_a_sum_over_output_of_which_a_part_was_dropped_is_not_taken_for_a_total(
    tmp_path: Path, recorder: LogRecorder, task: Task, combine: str, reported: int | None
) -> None:
    more = f"[reported]\npattern = 'sent (?P<prompt>[0-9]+) got (?P<completion>[0-9]+)'\ncombine = \"{combine}\"\n"
    script = "echo sent 1 got 1; yes | head -c 5000000; echo sent 2 got 2"
    cell = await run_cell(plan_of(tiny_agent(tmp_path / "doer.toml", script, more), task), 1, bench_of(recorder))
    assert (cell.reported.prompt_tokens if cell.reported else None) == reported


async def test_an_agent_finds_its_settings_in_its_home_filled_in_with_its_key_and_address(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    more = '[files]\n\'.doer/settings.json\' = \'{"url": "{base_url}", "model": "{model}", "key": "{api_key}"}\'\n'
    agent = tiny_agent(tmp_path / "doer.toml", "cat $HOME/.doer/settings.json", more)
    cell = await run_cell(plan_of(agent, task), 1, bench_of(recorder))
    settings = {"url": "http://127.0.0.1:9/v1", "model": "org/model", "key": MASKED}
    assert json.loads(artifact(recorder, "stdout")) == settings
    assert cell.workspace == Workspace()


async def test_a_private_home_is_not_in_the_workspace_and_names_a_git_user(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    agent = tiny_agent(tmp_path / "doer.toml", "git config --global user.email; echo > $HOME/x; echo > $TMPDIR/y")
    cell = await run_cell(plan_of(agent, task), 1, bench_of(recorder))
    assert artifact(recorder, "stdout") == "agent@localhost\n"
    assert cell.workspace == Workspace()


async def test_tests_that_the_agent_changed_or_added_do_not_judge_it(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    cheat = "echo 'echo state is fixed' > tests/grade.sh; echo 'echo state is fixed; exit 0' > tests/hook"
    cell = await run_cell(plan_of(tiny_agent(tmp_path / "cheat.toml", cheat), task), 1, bench_of(recorder))
    assert cell.grade is not None
    assert not cell.grade.passed
    assert cell.workspace == Workspace(added=["tests/hook"], modified=["tests/grade.sh"])
    assert "+echo state is fixed; exit 0\n" in artifact(recorder, "diff")


async def test_exit_code_zero_is_not_enough_where_lines_are_required(tmp_path: Path, recorder: LogRecorder) -> None:
    lazy = tiny_task(tmp_path / "tasks" / "lazy", grader='["true"]')
    cell = await run_cell(plan_of(control(tmp_path, "oracle"), lazy), 1, bench_of(recorder))
    assert cell.grade == Grade(exit_code=0, passed=False, missing=["state is fixed"])


async def test_the_row_keeps_the_last_of_what_the_grader_said(tmp_path: Path, recorder: LogRecorder) -> None:
    grader = '["sh", "-c", "yes x | head -c 9000; echo state is fixed"]'
    loud = tiny_task(tmp_path / "tasks" / "loud", grader=grader)
    cell = await run_cell(plan_of(control(tmp_path, "oracle"), loud), 1, bench_of(recorder))
    assert cell.grade is not None
    assert len(cell.grade.stdout_tail) == 4096
    assert cell.grade.stdout_tail.endswith("x\nstate is fixed\n")
    assert len(artifact(recorder, "grader_stdout")) == 9015


async def test_an_agent_that_takes_too_long_is_graded_on_what_it_left(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    agent = tiny_agent(tmp_path / "slow.toml", f"{FIX}; echo did it; sleep 600")
    cell = await run_cell(plan_of(agent, task, timeout_s=0.7), 1, bench_of(recorder))
    assert (cell.timed_out, cell.exit_code) == (True, None)
    assert cell.grade is not None
    assert cell.grade.passed
    assert [phase.error for phase in cell.phases] == [None] * 5
    assert artifact(recorder, "stdout") == "did it\n"


async def test_an_agent_that_fails_is_graded_and_its_exit_code_kept(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    cell = await run_cell(plan_of(tiny_agent(tmp_path / "bad.toml", "exit 3"), task), 1, bench_of(recorder))
    assert cell.exit_code == 3
    assert cell.grade is not None


async def test_an_agent_that_cannot_be_started_is_an_error_of_the_run_and_the_rest_is_done(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    agent = tiny_agent(tmp_path / "gone.toml", "")
    agent = msgspec.structs.replace(agent, command=["/nowhere/agent"])
    cell = await run_cell(plan_of(agent, task), 1, bench_of(recorder))
    errors = {phase.name: phase.error for phase in cell.phases}
    assert errors.pop("run") == ("OSError: the command could not be started: /nowhere/agent: No such file or directory")
    assert set(errors.values()) == {None}
    assert cell.exit_code is None
    assert cell.grade is not None
    launch = next(recorder.log.rows(Span, "kind = 'container'"))
    assert "No such file" in (launch.error or "")
    assert recorder.valid == set()


async def test_a_grader_that_cannot_be_started_is_an_error_of_the_grading(
    tmp_path: Path, recorder: LogRecorder
) -> None:
    broken = tiny_task(tmp_path / "tasks" / "broken", grader='["/nowhere/grader"]')
    cell = await run_cell(plan_of(control(tmp_path, "oracle"), broken), 1, bench_of(recorder))
    errors = {phase.name: phase.error for phase in cell.phases}
    assert "/nowhere/grader" in (errors["grade"] or "")
    assert cell.grade is None
    assert cell.workspace == Workspace(modified=["state"])


async def test_a_task_that_cannot_be_prepared_is_neither_run_nor_graded(
    tmp_path: Path, recorder: LogRecorder, task: Task, scratch: Path
) -> None:
    os.mkfifo(task.workdir / "pipe")
    cell = await run_cell(plan_of(control(tmp_path, "oracle"), task), 1, bench_of(recorder))
    assert [phase.name for phase in cell.phases] == ["prepare", "finalize"]
    assert cell.phases[0].error == "the task tiny/fix holds what cannot be given to an agent: pipe"
    assert (cell.workspace, cell.grade) == (None, None)
    assert cell.ended_at is not None
    assert list(scratch.iterdir()) == []


async def test_a_program_that_a_task_requires_and_that_is_gone_is_named(tmp_path: Path, recorder: LogRecorder) -> None:
    needy = tiny_task(tmp_path / "tasks" / "needy", requires='["no-such-program"]')
    cell = await run_cell(plan_of(control(tmp_path, "oracle"), needy), 1, bench_of(recorder))
    errors = {phase.name: phase.error for phase in cell.phases}
    assert errors["grade"] == "the task tiny/needy needs no-such-program, which is not on PATH"


async def test_a_verdict_that_cannot_be_reached_still_completes_the_row(
    tmp_path: Path, recorder: LogRecorder, task: Task
) -> None:
    def broken(cell: Cell, calls: Sequence[Call], attempts: Sequence[Attempt]) -> Verdict:
        raise LookupError("no rule")

    cell = await run_cell(plan_of(control(tmp_path, "oracle"), task), 1, bench_of(recorder, classify=broken))
    assert (cell.failure_class, cell.failure_reason) == (
        "harness_error",
        "the cell could not be classified: LookupError: no rule",
    )
    assert list(recorder.log.rows(Cell)) == [cell]


class WatchfulRecorder(LogRecorder):
    """Notes the order in which things are asked of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.order: list[str] = []

    def issue_key(self, cell_id: str, attempt: int, budget: Budget | None = None) -> str:
        self.order.append("key")
        return super().issue_key(cell_id, attempt, budget)

    async def append(self, *records: Record) -> None:
        self.order += [type(record).__name__ for record in records]
        await super().append(*records)

    async def replace(self, record: Record) -> None:
        self.order.append("completed")
        await super().replace(record)


async def test_the_row_is_there_before_anything_happens_and_completed_after_everything(
    tmp_path: Path, task: Task
) -> None:
    recorder = WatchfulRecorder(tmp_path / "watched.db")
    await run_cell(plan_of(tiny_agent(tmp_path / "doer.toml", FIX), task), 1, bench_of(recorder))
    assert recorder.order[:2] == ["Cell", "key"]
    assert set(recorder.order[2:-1]) == {"Artifact", "Span"}
    assert recorder.order[-1] == "completed"
    recorder.close()


async def test_a_cancelled_cell_is_recorded_with_what_it_had_and_nothing_is_left_behind(
    tmp_path: Path, recorder: LogRecorder, task: Task, scratch: Path
) -> None:
    agent = tiny_agent(tmp_path / "slow.toml", f"echo $$ > {tmp_path}/pid; echo working; {FIX}; sleep 600")
    running = asyncio.create_task(run_cell(plan_of(agent, task), 1, bench_of(recorder)))
    pid = tmp_path / "pid"
    while not pid.exists() or not pid.read_text().endswith("\n"):
        await asyncio.sleep(0.01)
    (begun,) = recorder.log.rows(Cell)
    assert (begun.ended_at, begun.failure_class, begun.phases) == (None, None, [])
    while not running.done():
        running.cancel()
        await asyncio.sleep(0)
    assert running.cancelled()

    (cell,) = recorder.log.rows(Cell)
    assert (cell.failure_class, cell.failure_reason) == ("cancelled", "the run was interrupted")
    assert cell.ended_at is not None
    assert [(phase.name, phase.error) for phase in cell.phases] == [
        ("prepare", None),
        ("run", "cancelled"),
        ("finalize", None),
    ]
    assert (cell.exit_code, cell.timed_out) == (None, False)
    assert artifact(recorder, "stdout") == "working\n"
    assert recorder.valid == set()
    assert list(scratch.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_the_verdict_rests_on_calls_that_are_over(tmp_path: Path, recorder: LogRecorder, task: Task) -> None:
    agent = tiny_agent(tmp_path / "doer.toml", FIX)
    plan = plan_of(agent, task)
    call = Call(
        call_id="c1",
        session="s",
        cell_id=plan.cell_id,
        cell_attempt=1,
        writer="w",
        started_at=now_us(),
        dialect="unknown",
    )
    recorder.log.open_call(call)
    states: list[str] = []

    def watch(cell: Cell, calls: Sequence[Call], attempts: Sequence[Attempt]) -> Verdict:
        states.extend(call.state for call in calls)
        assert [attempt.n for attempt in attempts] == [1]
        return by_the_grade(cell, calls, attempts)

    class Draining(LogRecorder):
        """The proxy that closes the call only after the agent has gone."""

        def __init__(self, inner: LogRecorder) -> None:
            self.__dict__ = inner.__dict__

        def revoke_key(self, key: str) -> None:
            super().revoke_key(key)
            closed = msgspec.structs.replace(call, state="closed", outcome="client_gone", ended_at=now_us())
            attempt = Attempt(call_id="c1", n=1, started_at=now_us())
            asyncio.get_running_loop().call_later(0.3, self.log.close_call, closed, [attempt])

    cell = await run_cell(plan, 1, bench_of(Draining(recorder), classify=watch))
    assert states == ["closed"]
    assert cell.evidence == ["c1"]


@pytest.mark.skipif(TROUBLE is not None, reason=f"bubblewrap does not work here: {TROUBLE}")
async def test_a_cell_in_bubblewrap_reaches_the_proxy_and_nothing_else_and_is_graded_without_it(
    tmp_path: Path, scratch: Path
) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nfixed\n")
        await writer.drain()
        writer.close()

    socket_path = tmp_path / "proxy.sock"
    server = await asyncio.start_unix_server(answer, socket_path)
    agent_files = tmp_path / "caller"
    agent_files.mkdir()
    (agent_files / "agent.py").write_text(
        "import sys, urllib.request\n"
        "request = urllib.request.Request(sys.argv[1], headers={'Authorization': f'Bearer {sys.argv[2]}'})\n"
        "open('state', 'wb').write(urllib.request.urlopen(request).read())\n"
    )
    manifest = tmp_path / "caller.toml"
    manifest.write_text(
        'name = "caller"\nversion = "1"\ndescription = "Asks the proxy"\nkind = "command"\n'
        'command = ["{python}", "{agent_dir}/agent.py", "{base_url}/chat", "{api_key}"]\n'
    )
    alone = (
        "import os, socket, subprocess, sys; assert not os.path.exists('/opt/agent'); "
        f"assert socket.socket().connect_ex(('127.0.0.1', {PORT})); sys.exit(subprocess.call(['sh', 'tests/grade.sh']))"
    )
    grader = f"""["{{python}}", "-c", "{alone}"]"""
    task = tiny_task(tmp_path / "tasks" / "fix", grader=grader)
    recorder = LogRecorder(tmp_path / "log.db", url="http://127.0.0.1:1", socket_path=socket_path)
    async with server:
        cell = await run_cell(plan_of(load_agent(manifest), task), 1, bench_of(recorder, BubblewrapSandbox()))
    assert (cell.isolation, cell.exit_code) == ("bubblewrap", 0), artifact(recorder, "stderr")
    assert cell.grade is not None
    assert cell.grade.passed, cell.grade
    assert cell.workspace == Workspace(modified=["state"])
    (key,) = recorder.keys
    assert asked[0].startswith(b"GET /v1/chat HTTP/1.1\r\n")
    assert f"Bearer {key}".encode() in asked[0]
    assert list(scratch.iterdir()) == []
    recorder.close()


@pytest.mark.parametrize("sandbox", [ProcessSandbox(), BubblewrapSandbox()], ids=["process", "bubblewrap"])
@pytest.mark.parametrize(
    "script",
    [
        "kill -9 $PPID; sleep 600",
        'dir=$(pwd); cd /; rm -rf "$dir"; ln -s /etc "$dir" && echo fixed; exit 3',
        "i=0; while [ $i -lt 60 ]; do mkdir -p $(printf %0200d 1); cd -P $(printf %0200d 1); i=$((i+1)); done; exit 3",
    ],
    ids=["kills its supervisor", "replaces its workspace", "nests directories"],
)
async def test_an_agent_cannot_make_itself_a_failure_of_the_infrastructure(
    script: str, sandbox: Sandbox, tmp_path: Path, task: Task, scratch: Path
) -> None:
    if sandbox.isolation == "bubblewrap":
        if TROUBLE is not None:
            pytest.skip(TROUBLE)
        script = script.replace("sleep 600", "exit 1")  # that kill does nothing there
    socket_path = tmp_path / "proxy.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_path))
        recorder = LogRecorder(tmp_path / "log.db", socket_path=socket_path)
        agent = tiny_agent(tmp_path / "doer.toml", script)
        cell = await run_cell(plan_of(agent, task), 1, bench_of(recorder, sandbox, classify))
        recorder.close()
    assert cell.failure_class == "agent_error", cell.failure_reason
    assert cell.failure_reason is not None
    assert len(cell.failure_reason) < 400
    assert list(scratch.iterdir()) == []
