"""Sums that say what they lack."""

from collections.abc import Iterable

import msgspec


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """A sum over the calls that have the number, and how many they are."""

    sum: float | None
    """None where no call has the number."""
    counted: int
    missing: int


def total_of(values: Iterable[float | None]) -> Total:
    """The sum of the values that are there, with how many there are and how many are not."""
    every = list(values)
    known = [value for value in every if value is not None]
    return Total(sum=sum(known) if known else None, counted=len(known), missing=len(every) - len(known))
