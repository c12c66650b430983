"""Asking for usage in the client's place, as a splice into the received bytes.

Invariant: apart from the spliced span the result is the body byte for byte, whatever its white space, key order,
escapes and number forms.
"""

import re
from typing import Final

import msgspec

from cellmeter_proxy.wire.fields import spans

_ASK: Final = '"include_usage":true'
_OPTIONS: Final = f',"stream_options":{{{_ASK}}}'
_SPACE: Final = b" \t\n\r"
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[567]")


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
    asked = _asked(body)
    if asked is not None and _says_enough(asked):
        return None
    if asked is not None and _has_no_options(body):
        end = len(body.rstrip(_SPACE)) - 1
        at = len(body[:end].rstrip(_SPACE))
        return b"%b%b%b" % (body[:at], _OPTIONS.encode(), body[at:])
    return _cut_in(body)


def _asked(body: bytes) -> _Asked | None:
    """What a JSON object says of streaming, or None for what is no such object, or perhaps none."""
    try:
        return _ASKED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _says_enough(asked: _Asked) -> bool:
    """No stream, or the client asks for usage itself."""
    options = asked.stream_options
    return asked.stream is not True or (isinstance(options, dict) and "include_usage" in options)


def _has_no_options(body: bytes) -> bool:
    """Whether a streaming request certainly names its stream once and its options never, told without cutting.

    A name may be written with escapes of its letters.
    """
    return (
        body.count(b'"stream"') == 1
        and b'"stream_options"' not in body
        and _ESCAPED_LETTER.search(body) is None
        and _is_utf8(body)
    )


def _is_utf8(body: bytes) -> bool:
    try:
        return body.isascii() or bool(body.decode())
    except UnicodeDecodeError:
        return False


def _cut_in(body: bytes) -> bytes | None:
    """The same for any body, by its members."""
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
        return f"{source[:at]}{_OPTIONS}{source[at:]}".encode()
    return _into_options(source, *options[0])


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
    return source[last:].strip(_SPACE.decode()) == "}"
