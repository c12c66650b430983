"""Reading a TOML file into a type, strictly.

Invariant: a key that no field names, a value of another type and a file that is not TOML are all
``CellmeterError`` sentences that name the file, the key and what is allowed there. Values are never
repeated in them: one of them may be a secret.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from cellmeter_proxy.errors import CellmeterError

T = TypeVar("T", bound=msgspec.Struct)

_AT: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_STEP: Final = re.compile(r"\[(?:\d+|\.\.\.)\]|[^.\[]+")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        CellmeterError: there is no such file, it cannot be read, or it is not TOML.

    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CellmeterError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CellmeterError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise CellmeterError(
            f"{path} is not TOML: {error}", hint="see https://toml.io/en/v1.0.0", exit_code=2
        ) from None


def convert_toml(tables: dict[str, Any], type_: type[T], path: Path) -> T:
    """The tables of a file as a value of a type.

    Raises:
        CellmeterError: a key is unknown or missing, or its value is not what its field allows.

    """
    try:
        return msgspec.convert(tables, type_)
    except msgspec.ValidationError as error:
        raise _explained(str(error), type_, path) from None


def wrong(path: Path, key: str, problem: str, *, hint: str | None = None) -> CellmeterError:
    """The sentence for a value that its type allows and its meaning does not."""
    return CellmeterError(f"{path}: {key}: {problem}", hint=hint, exit_code=2)


def _explained(text: str, type_: type[msgspec.Struct], path: Path) -> CellmeterError:
    match = _AT.search(text)
    where = match["path"] if match else ""
    problem = text[: match.start()] if match else text
    allowed = _allowed(msgspec.inspect.type_info(type_), _STEP.findall(where), problem)
    problem = problem.replace("Object contains unknown field", "unknown key").replace(
        "Object missing required field", "missing key"
    )
    # An enum's message repeats the value, which may be anything that a user pasted there.
    problem = "value is not allowed here" if problem.startswith("Invalid enum value") else problem
    place = f"{where}: " if where else ""
    return CellmeterError(f"{path}: {place}{problem}", hint=allowed, exit_code=2)


def _allowed(info: msgspec.inspect.Type, steps: list[str], problem: str) -> str | None:
    """What may stand at a place of the file, where naming it helps."""
    for step in steps:
        info = _child(info, step)
    for option in _options(info):
        if isinstance(option, msgspec.inspect.LiteralType):
            return "allowed: " + ", ".join(f'"{value}"' for value in option.values)
        if isinstance(option, msgspec.inspect.StructType) and "unknown field" in problem:
            return "allowed keys: " + ", ".join(field.encode_name for field in option.fields)
    return None


def _options(info: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    return tuple(info.types) if isinstance(info, msgspec.inspect.UnionType) else (info,)


def _child(info: msgspec.inspect.Type, step: str) -> msgspec.inspect.Type:
    for option in _options(info):
        if isinstance(option, msgspec.inspect.StructType):
            for field in option.fields:
                if field.encode_name == step:
                    return field.type
        if isinstance(option, msgspec.inspect.DictType):
            return option.value_type
        if isinstance(option, msgspec.inspect.ListType):
            return option.item_type
    return info
