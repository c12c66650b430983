"""What may be spent is bounded before it is spent, however many calls come at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.budget import Account, Budget, Ledger, is_metered
from cellmeter_proxy.record import Call, Dialect, Numbers


def closed(call_id: str, prompt: int | None = 10, completion: int | None = 5, **changes: Any) -> Call:
    whole: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "usage_source": "provider"}
    row: dict[str, Any] = {"dialect": "chat.completions", "status": 200, "outcome": "ok"} | whole | changes
    return Call(call_id=call_id, session="s", writer="h/1/1", started_at=1, **row)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        (Budget(calls=1), "the budget of 1 call of this cell is spent (1 made)"),
        (Budget(calls=0), "the budget of 0 calls of this cell is spent (1 made)"),
        (Budget(tokens=1000), "the budget of 1,000 tokens of this cell is spent (1,500 used)"),
        (Budget(cost_usd=0.25), "the budget of $0.25 of this cell is spent ($0.3 used)"),
        (Budget(seconds=60), "the budget of 60 s of this cell is spent (61 s passed)"),
        (Budget(calls=2, tokens=1501, cost_usd=0.31, seconds=62), None),
        (Budget(), None),
    ],
)
def test_a_spent_budget_is_named_with_its_figures(budget: Budget, sentence: str | None) -> None:
    assert Account("cell", budget, 39.0, calls=1, tokens=1500, cost_usd=0.3).refusal(100.0) == sentence


def test_a_call_without_any_bound_is_charged_to_nothing() -> None:
    ledger = Ledger()
    assert ledger.accounts("s") == []
    assert ledger.admit("a", []) is None
    ledger.settle(closed("a"))
    assert ledger.sweep_spent() is None


def test_calls_in_flight_count_so_that_no_number_of_calls_at_once_exceeds_their_budget() -> None:
    ledger = Ledger(Budget(calls=3))
    answers = [ledger.admit(str(number), ledger.accounts("s")) for number in range(10)]
    assert answers == [None] * 3 + ["the budget of 3 calls of this session is spent (3 made)"] * 7


def test_tokens_are_exceeded_by_no_more_than_what_is_in_flight() -> None:
    ledger = Ledger(Budget(tokens=20))
    for call_id in "abc":
        assert ledger.admit(call_id, ledger.accounts("s")) is None
        ledger.settle(closed(call_id, 6, 1))
    assert ledger.admit("d", ledger.accounts("s")) == "the budget of 20 tokens of this session is spent (21 used)"


def test_sessions_have_accounts_of_their_own_and_cells_share_that_of_their_sweep() -> None:
    apart, together = Ledger(Budget(calls=1)), Ledger(Budget(calls=1), per_session=False)
    assert [apart.admit(name, apart.accounts(name)) for name in "ab"] == [None, None]
    assert [together.admit(name, together.accounts(name)) for name in "ab"] == [
        None,
        "the budget of 1 call of this sweep is spent (1 made)",
    ]
    assert together.sweep_spent() == "the budget of 1 call of this sweep is spent (1 made)"


def test_a_call_that_one_of_its_budgets_refuses_is_charged_to_none() -> None:
    ledger = Ledger(Budget(calls=9), per_session=False)
    cell = Budget(calls=1)
    assert ledger.admit("a", ledger.accounts("cell", cell)) is None
    assert ledger.admit("b", ledger.accounts("cell", cell)) is not None
    assert [account.calls for account in ledger.accounts("cell", cell)] == [1, 1]


def test_cost_and_what_the_provider_did_not_tell_are_charged_when_they_are_known() -> None:
    ledger = Ledger(Budget(tokens=100, cost_usd=1))
    accounts = ledger.accounts("s")
    assert ledger.admit("a", accounts) is None
    ledger.settle(closed("a", 10, None, usage_source="partial", response_blob="sha256:0"))
    (entry,) = ledger.uncounted(accounts)
    assert not entry.counted.is_set()
    assert ledger.learn(
        Numbers(call_id="a", cost=0.5, estimated_prompt_tokens=11, estimated_completion_tokens=7, price_source="p")
    )
    assert entry.counted.is_set()
    assert ledger.uncounted(accounts) == []
    assert [(account.tokens, account.cost_usd) for account in accounts] == [(17, 0.5)]


def test_a_call_that_nothing_more_will_be_known_of_is_not_waited_for() -> None:
    ledger = Ledger(Budget(cost_usd=1))
    accounts = ledger.accounts("s")
    assert ledger.admit("a", accounts) is None
    ledger.settle(closed("a", None, None, usage_source="none", status=500, outcome="http_error"))
    assert ledger.uncounted(accounts) == []


def test_the_time_of_a_session_begins_with_its_first_call() -> None:
    clock = Clock()
    ledger = Ledger(Budget(seconds=10), clock=clock)
    clock.now = 200.0
    assert ledger.admit("a", ledger.accounts("s")) is None
    clock.now = 210.0
    assert ledger.admit("b", ledger.accounts("s")) == "the budget of 10 s of this session is spent (10 s passed)"
    assert ledger.admit("c", ledger.accounts("other")) is None


def test_what_earlier_runs_of_a_sweep_spent_is_spent() -> None:
    ledger = Ledger(Budget(tokens=50), per_session=False)
    ledger.carry(calls=4, tokens=50, cost_usd=0.1)
    assert ledger.sweep_spent() == "the budget of 50 tokens of this sweep is spent (50 used)"


@pytest.mark.parametrize(
    ("method", "dialect", "metered"),
    [
        ("POST", "chat.completions", True),
        ("POST", "unknown", True),
        ("GET", "unknown", False),
        ("GET", "models", False),
        ("POST", "count_tokens", False),
    ],
)
def test_only_what_may_cost_something_is_metered(method: str, dialect: Dialect, *, metered: bool) -> None:
    call = Call(call_id="a", session="s", writer="w", started_at=1, method=method, dialect=dialect)
    assert is_metered(call) is metered


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=60), st.integers(1, 12), st.integers(1, 300))
def test_no_order_of_calls_exceeds_a_budget_by_more_than_was_in_flight(
    steps: list[tuple[bool, int]], calls: int, tokens: int
) -> None:
    ledger, most = Ledger(Budget(calls=calls, tokens=tokens)), 0
    flying: list[str] = []
    for number, (ends, size) in enumerate(steps):
        if ends and flying:
            ledger.settle(closed(flying.pop(0), size, 0))
            continue
        was_below = ledger.accounts("s")[0].tokens < tokens
        if ledger.admit(str(number), ledger.accounts("s")) is None:
            flying.append(str(number))
            most = max(most, len(flying))
            assert was_below
    (account,) = ledger.accounts("s")
    assert account.calls <= calls
    assert account.tokens < tokens + 50 * most + 1
