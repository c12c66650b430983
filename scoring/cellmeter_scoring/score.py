"""What a scorer says: a score, or that there is none and why.

Invariant: "not measured" is a value of its own. It is never 0, never NaN and never missing, so that it can be
counted, named, and left out of an average.
"""

from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    from cellmeter_scoring.evidence import CellEvidence


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the keys that one axis publishes beside its value."""

    unscored: str | UnsetType = UNSET
    """Why the axis has no value; absent where it has one."""


D = TypeVar("D", bound=Detail)
D_co = TypeVar("D_co", bound=Detail, covariant=True)


class Score(msgspec.Struct, Generic[D_co], frozen=True):
    """A measured value of one axis, with the keys that explain it."""

    value: float
    detail: D_co


class Unscored(msgspec.Struct, Generic[D_co], frozen=True):
    """No value, the sentence that says why, and whatever keys are known all the same."""

    reason: str
    detail: D_co


Result: TypeAlias = Score[D] | Unscored[D]


class Scorer(Protocol[D_co]):
    """A pure function from the records of one cell to one axis: same records, same answer, on any machine."""

    def __call__(self, evidence: "CellEvidence", /) -> Score[D_co] | Unscored[D_co]:
        """Score one cell on one axis."""
        ...


def value_of(result: Result[D]) -> float | None:
    """The value, or None where there is none."""
    return result.value if isinstance(result, Score) else None


def published(result: Result[D]) -> D:
    """The keys as they are published: with the reason among them where there is no value."""
    if isinstance(result, Score):
        return result.detail
    return msgspec.structs.replace(result.detail, unscored=result.reason)
