"""One thing about a log that deserves attention."""

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, in one sentence, and where."""

    kind: str
    """A fixed word for the kind of thing, such as ``digest`` or ``agent retry``."""
    message: str
    ids: list[str] = []
    """The calls, cells or blobs that it is about."""
