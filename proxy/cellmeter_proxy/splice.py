"""Asking for usage in the client's place, as a splice into the received bytes.

Invariant: apart from the spliced span the result is the body byte for byte, whatever its white space, key order,
escapes and number forms.
"""

from typing import Final

import msgspec

from cellmeter_proxy.wire.fields import spans

_ASK: Final = '"include_usage":true'
_SPACE: Final = " \t\n\r"


class _Asked(msgspec.Struct):
    """What a request says of streaming: of names that are there twice, the last."""

    stream: object = None
    stream_options: object = None


_ASKED: Final = msgspec.json.Decoder(_Asked)


def add_include_usage(body: bytes) -> bytes | None:
    """The body with ``stream_options.include_usage`` set, or None where that does not apply.

    It applies to a JSON object with ``"stream": true`` that says nothing about ``include_usage``: false too is the
    client's word. Where ``stream`` or ``stream_options`` is there twice, providers would differ on what it means.
    https://platform.openai.com/docs/api-reference/chat/create#chat_create-stream_options

    Args:
        body: of a request for chat completions or completions, without content coding.

    """
    if _needs_nothing(body):
        return None
    try:
        source = body.decode()
    except UnicodeDecodeError:
        return None
    members = spans(source)
    if not members or not _ends_with(source, members[-1][2]):
        return None
    streams = [source[begin:end] for name, begin, end in members if name == "stream"]
    options = [(begin, end) for name, begin, end in members if name == "stream_options"]
    if streams != ["true"] or len(options) > 1:
        return None
    if not options:
        at = members[-1][2]
        return f'{source[:at]},"stream_options":{{{_ASK}}}{source[at:]}'.encode()
    return _into_options(source, *options[0])


def _needs_nothing(body: bytes) -> bool:
    """The common cases, told without cutting: no stream, or the client asks for usage itself."""
    try:
        asked = _ASKED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    options = asked.stream_options
    return asked.stream is not True or (isinstance(options, dict) and "include_usage" in options)


def _into_options(source: str, begin: int, end: int) -> bytes | None:
    if source[begin:end] == "null":
        return f"{source[:begin]}{{{_ASK}}}{source[end:]}".encode()
    members = spans(source, begin)
    if members is None or any(name == "include_usage" for name, _, _ in members):
        return None
    comma = "," if members else ""
    return f"{source[: begin + 1]}{_ASK}{comma}{source[begin + 1 :]}".encode()


def _ends_with(source: str, last: int) -> bool:
    """Whether after the last member there is the object's end and nothing else."""
    return source[last:].strip(_SPACE) == "}"
