"""Estimates and costs of recorded calls, from rows and bodies in a real log."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from cellmeter_proxy.canonical import MAX_ELEMENTS
from cellmeter_proxy.counts import is_unmetered
from cellmeter_proxy.estimates import Estimator, answer_of, estimate_call, latest_reporting, request_of
from cellmeter_proxy.log import CALIBRATION, Log, digest_of, make_blob
from cellmeter_proxy.prices import Overrides, Price, cost_of, reported_cost
from cellmeter_proxy.record import Call

MAY_2026 = 1_777_593_600_000_000
OPENAI = "https://api.openai.com/v1"
REQUEST = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
"""8 tokens: 3 and the role and the text for the message, 3 for the reply."""
ANSWER = b'{"choices":[{"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}'
"""1 token."""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log.create(tmp_path / "reply.db", "process") as log:
        yield log


def recorded(
    log: Log,
    call_id: str,
    request: bytes = REQUEST,
    answer: bytes = ANSWER,
    *,
    masked: bytes | None = None,
    **columns: Any,
) -> Call:
    """A closed call without usage, and its bodies, in the log; ``masked`` is what was stored of the request."""
    call = Call(
        call_id=call_id,
        session="s",
        writer="h/1/1",
        state="closed",
        dialect="chat.completions",
        upstream=OPENAI,
        request_model="gpt-4o",
        body_hash=digest_of(request),
        request_bytes=len(request),
        request_blob=digest_of(request if masked is None else masked),
        response_blob=digest_of(answer),
        redactions=0 if masked is None else 1,
        status=200,
        outcome="ok",
        started_at=MAY_2026,
    )
    call = msgspec.structs.replace(call, **columns)
    log.append(call)
    for content in (request if masked is None else masked, answer):
        log.put_blob(make_blob(content))
    return call


def reporting(log: Log, call_id: str, prompt: int, **columns: Any) -> Call:
    return recorded(log, call_id, prompt_tokens=prompt, completion_tokens=1, usage_source="provider", **columns)


# Cost


def test_a_call_to_a_known_provider_is_priced_with_its_source(log: Log) -> None:
    call = reporting(log, "a", 1_000_000)
    cost = cost_of(call)
    assert cost is not None
    assert cost.usd == pytest.approx(2.5 + 10e-6)
    assert cost.source.startswith("genai-prices ")
    assert cost.source.endswith(" openai/gpt-4o")


@pytest.mark.parametrize(
    "columns",
    [
        {"upstream": "http://127.0.0.1:9/v1"},
        {"upstream": OPENAI, "request_model": "scripted/small"},
        {"usage_source": "partial"},
        {"usage_source": "estimated"},
    ],
)
def test_a_call_of_no_known_price_or_without_all_its_counts_has_no_cost(log: Log, columns: dict[str, Any]) -> None:
    assert cost_of(msgspec.structs.replace(reporting(log, "a", 1000), **columns)) is None


def test_the_model_that_answered_is_the_one_that_is_priced(log: Log) -> None:
    call = reporting(log, "a", 1_000_000, request_model="gpt-4o", response_model="gpt-4o-mini-2024-07-18")
    cost = cost_of(call)
    assert cost is not None
    assert cost.usd == pytest.approx(0.15, rel=1e-4)


def test_the_users_price_wins_over_the_table_and_the_providers_own_figure_over_both(log: Log) -> None:
    own = Overrides(prices=[Price(host="*", model="gpt-4o*", input=1.0, output=0.0)], source="mine.toml")
    call = reporting(log, "a", 1_000_000)
    cost = cost_of(call, own)
    assert cost is not None
    assert (cost.usd, cost.source) == (1.0, "mine.toml")
    billed = msgspec.structs.replace(call, usage='{"prompt_tokens":1000000,"completion_tokens":1,"cost":0.007}')
    cost = cost_of(billed, own)
    assert cost is not None
    assert (cost.usd, cost.source) == (0.007, "provider")


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (None, None),
        ('{"prompt_tokens":1}', None),
        ('{"cost":0}', 0.0),
        ('[{"cost":1},{"cost":0.5}]', 0.5),
        ('[{"cost":1},{"output_tokens":2}]', 1.0),
        ('{"cost":{"total_cost":1}}', None),
        ('{"cost":-1}', None),
        ('"cost"', None),
        ('{"cost":0.25,"note":"\\ud800"}', 0.25),
        ('{"cost":0.25,"ratio":1e999}', 0.25),
    ],
)
def test_the_cost_in_a_usage_object_is_read_where_it_is_one(usage: str | None, cost: float | None) -> None:
    assert reported_cost(usage) == cost


# Bodies


def test_bodies_are_read_as_they_were_sent_whatever_their_coding(log: Log) -> None:
    call = recorded(
        log,
        "a",
        gzip.compress(REQUEST),
        zstandard.compress(ANSWER),
        request_encoding="gzip",
        response_encoding="zstd",
    )
    assert (request_of(log, call), answer_of(log, call)) == (REQUEST, ANSWER)


def test_an_answer_that_was_cut_in_its_coding_is_read_as_far_as_it_came(log: Log) -> None:
    cut = zlib.compress(ANSWER * 100)[:-10]
    call = recorded(log, "a", answer=cut, response_encoding="deflate")
    assert answer_of(log, call).startswith(ANSWER)


def test_what_was_masked_is_stored_decompressed_and_read_as_such(log: Log) -> None:
    call = recorded(
        log,
        "a",
        gzip.compress(b"secret"),
        b"{}",
        masked=REQUEST,
        request_encoding="deflate",
        response_encoding="deflate",
    )
    assert (request_of(log, call), answer_of(log, call)) == (REQUEST, b"{}")


def test_a_call_whose_bodies_were_masked_is_estimated_without_a_tolerance_and_teaches_nothing(log: Log) -> None:
    made = estimate_call(log, recorded(log, "a", b"secret", masked=REQUEST))
    assert (made.prompt_tokens, made.prompt_tolerance, made.counted_prompt_tokens) == (8, None, None)
    assert "secrets masked in the stored bodies" in made.flags


# Estimates


def test_a_call_without_usage_is_estimated_with_its_method_and_versions(log: Log) -> None:
    reply = Estimator(log).of(recorded(log, "a"))
    assert (reply.prompt_tokens, reply.completion_tokens) == (8, 1)
    assert reply.method is not None
    assert reply.method.startswith("o200k_base, rules for openai: ratio 1, offset +0; cellmeter rules 1, tik")


@pytest.mark.parametrize(
    "columns",
    [
        {"usage_source": "provider"},
        {"status": 429, "outcome": "http_error"},
        {"status": 204, "outcome": "http_error"},
        {"status": 307, "outcome": "http_error"},
        {"response_blob": None},
        {"dialect": "models"},
        {"dialect": "count_tokens"},
        {"dialect": "unknown"},
    ],
)
def test_only_an_answer_of_a_model_without_its_usage_is_estimated(log: Log, columns: dict[str, Any]) -> None:
    assert is_unmetered(recorded(log, "a"))
    assert not is_unmetered(recorded(log, "b", **columns))


def test_the_offset_of_a_provider_is_learned_from_its_calls_that_reported(log: Log) -> None:
    here: dict[str, Any] = {"upstream": "http://10.0.0.1/v1", "request_model": "m"}
    for n in range(3):
        reporting(log, f"r{n}", 108, **here)
    reporting(log, "elsewhere", 9000, upstream="http://10.0.0.2/v1", request_model="m")
    estimator = Estimator(log)
    reply = estimator.of(recorded(log, "a", **here))
    assert reply.prompt_tokens == 108
    assert reply.method is not None
    assert "offset +100 learned from 3 calls" in reply.method


def test_a_call_is_looked_at_once_and_only_the_latest_are(log: Log) -> None:
    for n in range(20):
        reporting(log, f"r{n}", 108 if n >= 8 else 9000)
    estimator = Estimator(log)
    for name in ("a", "b"):
        estimator.of(recorded(log, name))
    reporting(log, "r20", 108)
    estimator.of(recorded(log, "c"))
    (prompt,) = [one for one in estimator.learned.calibration.series if one.key.part == "prompt"]
    assert prompt.points == [(8, 108)] * 13


def test_what_was_learned_is_read_back_from_the_log(log: Log) -> None:
    reporting(log, "r", 108)
    first = Estimator(log)
    first.of(recorded(log, "a"))
    log.set_meta(CALIBRATION, msgspec.json.encode(first.learned).decode())
    assert Estimator(log).learned == first.learned
    log.set_meta(CALIBRATION, '{"calibration":[]}')
    assert Estimator(log).learned.marks == []


def test_a_large_call_is_not_counted_to_learn_from(log: Log) -> None:
    reporting(log, "r", 9000, request_bytes=1_000_001)
    assert Estimator(log).of(recorded(log, "a")).prompt_tokens == 8


@pytest.mark.parametrize(("part", "expected"), [("request", (None, 1)), ("answer", (8, None))])
def test_what_has_too_many_values_to_be_parsed_is_not_counted_and_the_rest_is(
    log: Log, part: str, expected: tuple[int | None, int | None]
) -> None:
    body = (REQUEST if part == "request" else ANSWER)[:-1] + b',"data":[' + b"[]," * (MAX_ELEMENTS + 1) + b"1]}"
    made = estimate_call(log, recorded(log, "a", **{part: body}))
    assert (made.prompt_tokens, made.completion_tokens) == expected


def test_a_call_with_a_large_answer_teaches_nothing_since_it_would_take_long_to_count(log: Log) -> None:
    reported: dict[str, Any] = {"usage_source": "provider", "prompt_tokens": 8, "completion_tokens": 1}
    recorded(log, "a", response_bytes=1_000_001, **reported)
    small = recorded(log, "b", response_bytes=1_000_000, **reported)
    assert list(latest_reporting(log, small, count=9)) == [small]
