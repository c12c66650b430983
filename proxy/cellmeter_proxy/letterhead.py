"""What the head of a request says, worked out once: the heads of an agent's requests differ in their length alone."""

from typing import Final

from cellmeter_proxy.attribution import Upstream, client_session, presented_key, split_session
from cellmeter_proxy.headers import RawHeaders, RequestHeaders
from cellmeter_proxy.http_message import Request
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.redact import credentials
from cellmeter_proxy.wire import dialect_of

_KEPT: Final = 256
_MAX_BYTES: Final = 16 * 1024
_LENGTH: Final = frozenset({b"Content-Length", b"content-length"})
_MAX_RETRIES_DIGITS: Final = 9


class Letterhead:
    """What the head of a request says, whatever its length."""

    __slots__ = (
        "client_session",
        "dialect",
        "encoding",
        "headers",
        "key",
        "named",
        "path",
        "retries",
        "secrets",
        "target",
        "user_agent",
    )

    def __init__(self, request: Request, upstream: Upstream) -> None:
        headers = request.headers
        self.named, self.path = split_session(request.path)
        """The session that the path names, if it does, and the path without it."""
        self.dialect: Dialect = dialect_of(request.method, self.path)
        self.target = upstream.target(self.path, request.query)
        """Path and query at the provider."""
        self.key = presented_key(headers)
        """The credential that came along."""
        self.secrets = tuple(filter(None, (self.key, upstream.key, *credentials(headers.items(), request.query))))
        """All that is to be masked."""
        self.headers = RequestHeaders(request.raw_headers)
        self.encoding = headers.get("Content-Encoding")
        self.user_agent = headers.get("User-Agent")
        self.client_session = client_session(headers)
        retries = headers.get("x-stainless-retry-count", "")
        self.retries = int(retries) if retries.isdecimal() and len(retries) <= _MAX_RETRIES_DIGITS else None
        """The agent's own number of the retry."""


class Letterheads:
    """The heads that come again and again.

    Args:
        upstream: where the requests go.

    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._kept: dict[tuple[object, ...], Letterhead] = {}

    def of(self, request: Request) -> Letterhead:
        """What the head of a request says."""
        lines = [line for line in request.raw_headers if line[0] not in _LENGTH]
        same = (request.method, request.path, request.query, *lines)
        known = self._kept.get(same)
        if known is None:
            known = Letterhead(request, self._upstream)
            if _size(lines) <= _MAX_BYTES:
                if len(self._kept) >= _KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[same] = known
        return known


def _size(headers: RawHeaders) -> int:
    return sum(len(name) + len(value) for name, value in headers)
