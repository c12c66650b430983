"""Steps become spans, whatever becomes of them."""

import asyncio

import pytest

from cellmeter_harness.trace import Trace, sentence
from cellmeter_proxy.errors import CellmeterError


def test_a_step_becomes_a_span_with_its_parent_and_attributes() -> None:
    trace = Trace("cell", 2)
    with trace.span("adapter_run", "outer") as outer, trace.span("container", "inner", {"a": 1}, outer) as inner:
        inner.attrs["b"] = 2
    first, second = trace.spans
    assert (first.name, first.attrs, first.parent_id) == ("inner", {"a": 1, "b": 2}, second.span_id)
    assert (second.name, second.parent_id, second.error) == ("outer", None, None)
    assert (first.cell_id, first.cell_attempt) == ("cell", 2)
    assert 0 <= first.duration_ms <= second.duration_ms
    assert second.started_at <= first.started_at


def test_a_step_that_fails_becomes_a_span_that_says_so() -> None:
    trace = Trace("cell", 1)
    with pytest.raises(LookupError), trace.span("grade", "step"):
        raise LookupError("no")
    assert trace.spans[0].error == "LookupError: no"


def test_errors_are_told_in_their_own_words() -> None:
    assert sentence(CellmeterError("it broke", hint="mend it")) == "it broke"
    assert sentence(asyncio.CancelledError()) == "cancelled"
    assert sentence(ValueError()) == "ValueError"
