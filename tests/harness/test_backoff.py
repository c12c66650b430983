"""How many cells run at once follows from what the provider refuses, down and up again."""

from hypothesis import given
from hypothesis import strategies as st

from cellmeter_harness.backoff import LONGEST_S, Backoff
from cellmeter_proxy.record import Attempt
from cellmeter_proxy.throttle import Throttle


class Clock:
    """Moves when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Sweep:
    """A run of a sweep as far as its pace goes."""

    def __init__(self, most: int) -> None:
        self.clock = Clock()
        self.throttle = Throttle(clock=self.clock)
        self.backoff = Backoff(self.throttle, most)
        self.cells: list[int] = []

    def refuse(self, retry_after_s: float | None = None) -> bool:
        wait = None if retry_after_s is None else retry_after_s * 1000
        self.throttle.note(Attempt(call_id="c", n=1, started_at=1, status=429, retry_after_ms=wait))
        self.backoff.look()
        return self.backoff.slowed

    def fill(self) -> int:
        """Start what may be started; how many run then."""
        while self.backoff.may_start:
            self.cells.append(self.backoff.start())
        return self.backoff.running

    def end(self, *, starved: bool = False) -> None:
        self.backoff.end(self.cells.pop(0), starved=starved)


def test_without_refusals_as_many_run_as_the_sweep_says() -> None:
    sweep = Sweep(3)
    sweep.backoff.look()
    assert not sweep.backoff.slowed
    assert sweep.fill() == 3
    sweep.end()
    assert (sweep.backoff.at_once, sweep.fill()) == (3, 3)


def test_a_refusal_halves_the_cells_and_further_ones_of_those_that_ran_before_change_nothing() -> None:
    sweep = Sweep(8)
    sweep.fill()
    assert sweep.refuse()
    assert sweep.backoff.at_once == 4
    sweep.refuse()
    sweep.end()
    sweep.refuse()
    assert sweep.backoff.at_once == 4
    for _ in range(3):
        sweep.end()
    sweep.refuse()
    assert sweep.backoff.at_once == 2


def test_a_cell_that_starved_in_the_queue_halves_the_cells_too_but_not_twice_where_it_was_refused_as_well() -> None:
    sweep = Sweep(8)
    sweep.fill()
    sweep.end(starved=True)
    assert (sweep.backoff.at_once, sweep.backoff.slowed) == (4, True)
    for _ in range(4):
        sweep.end(starved=True)
    assert sweep.backoff.at_once == 2
    sweep.refuse()
    sweep.end(starved=True)
    assert sweep.backoff.at_once == 2


def test_nothing_is_started_before_the_retry_after_is_over_and_then_it_is() -> None:
    sweep = Sweep(4)
    sweep.fill()
    sweep.refuse(20)
    for _ in range(4):
        sweep.end()
    assert (sweep.backoff.running, sweep.backoff.may_start, sweep.backoff.wait_s()) == (0, False, 20)
    sweep.clock.now += 20
    assert sweep.fill() == 2


def test_cells_that_meet_no_refusal_bring_the_number_back_and_ones_that_do_not_leave_it() -> None:
    sweep = Sweep(4)
    sweep.fill()
    sweep.refuse()
    sweep.refuse()
    for _ in range(4):
        sweep.end()
    assert (sweep.backoff.at_once, sweep.fill()) == (2, 2)
    sweep.end()
    assert sweep.backoff.at_once == 3
    for _ in range(9):
        sweep.fill()
        sweep.end()
    assert sweep.backoff.at_once == 4


def test_where_one_cell_at_a_time_is_too_much_the_pauses_double_up_to_a_minute_and_end_with_the_refusals() -> None:
    sweep = Sweep(1)
    waits = []
    for _ in range(8):
        sweep.fill()
        sweep.refuse()
        sweep.refuse()
        sweep.end()
        waits.append(sweep.backoff.wait_s())
        sweep.clock.now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    sweep.fill()
    sweep.end()
    assert sweep.backoff.wait_s() == 0
    sweep.fill()
    sweep.refuse()
    sweep.end()
    assert sweep.backoff.wait_s() == 1


@given(st.integers(1, 9), st.lists(st.one_of(st.none(), st.booleans(), st.floats(0, 1e6)), max_size=50))
def test_there_are_never_more_than_the_sweep_says_and_in_bounded_time_there_is_always_one(
    most: int, news: list[float | bool | None]
) -> None:
    sweep = Sweep(most)
    for one in news:
        if one is True:
            sweep.fill()
        elif one is False and sweep.cells:
            sweep.end()
        else:
            sweep.refuse(one)
        assert 1 <= sweep.backoff.at_once <= most
        assert sweep.backoff.running <= most
    while sweep.cells:
        sweep.end()
    sweep.clock.now += LONGEST_S
    assert sweep.fill() >= 1
