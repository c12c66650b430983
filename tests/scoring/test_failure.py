from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.record import UNCOLLECTABLE, Attempt, Call, Cell, Grade, Outcome, Phase, PhaseName
from cellmeter_scoring.failure import INFRASTRUCTURE, Verdict, classify
from cellmeter_scoring.testing import START, at, make_attempt, make_call, make_cell, make_failed_call

FAILED = Grade(exit_code=101, stdout_tail="3 failed")


def failed_cell(**changes: object) -> Cell:
    return make_cell(**{"grade": FAILED, **changes})


def broken_in(name: PhaseName) -> Cell:
    phase = Phase(name=name, started_at=START, ended_at=at(1), error="the disk is full")
    return failed_cell(phases=[phase], grade=None)


def test_infrastructure_is_what_says_nothing_about_the_agent() -> None:
    assert {
        "rate_limited",
        "provider_error",
        "incompatible",
        "grader_error",
        "harness_error",
        "cancelled",
    } == INFRASTRUCTURE


def test_every_call_429_is_rate_limited_with_the_calls_as_evidence() -> None:
    calls = [make_failed_call("a", 1, 429), make_failed_call("b", 2, 429)]
    assert classify(failed_cell(exit_code=1), calls, []) == Verdict(
        failure_class="rate_limited",
        reason="all 2 calls ended in the provider's rate limit (HTTP 429)",
        evidence=["a", "b"],
    )


def test_429s_absorbed_and_then_success_are_no_failure() -> None:
    attempts = [make_attempt("a", 1, 1, 429), make_attempt("a", 2, 3, 200, waited_ms=1900)]
    assert classify(make_cell(), [make_call("a")], attempts).failure_class == "none"
    assert classify(failed_cell(), [make_call("a")], attempts) == Verdict(
        failure_class="none", reason="the agent finished, its work did not pass"
    )


def test_429s_at_the_end_after_real_work_are_rate_limited() -> None:
    calls = [make_call("a", 1), make_call("b", 3), make_failed_call("c", 5, 429), make_failed_call("d", 7, 429)]
    assert classify(failed_cell(exit_code=1), calls, []) == Verdict(
        failure_class="rate_limited",
        reason="the last 2 calls ended in the provider's rate limit (HTTP 429), after 2 answered",
        evidence=["c", "d"],
    )


def test_429s_in_the_middle_that_the_agent_outlived_are_not_to_blame() -> None:
    calls = [make_call("a", 1), make_failed_call("b", 3, 429), make_call("c", 5)]
    assert classify(failed_cell(), calls, []).failure_class == "none"


def test_an_agent_that_exits_0_after_its_quota_ran_out_is_rate_limited() -> None:
    calls = [make_call("a", 1), make_failed_call("b", 3, 429, error="insufficient_quota")]
    verdict = classify(failed_cell(exit_code=0), calls, [])
    assert (verdict.failure_class, verdict.evidence) == ("rate_limited", ["b"])


def test_a_pass_after_429s_at_the_end_is_a_pass() -> None:
    calls = [make_call("a", 1), make_failed_call("b", 3, 429)]
    assert classify(make_cell(), calls, []) == Verdict(failure_class="none", reason="the grader passed")


def test_an_agent_that_sleeps_through_429s_into_its_timeout_is_rate_limited() -> None:
    calls = [make_call("a", 1), make_failed_call("b", 3, 429)]
    verdict = classify(failed_cell(timed_out=True, exit_code=None, ended_at=at(600)), calls, [])
    assert (verdict.failure_class, verdict.evidence) == ("rate_limited", ["b"])


def test_a_timeout_whose_time_went_to_429s_is_rate_limited_although_the_last_call_was_answered() -> None:
    again = "c1:sha256:same"
    calls = [
        make_failed_call("a", 10, 429, request_hash=again),
        make_failed_call("b", 200, 429, request_hash=again),
        make_call("c", 500, request_hash=again),
    ]
    verdict = classify(failed_cell(timed_out=True, exit_code=None, ended_at=at(600)), calls, [])
    assert verdict == Verdict(
        failure_class="rate_limited",
        reason="490 s of the run went to the provider's rate limit",
        evidence=["a", "b"],
    )


@pytest.mark.parametrize(("pause", "failure_class"), [(301, "rate_limited"), (290, "agent_timeout")])
def test_half_of_the_run_lost_to_the_rate_limit_makes_a_timeout_its_own(pause: int, failure_class: str) -> None:
    same = "c1:sha256:same"
    calls = [make_failed_call("a", 10, 429, request_hash=same), make_call("b", 10 + pause, request_hash=same)]
    verdict = classify(failed_cell(timed_out=True, exit_code=None, ended_at=at(600)), calls, [])
    assert verdict.failure_class == failure_class


def test_a_timeout_that_the_proxy_spent_waiting_for_the_provider_is_rate_limited() -> None:
    gone = make_call("a", 10, status=None, outcome="client_gone", ended_at=at(600))
    attempts = [make_attempt("a", 1, 10, 429), make_attempt("a", 2, 300, 429, waited_ms=289_000)]
    verdict = classify(failed_cell(timed_out=True, exit_code=None, ended_at=at(600)), [gone], attempts)
    assert (verdict.failure_class, verdict.evidence) == ("rate_limited", ["a"])


def test_a_timeout_that_the_proxy_spent_waiting_for_a_provider_that_was_down_is_the_providers() -> None:
    attempts = [make_attempt("a", 1, 10, 503), make_attempt("a", 2, 400, 200, waited_ms=389_000)]
    cell = failed_cell(timed_out=True, exit_code=None, ended_at=at(600))
    assert classify(cell, [make_call("a", 10, ended_at=at(401)), make_call("b", 402)], attempts) == Verdict(
        failure_class="provider_error",
        reason="389 s of the run went to a failure of the provider",
        evidence=["a"],
    )


def test_a_timeout_that_the_proxy_spent_pacing_is_rate_limited() -> None:
    calls = [make_call("a", 0, queue_ms=400_000.0, ended_at=at(401)), make_call("b", 402)]
    verdict = classify(failed_cell(timed_out=True, exit_code=None, ended_at=at(600)), calls, [])
    assert (verdict.failure_class, verdict.evidence) == ("rate_limited", ["a"])


def test_a_timeout_lost_to_several_troubles_is_that_of_the_greatest() -> None:
    first, second = "c1:sha256:first", "c1:sha256:second"
    calls = [
        make_failed_call("a", 0, 429, request_hash=first),
        make_call("b", 130, request_hash=first),
        make_failed_call("c", 200, 503, request_hash=second),
        make_failed_call("d", 300, None, request_hash=second, error="[Errno 101] Network is unreachable"),
        make_call("e", 390, request_hash=second),
    ]
    cell = failed_cell(timed_out=True, exit_code=None, ended_at=at(600))
    assert classify(cell, calls, []) == Verdict(
        failure_class="rate_limited",
        reason="130 s of the run went to the provider's rate limit, 100 s of the run went to a failure of the provider,"
        " 90 s of the run went to a failure of this machine's network",
        evidence=["a", "c", "d"],
    )


def test_a_timeout_with_calls_that_were_answered_is_the_agents_own() -> None:
    verdict = classify(failed_cell(timed_out=True, exit_code=None), [make_call("a")], [])
    assert (verdict.failure_class, verdict.evidence) == ("agent_timeout", ["a"])


def test_a_200_with_an_error_in_the_stream_is_the_providers_failure() -> None:
    cut = make_call("b", 3, outcome="stream_error", error="overloaded_error", stream=True)
    assert classify(failed_cell(), [make_call("a", 1), cut], []) == Verdict(
        failure_class="provider_error",
        reason="the provider's stream was cut: overloaded_error (the last call, HTTP 200, after 1 answered)",
        evidence=["b"],
    )


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "429", "rate_limit_error", "insufficient_quota"])
def test_a_200_with_a_rate_limit_in_the_stream_is_rate_limited(code: str) -> None:
    cut = make_call("a", 3, outcome="stream_error", error=f"{code}: slow down", stream=True)
    assert classify(failed_cell(), [cut], []) == Verdict(
        failure_class="rate_limited",
        reason="the only call ended in the provider's rate limit (HTTP 200)",
        evidence=["a"],
    )


def test_a_client_that_left_while_the_proxy_could_not_reach_the_provider_is_not_to_blame() -> None:
    left = make_call("a", 1, status=None, outcome="client_gone")
    tries = [make_attempt("a", 1, 1, None, error="cannot be reached: refused")]
    assert classify(failed_cell(exit_code=1), [left], tries).failure_class == "provider_error"


def test_every_call_refused_as_unsupported_is_incompatible() -> None:
    calls = [make_failed_call("a", 1, 400), make_failed_call("b", 2, 404)]
    assert classify(failed_cell(exit_code=1), calls, []) == Verdict(
        failure_class="incompatible",
        reason="all 2 calls ended in a refusal as malformed or unsupported (HTTP 400, 404)",
        evidence=["a", "b"],
    )


def test_the_providers_own_words_are_part_of_the_reason() -> None:
    error = "unsupported_parameter: 'max_tokens' is not supported\nwith this model"
    calls = [make_failed_call("a", 1, 400, error=error), make_failed_call("b", 2, 400, error="invalid_request_error")]
    assert classify(failed_cell(exit_code=1), calls, []) == Verdict(
        failure_class="incompatible",
        reason="all 2 calls ended in a refusal as malformed or unsupported (HTTP 400):"
        " unsupported_parameter: 'max_tokens' is not supported with this model",
        evidence=["a", "b"],
    )


@pytest.mark.parametrize(("exit_code", "timed_out"), [(0, False), (1, False), (None, True)])
@pytest.mark.parametrize(
    "malformed",
    [
        {"error": "invalid_request_error: could not parse the JSON body of your request", "request_hash": None},
        {"error": "missing_required_parameter: you must provide a model parameter", "request_model": None},
        {"error": "invalid_type: expected an array of objects, but got a string", "status": 422},
        {"error": "context_length_exceeded: this model's maximum context length is 8192 tokens"},
        {"error": None},
        {"error": "the body of the request is not valid HTTP: bad chunk", "outcome": "rejected"},
        {"error": "model_not_found: the model does not exist", "status": 404, "request_model": "one of its own"},
    ],
)
def test_an_agent_that_sends_only_what_no_provider_would_take_has_failed(
    malformed: dict[str, object], exit_code: int | None, timed_out: bool
) -> None:
    calls = [make_failed_call(name, n, **{"status": 400, **malformed}) for n, name in enumerate("ab")]  # type: ignore[arg-type]
    verdict = classify(failed_cell(exit_code=exit_code, timed_out=timed_out), calls, [])
    assert (verdict.failure_class, verdict.evidence) == ("agent_error", ["a", "b"])
    assert verdict.reason.endswith("and no answer named anything that the provider lacks")


def test_a_request_refused_after_answers_is_the_agents_own() -> None:
    calls = [make_call("a", 1), make_failed_call("b", 3, 400)]
    assert classify(failed_cell(exit_code=2), calls, []) == Verdict(
        failure_class="agent_error", reason="the agent exited with 2", evidence=["b"]
    )


def test_a_refusal_after_answers_and_a_rate_limit_that_was_outlived_is_the_agents_own() -> None:
    calls = [make_call("a", 1), make_failed_call("b", 3, 429), make_failed_call("c", 5, 400)]
    assert classify(failed_cell(exit_code=2), calls, []).failure_class == "agent_error"


def test_a_refusal_of_an_unsupported_path_before_a_working_one_is_no_failure() -> None:
    calls = [make_failed_call("a", 1, 404, dialect="responses"), make_call("b", 2)]
    assert classify(failed_cell(), calls, []).failure_class == "none"


def test_a_rate_limit_before_a_refusal_is_still_to_blame_where_nothing_was_answered() -> None:
    calls = [make_failed_call("a", 1, 429), make_failed_call("b", 2, 400)]
    verdict = classify(failed_cell(exit_code=1), calls, [])
    assert (verdict.failure_class, verdict.evidence) == ("rate_limited", ["a"])


def test_no_call_at_all_is_named_so() -> None:
    assert classify(failed_cell(), [], []) == Verdict(
        failure_class="no_model_call", reason="the agent made no model call"
    )


def test_listing_models_is_not_a_model_call() -> None:
    calls = [make_failed_call("b", 2, 404, dialect="unknown"), make_call("a", dialect="models")]
    assert classify(failed_cell(), calls, []) == Verdict(
        failure_class="no_model_call", reason="none of the agent's calls (2) asked a model", evidence=["a", "b"]
    )


@pytest.mark.parametrize("exit_code", [0, None])
def test_a_control_that_calls_no_model_is_not_blamed_for_it(exit_code: int | None) -> None:
    verdict = classify(failed_cell(expects_calls=False, exit_code=exit_code), [], [])
    assert verdict == Verdict(failure_class="none", reason="the agent finished, its work did not pass")


def test_no_call_is_not_held_against_a_cell_that_passed() -> None:
    assert classify(make_cell(), [], []).failure_class == "none"


def test_a_crash_before_the_first_call_is_the_agents_error() -> None:
    assert classify(failed_cell(exit_code=127), [], []) == Verdict(
        failure_class="agent_error", reason="the agent exited with 127 before its first model call"
    )


def test_a_hang_before_the_first_call_is_the_agents_timeout() -> None:
    assert classify(failed_cell(timed_out=True, exit_code=None), [], []).failure_class == "agent_timeout"


@pytest.mark.parametrize(("status", "count"), [(500, 3), (503, 1), (529, 2), (None, 2), (401, 1), (408, 1)])
def test_a_provider_that_is_down_or_refuses_the_key_is_the_providers_failure(status: int | None, count: int) -> None:
    calls = [make_failed_call(str(n), n, status, error="connection refused") for n in range(1, count + 1)]
    verdict = classify(failed_cell(exit_code=1), calls, [])
    assert verdict.failure_class == "provider_error"
    assert len(verdict.evidence) == count


def test_a_provider_that_answers_too_late_is_the_providers_failure() -> None:
    late = make_failed_call("a", 1, 504, outcome="timeout", error="no answer within 600 s")
    assert classify(failed_cell(exit_code=1), [late], []) == Verdict(
        failure_class="provider_error",
        reason="the provider did not answer in time: no answer within 600 s (the only call)",
        evidence=["a"],
    )


def test_a_provider_that_cannot_be_reached_is_named_so_with_the_proxys_own_words() -> None:
    calls = [make_failed_call(name, n, None, error="cannot be reached:\nrefused") for n, name in enumerate("ab")]
    assert classify(failed_cell(exit_code=1), calls, []).reason == (
        "the provider could not be reached: cannot be reached: refused (all 2 calls)"
    )
    silent = make_failed_call("a", 1, None)
    assert classify(failed_cell(exit_code=1), [silent], []).reason == (
        "the provider could not be reached (the only call)"
    )


def test_troubles_of_several_kinds_are_named_by_what_they_have_in_common() -> None:
    calls = [make_failed_call("a", 1, 503), make_failed_call("b", 2, None)]
    assert classify(failed_cell(exit_code=1), calls, []).reason == (
        "all 2 calls ended in a failure of the provider (HTTP 503)"
    )


@pytest.mark.parametrize("error", ["[Errno 101] Network is unreachable", "Temporary failure in name resolution"])
def test_a_local_network_failure_is_not_the_providers(error: str) -> None:
    attempts = [make_attempt("a", 1, 1, None, error=error)]
    assert classify(failed_cell(exit_code=1), [make_failed_call("a", 1, None)], attempts) == Verdict(
        failure_class="harness_error",
        reason="the only call ended in a failure of this machine's network",
        evidence=["a"],
    )


def test_a_spent_budget_ends_the_cell_as_such() -> None:
    refused = make_failed_call("b", 3, 400, outcome="rejected", error="the budget of 1 call of this cell is spent")
    assert classify(failed_cell(exit_code=1), [make_call("a", 1), refused], []) == Verdict(
        failure_class="budget_exceeded",
        reason="a budget ended the run: the budget of 1 call of this cell is spent",
        evidence=["b"],
    )


def test_calls_that_the_proxy_refused_for_another_reason_are_incompatible_whatever_the_agent_wrote_into_it() -> None:
    error = "provider-side tools are refused unless they are granted: mcp:https://the budget.example"
    tools = ["mcp:https://the budget.example"]
    refused = make_failed_call("a", 1, 400, outcome="rejected", error=error, provider_tools=tools)
    assert classify(failed_cell(exit_code=1), [refused], []) == Verdict(
        failure_class="incompatible",
        reason=f"the only call ended in a refusal as malformed or unsupported: {error}",
        evidence=["a"],
    )


def test_a_recorder_that_died_is_the_harness_own() -> None:
    cut = make_failed_call("a", 1, None, outcome="interrupted", state="interrupted")
    assert classify(failed_cell(exit_code=1), [cut], []).failure_class == "harness_error"


@pytest.mark.parametrize("name", ["prepare", "run", "collect"])
def test_the_harness_own_bug_is_named_by_its_phase(name: PhaseName) -> None:
    assert classify(broken_in(name), [make_failed_call("a", 1, 429)], []) == Verdict(
        failure_class="harness_error", reason=f"the {name} phase broke: the disk is full"
    )


def test_the_graders_own_crash_is_named() -> None:
    assert classify(broken_in("grade"), [make_call("a")], []) == Verdict(
        failure_class="grader_error", reason="the grade phase broke: the disk is full"
    )
    assert classify(failed_cell(grade=None), [make_call("a")], []).failure_class == "grader_error"


def test_a_cleanup_that_broke_takes_nothing_from_a_verdict_that_stands() -> None:
    broken = broken_in("finalize")
    assert classify(msgspec.structs.replace(broken, grade=FAILED), [make_call("a")], []).failure_class == "none"


def test_work_that_hangs_the_grader_is_the_agents() -> None:
    hung = failed_cell(grade=Grade(exit_code=None, timed_out=True))
    assert classify(hung, [make_call("a")], []) == Verdict(
        failure_class="none", reason="the agent finished, its work ran out of the grader's time"
    )


def test_a_cancelled_cell_stays_cancelled_whatever_else_is_known() -> None:
    cell = failed_cell(failure_class="cancelled", failure_reason="Ctrl-C")
    assert classify(cell, [make_failed_call("a", 1, 429)], []) == Verdict(failure_class="cancelled", reason="Ctrl-C")


def test_a_cell_without_an_end_was_lost_by_the_harness() -> None:
    assert classify(failed_cell(ended_at=None, exit_code=None), [], []).failure_class == "harness_error"


def test_the_agents_own_words_change_nothing() -> None:
    loud = Grade(exit_code=101, stdout_tail="HTTP 429 rate limit", stderr_tail="quota exceeded")
    assert classify(failed_cell(grade=loud), [make_call("a")], []).failure_class == "none"


outcomes = st.sampled_from([None, *get_args(Outcome)])
any_call = st.builds(
    make_call,
    st.text("abc", min_size=1, max_size=2),
    st.integers(0, 600),
    outcome=outcomes,
    status=st.sampled_from([None, 200, 400, 401, 429, 500]),
    queue_ms=st.none() | st.floats(0, 1e6),
)
any_attempt = st.builds(
    make_attempt,
    st.text("abc", min_size=1, max_size=2),
    st.integers(1, 3),
    st.integers(0, 600),
    st.sampled_from([None, 200, 429, 500]),
)
any_cell = st.builds(
    failed_cell,
    timed_out=st.booleans(),
    exit_code=st.sampled_from([None, 0, 1]),
    ended_at=st.sampled_from([None, at(600)]),
    expects_calls=st.booleans(),
)


@given(
    any_cell,
    st.lists(any_call, max_size=6, unique_by=lambda call: call.call_id),
    st.lists(any_attempt, max_size=6, unique_by=lambda attempt: (attempt.call_id, attempt.n)),
)
def test_any_evidence_has_a_verdict_that_names_only_calls_it_was_given(
    cell: Cell, calls: list[Call], attempts: list[Attempt]
) -> None:
    verdict = classify(cell, calls, attempts)
    assert verdict.reason
    assert set(verdict.evidence) <= {call.call_id for call in calls}
    assert classify(cell, calls[::-1], attempts[::-1]).failure_class == verdict.failure_class


def test_an_agent_that_took_its_supervisor_with_it_has_failed() -> None:
    verdict = classify(failed_cell(exit_code=None), [make_call("a")], [])
    assert verdict.failure_class == "agent_error"
    assert classify(failed_cell(exit_code=None), [], []).failure_class == "agent_error"


def test_a_workspace_that_cannot_be_collected_is_the_agents_error() -> None:
    phase = Phase(name="collect", started_at=at(1), ended_at=at(2), error=f"{UNCOLLECTABLE}: File name too long")
    verdict = classify(failed_cell(phases=[phase], grade=None), [make_call("a")], [])
    assert verdict == Verdict(failure_class="agent_error", reason=f"{UNCOLLECTABLE}: File name too long")


def test_work_that_ends_the_grader_did_not_pass() -> None:
    ended = failed_cell(grade=Grade(exit_code=None))
    assert classify(ended, [make_call("a")], []).failure_class == "none"
