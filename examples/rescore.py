"""Score a log under every methodology and show where they differ.

    python examples/rescore.py LOG

Nothing but the log is read, and with ``append=False`` nothing is written to it.
"""

import sys

from cellmeter_scoring import METHODOLOGIES, rescore


def main(log: str) -> None:
    """Print one line per cell with its composite under each methodology."""
    by_methodology = {name: rescore(log, name, append=False) for name in METHODOLOGIES}
    print("\t".join(["cell", *by_methodology]))
    for cells in zip(*by_methodology.values(), strict=True):
        composites = ["unscored" if cell.composite is None else f"{cell.composite:.3f}" for cell in cells]
        print("\t".join([cells[0].cell_id, *composites]))


if __name__ == "__main__":
    main(sys.argv[1])
