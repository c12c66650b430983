"""Whose call is this: the cell, the session, and the upstream address that a request is meant for.

Pure: a request's path and headers in, a decision out. In a sweep only virtual keys are admitted and
the provider's key is put in their place; outside one the client's own key is forwarded and its
fingerprint names the session, unless the path does (``/s/<name>/v1/…``).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from msgspec import Struct
from yarl import URL

from cellmeter_proxy.keys import PREFIX, CellRef, KeyRing
from cellmeter_proxy.record import ANONYMOUS
from cellmeter_proxy.redact import Redactor, fingerprint

_SESSION_PATH: Final = re.compile(r"^/s/((?:[A-Za-z0-9._~@:+-]|%[0-9A-Fa-f]{2}){1,384})(/.*|$)")
_LONGEST_NAME: Final = 128
_KEY_HEADERS: Final = ("x-api-key", "api-key", "x-goog-api-key")
# Sent by agents of their own accord: they group calls further, but most agents send none, so none names a session.
_CLIENT_SESSION_HEADERS: Final = ("x-session-id", "session-id", "x-claude-code-session-id", "x-affinity")


@dataclass(frozen=True)
class Upstream:
    """A provider: its base URL, and the key to use in place of the client's, if any."""

    url: URL
    key: str | None = None

    def target(self, path: str, query: str) -> str:
        """Path and query at the provider, for those that a client used.

        The base may carry a version (``https://host/openai/v1``) or not (``https://host``); a client's ``/v1`` is
        taken as the same version, not as a second one.
        """
        base = self.url.raw_path.rstrip("/")
        if base.endswith("/v1") and (path == "/v1" or path.startswith("/v1/")):
            path = path[len("/v1") :]
        return f"{base}{path}?{query}" if query else f"{base}{path}"


class Admission(Struct, frozen=True):
    """A request that may go on: where it belongs, and how it authenticates upstream."""

    session: str
    path: str
    cell: CellRef | None
    key: str | None
    """The secret that came with the request; for redaction, never for storage."""
    upstream_key: str | None
    """The secret to send in its place; None forwards the request's own."""


SessionOf = Callable[[str | None, str | None], str]


class Refusal(Struct, frozen=True):
    """A request that may not."""

    session: str
    path: str
    key: str | None
    reason: str
    cell: None = None


def split_session(path: str) -> tuple[str | None, str]:
    """The session that a raw path names, percent-decoded, and the path without it."""
    match = _SESSION_PATH.match(path) if path.startswith("/s/") else None
    name = "" if match is None else unquote(match[1])
    if match is None or not name.isprintable() or len(name) > _LONGEST_NAME:
        return None, path
    return name, match[2] or "/"


def presented_key(headers: Mapping[str, str]) -> str | None:
    """The credential of a request, whichever of the usual headers carries it."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if value and scheme.lower() == "bearer":
        return value.strip()
    return next((headers[name] for name in _KEY_HEADERS if headers.get(name)), None)


def client_session(headers: Mapping[str, str]) -> str | None:
    """The session identifier that the agent itself sent, if it sends one."""
    return next((headers[name] for name in _CLIENT_SESSION_HEADERS if headers.get(name)), None)


def admit(
    named: str | None,
    path: str,
    key: str | None,
    *,
    keys: KeyRing,
    cells_only: bool,
    upstream: Upstream,
    session_of: SessionOf,
) -> Admission | Refusal:
    """Decide whose call a request is.

    Args:
        named: the session that its path names, if any.
        path: the raw path without it (see ``split_session``).
        key: that came with it (see ``presented_key``).
        keys: the virtual keys in force.
        cells_only: refuse what has no virtual key, as a sweep does.
        upstream: where admitted calls go.
        session_of: names the session of a call that belongs to no cell (see ``session_of``).

    """
    cell = keys.find(key) if key else None
    session = cell.session if cell else session_of(named, key)
    if cell is not None:
        return Admission(session, path, cell, key, upstream.key)
    if cells_only or (key is not None and key.startswith(PREFIX)):
        return Refusal(session, path, key, "the key is not one of this sweep's, or its cell has ended")
    return Admission(session, path, None, key, upstream.key)


def session_of(named: str | None, key: str | None, salt: str) -> str:
    """The session of a call by the name in its path, or else by its key's fingerprint under the log's salt."""
    if named is not None:
        # A key where a name should stand is as secret as anywhere else.
        is_secret = named == key or bool(Redactor().text(named)[1])
        return fingerprint(named, salt) if is_secret else named
    return fingerprint(key, salt) if key else ANONYMOUS
