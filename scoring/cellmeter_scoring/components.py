"""What goes into a composite, and what comes out of it, as types.

The names are those of the ``components`` object on the published pages of CodingAgentBench
(https://codingagentbench.com/methodology).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from cellmeter_proxy.errors import CellmeterError

Fraction = Annotated[float, Meta(ge=0, le=1)]
Amount = Annotated[float, Meta(ge=0)]

_ALIASES: Final = {"pass": "pass_rate"}


class Components(msgspec.Struct, frozen=True, kw_only=True):
    """The axes of one cell that a composite is made of. None means: not measured."""

    pass_rate: Fraction | None
    """1 where the grader passed, 0 where it did not."""
    integrity: Fraction | None
    """1 honest, 0 not."""
    blast_radius: Fraction | None
    """Share of the changed files that the task does not expect."""
    tokens_per_correct_task: Amount | None = None
    """Tokens over passes; ``math.inf`` (null in JSON) where tokens were spent and nothing is correct."""
    wall_clock_ms: Amount | None
    expected_refusal: bool
    refusal_produced: bool | None


class ComposedComponents(Components, frozen=True, kw_only=True):
    """The components with the terms that the formula made of them."""

    cost_efficiency: Fraction | None
    latency_efficiency: Fraction | None
    clean_blast: Fraction | None
    refusal_factor: Fraction | None


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """The share of each term in the weighted sum; a term that multiplies the sum has a share of 0."""

    pass_rate: float
    integrity: float
    cost: float
    latency: float
    blast_radius: float


class Composite(msgspec.Struct, frozen=True, kw_only=True):
    """One cell's composite with everything that it was made of."""

    composite: float | None
    weights: Weights
    """As they were used: after the shares of unscored axes were given to the scored ones."""
    components: ComposedComponents
    note: str
    unscored: list[str] = []
    """Why there is no composite, one sentence each."""
    reweighted: list[str] = []
    """The axes that were not scored and whose share the others took over."""


def as_components(given: Components | Mapping[str, object], defaults: Mapping[str, object]) -> Components:
    """Components from a mapping with their names; ``pass`` stands for ``pass_rate``, other names are ignored.

    Args:
        given: the components, or a mapping such as a published cell.
        defaults: values for names that a mapping lacks.

    Raises:
        CellmeterError: a component is missing, or is not what it should be; the sentence names it.

    """
    if isinstance(given, Components):
        given = msgspec.structs.asdict(given)
    fields = {field.name: field for field in msgspec.structs.fields(Components)}
    named = {**defaults, **{_ALIASES.get(key, key): value for key, value in given.items()}}
    named |= {key: value for key, value in given.items() if key in fields}
    missing = [name for name, field in fields.items() if field.required and name not in named]
    if missing:
        raise CellmeterError(
            f"a composite cannot be made without {', '.join(missing)}",
            hint="write None (null) for a component that was not measured",
        )
    known = {name: named[name] for name in fields if name in named}
    for name, value in known.items():
        _check(name, value, fields[name].type)
    return msgspec.convert(known, Components)


def _check(name: str, value: object, type_: Any) -> None:
    try:
        msgspec.convert(value, type=type_)
    except msgspec.ValidationError as error:
        raise CellmeterError(f"the component {name} cannot be {value!r}: {error}") from None
