"""Offline estimates beside what providers reported, from bodies in a real log."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellmeter_proxy.log import Log, digest_of, make_blob
from cellmeter_proxy.record import Call
from cellmeter_scoring.audit import Audit, audit
from cellmeter_scoring.estimates import with_estimates
from cellmeter_scoring.testing import make_call, make_failed_call

ANSWER = b'{"choices":[{"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}'
"""1 token."""
GPT: dict[str, Any] = {"request_model": "gpt-4o", "upstream": "https://api.openai.com/v1"}
OWN: dict[str, Any] = {"request_model": "own/model", "upstream": "http://10.0.0.1/v1"}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log.create(tmp_path / "estimates.db", "process") as log:
        yield log


def request(words: int) -> bytes:
    """A prompt of 7 tokens and one for each word: 3 and the role for the message, 3 for the reply."""
    return b'{"messages":[{"role":"user","content":"%s"}]}' % (b"hi" + b" hi" * (words - 1))


def recorded(log: Log, call_id: str, words: int, prompt: int | None, **columns: Any) -> Call:
    """A call with its bodies in the log; ``prompt`` is what the provider reported, None where it reported nothing."""
    body = request(words)
    told: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": 1, "usage_source": "provider"}
    if prompt is None:
        told = {"prompt_tokens": None, "completion_tokens": None, "usage_source": "none", "cost": None}
    call = make_call(
        call_id,
        float(call_id),
        body_hash=digest_of(body),
        request_blob=digest_of(body),
        request_bytes=len(body),
        response_blob=digest_of(ANSWER),
        **{**GPT, **told, **columns},
    )
    for content in (body, ANSWER):
        log.put_blob(make_blob(content))
    log.append(call)
    return call


def estimated(log: Log, **chosen: str) -> Audit:
    return with_estimates(log, audit(log, **chosen))


def findings(found: Audit) -> list[tuple[str, list[str]]]:
    return [(finding.kind, finding.ids) for finding in found.findings]


def test_an_estimate_stands_beside_what_the_provider_reported_and_changes_none_of_it(log: Log) -> None:
    call = recorded(log, "1", 10, 17)
    found = estimated(log)
    (audited,) = found.calls
    assert (audited.prompt_tokens, audited.completion_tokens, audited.usage_source) == (17, 1, "provider")
    assert (audited.estimated_prompt_tokens, audited.estimated_completion_tokens) == (17, 1)
    assert audited.estimate_method is not None
    assert audited.estimate_method.startswith("o200k_base, rules for openai")
    assert findings(found) == []
    assert list(log.rows(Call)) == [call]


def test_a_call_without_usage_is_counted_by_its_estimate(log: Log) -> None:
    recorded(log, "1", 10, None)
    found = estimated(log)
    assert [(call.usage_source, call.estimated_prompt_tokens) for call in found.calls] == [("estimated", 17)]
    assert found.totals.estimated_prompt_tokens.sum == 17
    assert findings(found) == [("estimate", ["1"])]


def test_an_estimate_that_the_relay_made_stays(log: Log) -> None:
    recorded(log, "1", 10, None, usage_source="estimated", estimated_prompt_tokens=99, estimate_method="then")
    (call,) = estimated(log).calls
    assert (call.estimated_prompt_tokens, call.estimate_method) == (99, "then")


def test_partial_usage_stays_partial(log: Log) -> None:
    recorded(log, "1", 10, 17, completion_tokens=None, usage_source="partial")
    (call,) = estimated(log).calls
    assert (call.usage_source, call.estimated_prompt_tokens, call.estimated_completion_tokens) == ("partial", 17, 1)


def test_what_no_model_answered_and_what_lost_its_body_have_no_estimate(log: Log) -> None:
    log.append(make_failed_call("1", 1, 429))
    log.append(make_call("2", 2, request_blob="sha256:gone", response_blob="sha256:gone"))
    assert [call.estimate_method for call in estimated(log).calls] == [None, None]


def test_usage_beyond_the_error_of_its_estimate_is_found(log: Log) -> None:
    recorded(log, "1", 10, 17)
    recorded(log, "2", 1000, 1300)
    recorded(log, "3", 1000, 1007, completion_tokens=400)
    prompt, completion = estimated(log).findings
    assert (prompt.kind, prompt.ids) == ("usage differs", ["2"])
    assert prompt.message == (
        "1 call: the provider's prompt tokens are beyond the error of their estimate;"
        " the furthest reported 1,300, estimated 1,007 ± 19"
    )
    assert (completion.kind, completion.ids) == ("usage differs", ["3"])
    assert completion.message.endswith("the furthest reported 400, estimated 1 ± 9")


def test_a_provider_that_counts_in_its_own_way_is_told_from_one_that_is_off(log: Log) -> None:
    for n in range(1, 9):
        recorded(log, str(n), n * 100, 2 * n * 100 + 500, **OWN)
    recorded(log, "9", 300, 4000, **OWN)
    found = estimated(log)
    kinds = dict(findings(found))
    assert set(kinds) == {"counts otherwise", "usage differs"}
    assert kinds["usage differs"] == ["9"]
    assert set(kinds["counts otherwise"]) == {str(n) for n in range(1, 9)}
    (message,) = [finding.message for finding in found.findings if finding.kind == "counts otherwise"]
    assert message.startswith("8 calls: the prompt tokens of own/model agree with each other, and not with the rules")


def test_a_call_is_never_its_own_witness(log: Log) -> None:
    """By the rules it is off, and there are too few others to say that the provider always counts so."""
    for n in (1, 2, 3):
        recorded(log, str(n), 1000, 3000, **OWN)
    assert findings(estimated(log)) == [("usage differs", ["1", "2", "3"])]
    recorded(log, "4", 1000, 3000, **OWN)
    assert findings(estimated(log)) == [("counts otherwise", ["1", "2", "3", "4"])]


def test_a_call_without_usage_is_estimated_by_what_all_calls_of_the_log_teach(log: Log) -> None:
    for n in (1, 2, 3):
        recorded(log, str(n), 100, 207, **OWN)
    recorded(log, "4", 50, None, session="other", cell_id=None, **OWN)
    found = estimated(log, session="other")
    (call,) = found.calls
    assert call.estimated_prompt_tokens == 157
    assert call.estimate_method is not None
    assert "offset +100 learned from 3 calls" in call.estimate_method
