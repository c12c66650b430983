"""What recorded calls say together."""

import pytest

from cellmeter_scoring.calls import Trouble, is_refused_throughout, trouble_of
from cellmeter_scoring.testing import make_attempt, make_call, make_failed_call


@pytest.mark.parametrize("status", [401, 402, 403, 407])
def test_a_key_is_refused_where_every_call_of_a_model_was_refused_for_it(status: int) -> None:
    refused = [make_failed_call("a", 1, 401), make_failed_call("b", 2, status)]
    assert is_refused_throughout(refused, [])
    assert is_refused_throughout([*refused, make_call("listing", 3, dialect="models", method="GET")], [])
    gone = make_failed_call("c", 3, None, outcome="client_gone")
    assert is_refused_throughout([*refused, gone], [make_attempt("c", 1, 3, status)])


@pytest.mark.parametrize("status", [400, 404, 422])
def test_so_is_what_the_agent_asks_where_every_call_was_refused_as_malformed_or_unsupported(status: int) -> None:
    assert is_refused_throughout([make_failed_call("a", 1, status), make_failed_call("b", 2, 401)], [])


def test_nothing_is_refused_for_good_where_any_call_ended_otherwise_or_none_was_made() -> None:
    refused = make_failed_call("a", 1, 401)
    assert not is_refused_throughout([], [])
    assert not is_refused_throughout([refused, make_call("b", 2)], [])
    for status in (429, 500, None):
        assert not is_refused_throughout([refused, make_failed_call("b", 2, status)], [])


@pytest.mark.parametrize("status", [204, 304, 307])
def test_a_status_that_carries_no_answer_is_the_providers_failure(status: int) -> None:
    assert trouble_of(make_failed_call("a", 1, status), [make_attempt("a", 1, 1, status)]) is Trouble.PROVIDER
