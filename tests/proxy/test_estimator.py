"""The estimator's process: when it starts, what it answers, how it ends."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellmeter_proxy.estimator import EstimatorProcess
from cellmeter_proxy.log import Log, digest_of, make_blob
from cellmeter_proxy.record import Call

REQUEST = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
ANSWER = b'{"choices":[{"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}'
CALL = Call(
    call_id="a",
    session="s",
    writer="h/1/1",
    state="closed",
    dialect="chat.completions",
    request_model="gpt-4o",
    body_hash=digest_of(REQUEST),
    request_blob=digest_of(REQUEST),
    response_blob=digest_of(ANSWER),
    status=200,
    outcome="ok",
    started_at=1,
)


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    path = tmp_path / "calls.db"
    with Log.create(path, "process") as log:
        log.append(CALL)
        log.put_blob(make_blob(REQUEST))
        log.put_blob(make_blob(ANSWER))
    return path


@pytest.fixture
def estimator(log_path: Path) -> Iterator[EstimatorProcess]:
    estimator = EstimatorProcess(log_path)
    yield estimator
    estimator.close()


def test_it_answers_with_the_estimate_of_a_call_and_with_what_it_learned(estimator: EstimatorProcess) -> None:
    reply = estimator.estimate(CALL)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.error) == (8, 1, None)
    assert reply.method is not None
    assert reply.learned is not None


def test_a_call_that_it_cannot_read_is_answered_with_the_reason_and_the_next_one_with_its_estimate(
    estimator: EstimatorProcess,
) -> None:
    lost = Call(call_id="b", session="s", writer="w", request_blob="sha256:0", started_at=1)
    assert estimator.estimate(lost).error == "KeyError: 'sha256:0'"
    assert estimator.estimate(CALL).prompt_tokens == 8


def test_modules_of_the_directory_that_it_is_started_in_are_not_its_own(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("msgspec.py", "tiktoken.py"):
        (log_path.parent / name).write_text("raise SystemExit('taken over')\n")
    monkeypatch.chdir(log_path.parent)
    estimator = EstimatorProcess(Path(log_path.name))
    assert estimator.estimate(CALL).prompt_tokens == 8
    estimator.close()


def test_one_that_was_killed_says_so_once_and_is_started_again(estimator: EstimatorProcess) -> None:
    estimator.estimate(CALL)
    estimator.kill()
    with pytest.raises(OSError, match=r"ended|Broken pipe"):
        estimator.estimate(CALL)
    assert estimator.estimate(CALL).prompt_tokens == 8


def test_whoever_waits_for_a_reply_is_released_when_it_is_killed(log_path: Path) -> None:
    estimator = EstimatorProcess(log_path)
    errors: list[OSError] = []

    def ask() -> None:
        try:
            while True:
                estimator.estimate(CALL)
        except OSError as error:
            errors.append(error)

    estimator.estimate(CALL)
    thread = threading.Thread(target=ask)
    thread.start()
    estimator.kill()
    thread.join(10)
    assert len(errors) == 1
    estimator.close()
