"""Work that waits to be written, and how much of it is due.

Rows that begin go first: for each of them the first byte of an answer waits, where a thousand streams that end at once
would let it wait for all of theirs. Invariant: such rows are taken in the order in which they were added, and so is all
other work; and other work takes every row that was added before it along. What is not due yet is prepared meanwhile.
"""

import time
from collections import deque
from typing import Any

from cellmeter_proxy.transact import Job


class Waiting:
    """The jobs that wait. Each has a number, from 1, in the order in which they were added."""

    def __init__(self) -> None:
        self._begun: deque[Job[Any, Any]] = deque()  # rows that begin: patient when they were added
        self._other: deque[Job[Any, Any]] = deque()
        self._raw: deque[Job[Any, Any]] = deque()  # not prepared when they were added
        self._due = 0  # rows are due up to this number
        self.newest = 0
        """The number of the job that was added last."""

    def add(self, job: Job[Any, Any]) -> None:
        """Have a job wait; it is due at once unless it is patient."""
        self.newest = job.number = self.newest + 1
        if job.patient:
            self._begun.append(job)
            self._raw.append(job)
        else:
            self._other.append(job)
            self._due = job.number

    def make_due(self, number: int | None = None) -> None:
        """Have the jobs up to a number due, or all of them."""
        self._due = self.newest if number is None else max(self._due, number)

    def expire(self, since: float) -> float | None:
        """Have the jobs due that have waited since a moment; when the oldest of the others came, if there are any."""
        for job in self._begun:
            if job.number > self._due:
                if job.since > since:
                    return job.since
                self._due = job.number
        return None

    @property
    def has_work(self) -> bool:
        """There is something to ``take`` or to ``prepare``."""
        return bool(self._raw) or self._next is not None

    @property
    def _next(self) -> deque[Job[Any, Any]] | None:
        """Where the job is that is written next."""
        if self._begun and self._begun[0].number <= self._due:
            return self._begun
        return self._other or None

    def take(self, most: int, end: float) -> list[Job[Any, Any]]:
        """What is written next, prepared or failed: one piece that takes long, or others until the time is over.

        Args:
            most: so many at the most.
            end: by ``time.perf_counter``.

        """
        taken: list[Job[Any, Any]] = []
        while len(taken) < most and time.perf_counter() < end:
            jobs = self._next
            if jobs is None or (taken and jobs[0].aside):
                break
            job = jobs.popleft()
            job.number = 0
            job.be_prepared()
            taken.append(job)
            if job.aside:
                break
        return taken

    def prepare(self, end: float) -> None:
        """Prepare what waits, until the time is over."""
        while self._raw and time.perf_counter() < end:
            self._raw.popleft().be_prepared()
