"""What recorded calls say together."""

import pytest

from cellmeter_scoring.calls import is_denied
from cellmeter_scoring.testing import make_attempt, make_call, make_failed_call


@pytest.mark.parametrize("status", [401, 402, 403, 407])
def test_a_key_is_refused_where_every_call_of_a_model_was_refused_for_it(status: int) -> None:
    refused = [make_failed_call("a", 1, 401), make_failed_call("b", 2, status)]
    assert is_denied(refused, [])
    assert is_denied([*refused, make_call("listing", 3, dialect="models", method="GET")], [])
    gone = make_failed_call("c", 3, None, outcome="client_gone")
    assert is_denied([*refused, gone], [make_attempt("c", 1, 3, status)])


def test_a_key_is_not_refused_where_any_call_ended_otherwise_or_none_was_made() -> None:
    refused = make_failed_call("a", 1, 401)
    assert not is_denied([], [])
    assert not is_denied([refused, make_call("b", 2)], [])
    for status in (400, 429, 500, None):
        assert not is_denied([refused, make_failed_call("b", 2, status)], [])
