"""What goes into a composite, and what comes out of it, as types.

The names are those of the ``components`` object on the published pages of CodingAgentBench
(https://codingagentbench.com/methodology).
"""

import math
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
    """Tokens over passes; ``math.inf`` where tokens were spent and nothing is correct."""
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
    unearned: list[str] = []
    """The axes that were not scored and whose share is lost, since the agent could have kept them from being scored."""


def as_components(given: Components | Mapping[str, object], defaults: Mapping[str, object]) -> Components:
    """Components from a mapping with their names; ``pass`` stands for ``pass_rate``, other names are ignored.

    A pass may be a truth value: true is 1, false is 0.

    Args:
        given: the components, or a mapping such as a published cell.
        defaults: values for names that a mapping lacks.

    Raises:
        CellmeterError: this is no mapping, or a component is missing or is not what it should be; the sentence
            names it.

    """
    fields = {field.name: field for field in msgspec.structs.fields(Components)}
    named = {**defaults, **_named(given)}
    missing = [name for name, field in fields.items() if field.required and name not in named]
    if missing:
        raise CellmeterError(
            f"a composite cannot be made without {', '.join(missing)}",
            hint="write None (null) for a component that was not measured",
        )
    known = {name: named[name] for name in fields if name in named}
    for name, value in known.items():
        _check(name, value, fields[name].type)
    components = msgspec.convert(known, Components)
    _refuse_infinite(components)
    return components


def _named(given: object) -> dict[str, object]:
    """The values by the names of their components; a full name goes before its alias."""
    if isinstance(given, Components):
        return msgspec.structs.asdict(given)
    if not isinstance(given, Mapping):
        kind = "nothing" if given is None else f"a {type(given).__name__}"
        raise CellmeterError(
            f"a composite is made of components by name, not of {kind}", hint='give a mapping such as {"pass": 1, …}'
        )
    named: dict[str, object] = {_ALIASES.get(key, key): value for key, value in given.items() if isinstance(key, str)}
    named |= {key: value for key, value in given.items() if key not in _ALIASES}
    verdict = named.get("pass_rate")
    return {**named, "pass_rate": int(verdict)} if isinstance(verdict, bool) else named


def _check(name: str, value: object, type_: Any) -> None:
    try:
        msgspec.convert(value, type=type_)
    except msgspec.ValidationError as error:
        raise CellmeterError(f"the component {name} cannot be {value!r}: {error}") from None


def _refuse_infinite(components: Components) -> None:
    """No measured amount is infinite, but for the price of a correct task where none is correct."""
    amounts = {"wall_clock_ms": components.wall_clock_ms}
    if components.pass_rate != 0:
        amounts["tokens_per_correct_task"] = components.tokens_per_correct_task
    for name, amount in amounts.items():
        if amount == math.inf:
            raise CellmeterError(
                f"the component {name} cannot be infinite", hint="write None (null) for what was not measured"
            )
