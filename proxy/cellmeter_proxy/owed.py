"""What a log did not take though it must: kept until it can be written again.

Invariant: bounded, and a call that a provider may have worked on is never displaced by calls that were only refused:
agents that are refused ask again at once, some a thousand times a second.
"""

from collections import deque
from typing import Any, Final

from cellmeter_proxy.transact import Job

_MAX_REFUSED: Final = 256
_MAX_UNDER_WAY: Final = 4096
"""More calls than can be under way when a log fails."""


class Owed:
    """Work that is to be tried again, oldest first. Of each kind the newest are kept."""

    def __init__(self) -> None:
        self._under_way: deque[Job[Any, Any]] = deque(maxlen=_MAX_UNDER_WAY)
        self._refused: deque[Job[Any, Any]] = deque(maxlen=_MAX_REFUSED)

    def __bool__(self) -> bool:
        return bool(self._under_way or self._refused)

    def add(self, job: Job[Any, Any]) -> None:
        """Keep what is to be written in place of a job that failed; nothing, where nothing is."""
        if job.otherwise is None:
            return
        late = job.otherwise(job.prepared)
        again: Job[Any, Any] = Job(
            job.prepare, job.apply, job.future, _as_it_is, prepared=late, is_prepared=True, refused=job.refused
        )
        (self._refused if job.refused else self._under_way).append(again)

    def take(self) -> list[Job[Any, Any]]:
        """All of it, which is then no longer kept."""
        taken = [*self._under_way, *self._refused]
        self._under_way.clear()
        self._refused.clear()
        return taken


def _as_it_is(prepared: Any) -> Any:
    return prepared
