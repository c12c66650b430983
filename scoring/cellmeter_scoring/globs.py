"""Which recorded paths a task's or an agent's patterns mean."""

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matching(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The paths that at least one pattern means, in their order.

    Patterns are those of ``fnmatch``, compared with the whole relative path and with the case kept; ``*`` crosses
    directories, so that ``tests/*`` means everything below ``tests`` and ``.aider*`` everything below ``.aider``.
    """
    wanted = list(patterns)
    return [path for path in paths if any(fnmatchcase(path, pattern) for pattern in wanted)]
