"""The timed steps of a cell, as the rows they become.

Invariant: a step that was entered becomes a span, also when it fails or is cancelled; then the span says so.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.record import Span, SpanKind, new_id, now_us

MAX_SENTENCE: Final = 300
"""Characters: a path that an agent made may have thousands."""


class OpenSpan:
    """A step under way; its attributes may be completed until it ends."""

    def __init__(self, attrs: dict[str, Any]) -> None:
        self.span_id = new_id()
        self.attrs = attrs
        self.duration_ms: float | None = None
        """Given where the step is known to have been shorter than the time spent in it."""


class Trace:
    """The spans of one attempt at a cell, in the order in which they ended."""

    def __init__(self, cell_id: str, attempt: int) -> None:
        self.spans: list[Span] = []
        self._cell_id = cell_id
        self._attempt = attempt

    @contextmanager
    def span(
        self, kind: SpanKind, name: str, attrs: dict[str, Any] | None = None, parent: OpenSpan | None = None
    ) -> Iterator[OpenSpan]:
        """Time a step."""
        span, started_at, clock = OpenSpan(attrs or {}), now_us(), time.perf_counter()
        error: str | None = None
        try:
            yield span
        except BaseException as raised:
            error = sentence(raised)
            raise
        finally:
            self.spans.append(
                Span(
                    span_id=span.span_id,
                    parent_id=parent.span_id if parent else None,
                    cell_id=self._cell_id,
                    cell_attempt=self._attempt,
                    kind=kind,
                    name=name,
                    started_at=started_at,
                    duration_ms=(time.perf_counter() - clock) * 1000 if span.duration_ms is None else span.duration_ms,
                    attrs=span.attrs,
                    error=error,
                )
            )


def sentence(error: BaseException) -> str:
    """What went wrong, in the words of whoever raised it; what is too long to be read is cut in the middle."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, CellmeterError):
        said = error.message
    else:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    half = MAX_SENTENCE // 2
    return said if len(said) <= MAX_SENTENCE else f"{said[:half]} … {said[-half:]}"
