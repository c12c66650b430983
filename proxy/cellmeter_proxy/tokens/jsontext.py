"""Strings out of JSON that others wrote, beside the accessors of ``wire.fields``."""

import json


def as_text(value: object) -> str:
    """The value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def as_source(value: object) -> str:
    """A string as it is, anything else but ``null`` as JSON: tool arguments are sent in both ways."""
    if value is None:
        return ""
    return value if isinstance(value, str) else compact(value)


def compact(value: object) -> str:
    """The value as JSON without blanks, as agents' SDKs send it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
