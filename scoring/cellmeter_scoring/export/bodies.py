"""The stored bodies of a call as text."""

from cellmeter_proxy.encodings import decode
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call


def request_text(log: Log, call: Call) -> str | None:
    """The body of a call's request, redacted as it is stored; None where it is not kept or is no text."""
    return _text(log, call.request_blob, call.request_encoding)


def response_text(log: Log, call: Call) -> str | None:
    """The body of a call's answer, redacted as it is stored; None where it is not kept or is no text."""
    return _text(log, call.response_blob, call.response_encoding)


def _text(log: Log, digest: str | None, encoding: str | None) -> str | None:
    if digest is None or not log.has_blob(digest):
        return None
    stored = log.blob(digest)
    # A body in which something had to be masked is kept without its coding.
    plain = decode(stored, encoding) if encoding else None
    try:
        return (stored if plain is None else plain).decode()
    except UnicodeDecodeError:
        return None
