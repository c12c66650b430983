import pytest

from cellmeter_proxy.record import Call
from cellmeter_scoring.attention import findings_of
from cellmeter_scoring.finding import Finding
from cellmeter_scoring.testing import at, make_attempt, make_call, make_failed_call


def kinds(*calls: Call) -> list[tuple[str, list[str]]]:
    return [(finding.kind, finding.ids) for finding in findings_of(calls, {})]


def test_calls_that_went_well_have_nothing_to_say() -> None:
    assert kinds(make_call("a", 1), make_call("b", 3)) == []


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (make_call("a", usage_source="estimated"), "estimate"),
        (make_call("a", usage_source="partial"), "partial usage"),
        (make_call("a", prompt_tokens=None, usage_source="none"), "no usage"),
        (make_call("a", dialect="unknown"), "unread"),
        (make_failed_call("a", 1, 429), "throttled"),
        (make_failed_call("a", 1, 500), "http error"),
        (make_failed_call("a", 1, 401, outcome="rejected"), "rejected"),
        (make_failed_call("a", 1, None), "unreachable"),
        (make_call("a", outcome="timeout"), "timeout"),
        (make_call("a", outcome="stream_error"), "stream cut"),
        (make_call("a", outcome="client_gone"), "client gone"),
        (make_call("a", outcome="interrupted", state="interrupted"), "interrupted"),
        (make_call("a", outcome=None, state="open"), "open"),
        (make_call("a", finish_reason="length"), "length limit"),
        (make_call("a", retry_number=1), "agent retry"),
        (make_call("a", cost=None, price_source=None), "no price"),
    ],
)
def test_each_kind_is_found_alone(call: Call, kind: str) -> None:
    assert kinds(call) == [(kind, ["a"])]


def test_the_same_request_again_is_a_retry_after_a_failure_and_a_repetition_after_an_answer() -> None:
    same = "c1:sha256:same"
    failed = make_failed_call("a", 1, 500, request_hash=same)
    retried = make_call("b", 3, request_hash=same)
    repeated = make_call("c", 5, request_hash=same)
    elsewhere = make_call("d", 7, request_hash=same, session="other")
    assert kinds(failed, retried, repeated, elsewhere) == [
        ("http error", ["a"]),
        ("agent retry", ["b"]),
        ("repeated request", ["c"]),
    ]


def test_an_answer_that_an_sdk_did_not_receive_is_retried_not_repeated() -> None:
    calls = [make_call(name, n, request_hash="c1:sha256:same", retry_number=n) for n, name in enumerate("ab")]
    assert kinds(*calls) == [("agent retry", ["b"]), ("paid again", ["b"])]


def test_a_retry_that_a_model_may_have_worked_on_twice_is_named() -> None:
    same = "c1:sha256:same"
    left = make_call("a", 1, request_hash=same, outcome="client_gone", client_gone_at=at(2))
    refused = make_failed_call("b", 3, 429, request_hash=same)
    again = make_call("c", 5, request_hash=same)
    assert kinds(left, refused, again) == [
        ("throttled", ["b"]),
        ("client gone", ["a"]),
        ("agent retry", ["b", "c"]),
        ("paid again", ["c"]),
    ]
    assert kinds(left, make_call("d", 3, request_hash=same, attached_to="a")) == [
        ("client gone", ["a"]),
        ("agent retry", ["d"]),
    ]


def test_a_call_of_several_tries_is_named_with_its_count() -> None:
    attempts = {"a": [make_attempt("a", 1, 1, 429), make_attempt("a", 2, 2, 200)]}
    assert findings_of([make_call("a")], attempts) == [
        Finding(kind="proxy retry", message="1 call: answered after more than one try upstream", ids=["a"])
    ]


def test_calls_without_a_price_are_named_by_their_models() -> None:
    calls = [
        make_call("a", 1, cost=None, response_model="x-2026"),
        make_call("b", 3, cost=None),
        make_call("c", 5, cost=None, response_model="x-2026"),
        make_call("d", 7),
        make_call("e", 9, cost=None, usage_source="estimated"),
    ]
    (found,) = [finding for finding in findings_of(calls, {}) if finding.kind == "no price"]
    assert (found.message, found.ids) == ("3 calls: not priced (x-2026, vendor/small)", ["a", "b", "c"])
