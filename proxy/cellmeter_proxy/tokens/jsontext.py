"""JSON of strangers: decoded without raising, looked into without trust, and written compactly again."""

import json
from typing import Any, cast

import msgspec


def decode(document: bytes | str) -> object:
    """The value of a JSON document, or None where it is not one (or is ``null``)."""
    try:
        return cast("object", msgspec.json.decode(document))
    except (ValueError, RecursionError):
        pass
    try:
        # Agents in JavaScript cut strings within a surrogate pair and escape the half; json reads it, msgspec does not.
        return cast("object", json.loads(document))
    except (ValueError, RecursionError):
        return None


def compact(value: object) -> str:
    """The value as JSON without blanks, as agents' SDKs send it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_dict(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value if it is an array, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """The value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def as_source(value: object) -> str:
    """A string as it is, anything else but ``null`` as JSON: tool arguments are sent in both ways."""
    if value is None:
        return ""
    return value if isinstance(value, str) else compact(value)
