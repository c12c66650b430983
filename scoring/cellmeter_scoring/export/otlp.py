"""OTLP's trace data as JSON: the messages that an export needs, and how their values are written.

The encoding is https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding: identifiers are hexadecimal, enums are
numbers, 64-bit integers are decimal strings, keys are in lowerCamelCase.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

INTERNAL: Final = 1
CLIENT: Final = 3
ERROR: Final = 2


class _Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A protobuf message: a field at its default is left out."""


class AnyValue(_Message, frozen=True, kw_only=True):
    """A value of one of these kinds."""

    string_value: str | None = None
    bool_value: bool | None = None
    int_value: str | None = None
    double_value: float | None = None
    array_value: "ArrayValue | None" = None
    kvlist_value: "KeyValueList | None" = None


class ArrayValue(_Message, frozen=True, kw_only=True):
    """Several values."""

    values: list[AnyValue] = []


class KeyValue(_Message, frozen=True, kw_only=True):
    """A named value."""

    key: str
    value: AnyValue


class KeyValueList(_Message, frozen=True, kw_only=True):
    """Several named values."""

    values: list[KeyValue] = []


class Event(_Message, frozen=True, kw_only=True):
    """Something that happened at a moment of a span."""

    time_unix_nano: str
    name: str
    attributes: list[KeyValue] = []


class Link(_Message, frozen=True, kw_only=True):
    """Another span that this one has to do with."""

    trace_id: str
    span_id: str


class Status(_Message, frozen=True, kw_only=True):
    """How a span ended; unset where nothing went wrong."""

    message: str = ""
    code: int = 0


class OtlpSpan(_Message, frozen=True, kw_only=True):
    """A span."""

    trace_id: str
    span_id: str
    parent_span_id: str = ""
    name: str
    kind: int
    start_time_unix_nano: str
    end_time_unix_nano: str
    attributes: list[KeyValue] = []
    events: list[Event] = []
    links: list[Link] = []
    status: Status = Status()


class Resource(_Message, frozen=True, kw_only=True):
    """Who recorded."""

    attributes: list[KeyValue] = []


class Scope(_Message, frozen=True, kw_only=True):
    """With what it was recorded."""

    name: str
    version: str


def trace_id(*names: object) -> str:
    """16 bytes in hexadecimal, always the same for the same names."""
    return _digest("trace", *names)[:32]


def span_id(*names: object) -> str:
    """8 bytes in hexadecimal, always the same for the same names."""
    return _digest("span", *names)[:16]


def nanoseconds(microseconds: int) -> str:
    """A moment, as OTLP writes it."""
    return str(microseconds * 1000)


def attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    """Named values; one that is None has no attribute."""
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items() if value is not None]


def _value(value: Any) -> AnyValue:
    if value is None:
        return AnyValue()
    if isinstance(value, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))
    if isinstance(value, Mapping):
        return AnyValue(kvlist_value=KeyValueList(values=attributes(value)))
    return _scalar(value)


def _scalar(value: object) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=str(value))
        case float():
            return AnyValue(double_value=value)
        case _:
            return AnyValue(string_value=str(value))


def _digest(*names: object) -> str:
    return hashlib.sha256("\0".join(map(str, names)).encode()).hexdigest()
