"""Tool definitions as OpenAI's models are shown them: a TypeScript namespace.

The form is the one of https://github.com/openai/harmony (docs/format.md, "Function calling"), which the hosted models
were seen to share. Depth is bounded: a schema that nests deeper than any real one is ``any`` below.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from cellmeter_proxy.tokens.jsontext import as_text, compact
from cellmeter_proxy.wire.fields import as_list, as_object

_MAX_DEPTH: Final = 24
_SCALARS: Final = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool of a request."""

    name: str
    description: str
    parameters: dict[str, Any]
    """The JSON schema of its arguments."""
    definition: str
    """The definition as sent, as compact JSON."""


def typescript(tools: Iterable[Tool]) -> str:
    """All tools as the declaration of a namespace ``functions``."""
    lines = ["namespace functions {", ""]
    for tool in tools:
        if tool.description:
            lines.append(f"// {tool.description}")
        if as_object(tool.parameters.get("properties")):
            lines += [f"type {tool.name} = (_: {{", *_properties(tool.parameters, 0), "}) => any;", ""]
        else:
            lines += [f"type {tool.name} = () => any;", ""]
    return "\n".join([*lines, "} // namespace functions"])


def _properties(schema: dict[str, Any], depth: int) -> Iterator[str]:
    required = {name for name in as_list(schema.get("required")) if isinstance(name, str)}
    indent = "  " if depth else ""
    for name, value in as_object(schema.get("properties")).items():
        declared = as_object(value)
        # The models are shown what a nested property is called, not what its description says.
        if depth == 0 and (description := as_text(declared.get("description"))):
            yield f"// {description}"
        yield f"{indent}{name}{'' if name in required else '?'}: {_type(declared, depth)},"


def _type(schema: dict[str, Any], depth: int) -> str:
    if depth >= _MAX_DEPTH:
        return "any"
    if choices := as_list(schema.get("enum")):
        return " | ".join(compact(choice) for choice in choices)
    if options := as_list(schema.get("anyOf")) or as_list(schema.get("oneOf")):
        return " | ".join(_type(as_object(option), depth + 1) for option in options)
    if isinstance(kind := schema.get("type"), list):
        # Each kind once, so that every part of a schema is written once however it repeats itself.
        kinds = dict.fromkeys(as_text(one) for one in as_list(kind))
        return " | ".join(_plain_type(one, schema, depth + 1) for one in kinds)
    return _plain_type(as_text(kind), schema, depth)


def _plain_type(kind: str, schema: dict[str, Any], depth: int) -> str:
    if kind == "object":
        return "\n".join(["{", *_properties(schema, depth + 1), "}"])
    if kind == "array":
        return f"{_type(as_object(schema.get('items')), depth + 1)}[]"
    return _SCALARS.get(kind, "any")
