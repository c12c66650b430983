"""One composite from one cell's components."""

from collections.abc import Mapping

from cellmeter_scoring.components import Components, Composite, as_components
from cellmeter_scoring.methodology import find_methodology


def compose(components: Components | Mapping[str, object], methodology: str = "cab-0.1") -> Composite:
    """The composite of one cell under a methodology, with everything it was made of.

    Args:
        components: the axes, by the names of ``Components``; a published cell can be passed as it is. Under
            ``cab-0.1`` absent ``tokens_per_correct_task`` counts as 0, as on the published pages; under
            ``cellmeter-1`` it counts as not measured, and earns nothing. None counts as not measured under both.
        methodology: the name of one of ``METHODOLOGIES``.

    Raises:
        CellmeterError: there is no such methodology, the components are no mapping, or one of them is missing or is not
            what it should be.

    """
    chosen = find_methodology(methodology)
    return chosen.combine(as_components(components, chosen.defaults))
