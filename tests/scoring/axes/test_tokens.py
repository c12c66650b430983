import msgspec
import pytest

from cellmeter_proxy.record import Call, Grade
from cellmeter_scoring.axes.tokens import TokenCounts, UsageSources, score_tokens, score_tokens_as_published
from cellmeter_scoring.evidence import CellEvidence
from cellmeter_scoring.score import Score, Unscored
from cellmeter_scoring.testing import make_call, make_cell, make_failed_call


def counted(*calls: Call, **cell: object) -> Score[TokenCounts]:
    result = score_tokens(CellEvidence(cell=make_cell(**cell), calls=calls))
    assert isinstance(result, Score)
    return result


def test_the_sums_of_the_recorded_calls_stand_under_the_keys_of_the_pages() -> None:
    result = counted(make_call("a", 1), make_call("b", 3, prompt_tokens=2000, completion_tokens=50))
    assert result.value == 3150
    assert msgspec.to_builtins(result.detail) == {
        "prompt_tokens": 3000,
        "completion_tokens": 150,
        "total_tokens": 3150,
        "model_calls": 2,
        "tokens_per_correct_task": 3150,
        "pass_used_for_division": 1,
    }


def test_tokens_spent_on_nothing_correct_have_no_price_per_correct_task() -> None:
    detail = counted(make_call("a"), grade=Grade(exit_code=1)).detail
    assert (detail.total_tokens, detail.tokens_per_correct_task, detail.pass_used_for_division) == (1100, None, 0)


def test_a_refused_call_is_a_call_but_costs_nothing() -> None:
    detail = counted(make_failed_call("a", 1, 429), make_call("b", 3)).detail
    assert (detail.model_calls, detail.total_tokens) == (2, 1100)


def test_a_call_that_was_given_the_answer_of_an_earlier_one_is_not_paid_twice() -> None:
    joined = make_call("b", 3, prompt_tokens=None, completion_tokens=None, usage_source="none", attached_to="a")
    detail = counted(make_call("a", 1, outcome="client_gone"), joined).detail
    assert (detail.model_calls, detail.total_tokens) == (2, 1100)


def test_estimates_and_partial_usage_are_counted_and_named() -> None:
    partial = make_call("b", 3, completion_tokens=None, estimated_completion_tokens=40, usage_source="partial")
    estimated = make_call(
        "c",
        5,
        prompt_tokens=None,
        completion_tokens=None,
        estimated_prompt_tokens=500,
        estimated_completion_tokens=60,
        usage_source="estimated",
    )
    detail = counted(make_call("a", 1), partial, estimated).detail
    assert (detail.prompt_tokens, detail.completion_tokens) == (2500, 200)
    assert detail.usage_sources == UsageSources(provider=1, partial=1, estimated=1)


def test_an_embedding_has_no_completion_to_count() -> None:
    assert counted(make_call("a", dialect="embeddings", completion_tokens=None)).detail.total_tokens == 1000


@pytest.mark.parametrize("outcome", ["ok", "client_gone", "stream_error", "interrupted", "timeout", None])
def test_a_call_that_may_have_been_billed_and_was_not_counted_leaves_no_sum(outcome: str | None) -> None:
    uncounted = make_call("b", 3, prompt_tokens=None, completion_tokens=None, usage_source="none", outcome=outcome)
    evidence = CellEvidence(cell=make_cell(), calls=[make_call("a", 1), uncounted])
    for result in (score_tokens(evidence), score_tokens_as_published(evidence)):
        assert isinstance(result, Unscored)
        assert result.reason == "1 of 2 calls that reached a model carry no token usage"
        assert (result.detail.total_tokens, result.detail.model_calls) == (None, 2)


def test_a_call_that_the_provider_left_unanswered_may_have_been_billed() -> None:
    late = make_failed_call("a", 1, 504, outcome="timeout")
    assert isinstance(score_tokens_as_published(CellEvidence(cell=make_cell(), calls=[late])), Unscored)


def test_a_call_that_reached_nobody_costs_nothing() -> None:
    assert counted(make_failed_call("a", 1, None), make_call("b", 3)).value == 1100


def test_an_answered_call_on_an_unreadable_path_leaves_no_sum() -> None:
    unknown = make_call("a", dialect="unknown", prompt_tokens=None, completion_tokens=None)
    for result in (
        score_tokens(CellEvidence(cell=make_cell(), calls=[unknown])),
        score_tokens_as_published(CellEvidence(cell=make_cell(), calls=[unknown])),
    ):
        assert isinstance(result, Unscored)
        assert result.reason == "1 of 1 calls that reached a model carry no token usage"


@pytest.mark.parametrize("outcome", ["client_gone", "stream_error", "interrupted", "timeout", None])
def test_a_call_on_an_unreadable_path_counts_although_the_agent_left_before_its_end(outcome: str | None) -> None:
    hidden = make_call("b", 3, dialect="unknown", prompt_tokens=None, completion_tokens=None, outcome=outcome)
    result = score_tokens(CellEvidence(cell=make_cell(), calls=[make_call("a", 1), hidden]))
    assert isinstance(result, Unscored)
    assert result.detail.model_calls == 2


@pytest.mark.parametrize(("status", "outcome"), [(404, "http_error"), (502, "upstream_unreachable"), (403, "rejected")])
def test_a_call_on_an_unreadable_path_that_no_model_worked_on_is_no_model_call(status: int, outcome: str) -> None:
    probe = make_call(
        "b", 3, dialect="unknown", prompt_tokens=None, completion_tokens=None, status=status, outcome=outcome
    )
    detail = counted(make_call("a", 1), probe).detail
    assert (detail.model_calls, detail.total_tokens) == (1, 1100)


def test_a_cell_without_calls_is_zero_on_the_published_pages_and_unmeasured_here() -> None:
    evidence = CellEvidence(cell=make_cell(grade=Grade(exit_code=1)))
    as_published = score_tokens_as_published(evidence)
    assert isinstance(as_published, Score)
    assert msgspec.to_builtins(as_published.detail) == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        "model_calls": 0,
        "tokens_per_correct_task": 0,
        "pass_used_for_division": 0,
    }
    measured = score_tokens(evidence)
    assert isinstance(measured, Unscored)
    assert (measured.reason, measured.detail.total_tokens) == ("no model call was recorded", None)


def test_throttled_calls_are_zero_on_the_published_pages_and_unmeasured_here() -> None:
    evidence = CellEvidence(cell=make_cell(grade=Grade(exit_code=1)), calls=[make_failed_call("a", 1, 429)])
    as_published = score_tokens_as_published(evidence)
    assert isinstance(as_published, Score)
    assert as_published.detail.total_tokens == 0
    measured = score_tokens(evidence)
    assert isinstance(measured, Unscored)
    assert measured.reason == "none of the 1 calls reached a model"


def test_a_control_that_calls_no_model_spent_nothing() -> None:
    assert counted(expects_calls=False).value == 0
