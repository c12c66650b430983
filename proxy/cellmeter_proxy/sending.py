"""To the provider: the tries upstream of one call, each recorded as an attempt whichever way it ends.

Invariant: a request is sent a second time only where the first try cannot have had an effect, and at most once for
each of two reasons: nothing of it had been written (the provider had closed the kept-alive connection), or the
provider refused the field that was put in to ask for usage. https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
forbids a proxy to repeat a POST that may have been processed.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, Protocol

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from msgspec.structs import replace
from multidict import CIMultiDictProxy
from yarl import URL

from cellmeter_proxy.encodings import StreamDecoder
from cellmeter_proxy.headers import RawHeaders, RequestHeaders
from cellmeter_proxy.http_answer import ProviderAnswer
from cellmeter_proxy.http_body import Take
from cellmeter_proxy.http_client import PeerHungUpError, ProviderClient
from cellmeter_proxy.outcome import Broken, Limits, no_answer
from cellmeter_proxy.ratelimit import rate_limits, retry_after_ms, tells_of_limits
from cellmeter_proxy.record import Attempt, now_us
from cellmeter_proxy.throttle import Throttle
from cellmeter_proxy.transfer import Unwrapped, below_chunked
from cellmeter_proxy.wire.fields import load_object, text

_REFUSING: Final = frozenset({400, 422})
_ASKING_NAMES: Final = (b"stream_options", b"include_usage")
_MAX_REFUSAL: Final = 64 * 1024
_MAX_REMEMBERED: Final = 1000
_STALE: Final = "the provider had closed the kept-alive connection before anything of the request was sent"
_TRY_AGAIN_LATER: Final = "Temporary failure in name resolution"
"""EAI_AGAIN of gai_strerror(3): the network is down, rather than the name wrong."""
_REQUEST_ID_HEADERS: Final = ("x-request-id", "request-id", "x-generation-id", "apim-request-id", "cf-ray")


class NoAnswerError(Exception):
    """The provider gave no answer at all."""

    def __init__(self, broken: Broken, *, unreached: bool = False) -> None:
        super().__init__(broken.reason)
        self.broken = broken
        self.unreached = unreached
        """No connection came about, for a reason that may pass."""


class Outgoing(Struct, frozen=True):
    """A request as it goes to the provider."""

    method: str
    target: str
    """Path and query at the provider."""
    headers: RequestHeaders
    key: str | None
    """The provider's key to put in place of the client's; None leaves the client's own."""
    body: bytes
    asking: bytes | None = None
    """The body with usage asked for (``splice.add_include_usage``), or None where it goes as it is."""
    identity: bool = False
    """Ask for an answer without content coding."""


class ProviderResponse(Protocol):
    """What is used of a ``ProviderAnswer``, whichever process has its connection."""

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> bytes: ...
    @property
    def headers(self) -> CIMultiDictProxy[str]: ...
    @property
    def raw_headers(self) -> RawHeaders: ...
    @property
    def is_whole(self) -> bool: ...
    def chunks(self) -> AsyncIterator[bytes]: ...
    def each(self, take: Take) -> AsyncIterator[None]: ...
    def take_all(self) -> bytes: ...
    def close(self) -> None: ...


class Incoming(Struct, frozen=True):
    """An answer whose head has come."""

    response: ProviderResponse
    asked: bool = False
    """Usage was asked for in the client's place."""
    read: bytes = b""
    """What was read of the body already."""

    @property
    def is_whole(self) -> bool:
        """Nothing of the body is still to come."""
        return self.response.is_whole

    async def each(self, take: Take) -> AsyncIterator[None]:
        """Have the body taken piece by piece (see ``ProviderAnswer.each``)."""
        if self.read and not take(self.read):
            yield
        async for _ in self.response.each(take):
            yield

    def take_all(self) -> bytes:
        """The body of an answer that is whole, or what is left of it."""
        rest = self.response.take_all()
        return self.read + rest if self.read else rest

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece as it arrives."""
        if self.read:
            yield self.read
        async for chunk in self.response.chunks():
            yield chunk


class Refusals:
    """The models whose requests may not ask for usage, as their provider has said.

    Args:
        tell: is told of each model that is found out here.

    """

    def __init__(self, tell: Callable[[str | None], object] | None = None) -> None:
        self._models: set[str | None] = set()
        self._tell = tell

    def __bool__(self) -> bool:
        return bool(self._models)

    def __contains__(self, model: str | None) -> bool:
        return model in self._models

    def find_out(self, model: str | None) -> None:
        """A provider has refused."""
        if self.note(model) and self._tell is not None:
            self._tell(model)

    def note(self, model: str | None) -> bool:
        """Remember it; whether that is news."""
        known = model in self._models or len(self._models) >= _MAX_REMEMBERED
        if not known:
            self._models.add(model)
        return not known


class Sender:
    """Sends requests to one provider, and remembers which models' requests may not ask for usage."""

    def __init__(self, client: ProviderClient, upstream: URL, limits: Limits, refusals: Refusals | None = None) -> None:
        self._client = client
        self._upstream = upstream
        self._limits = limits
        self._refusals = Refusals() if refusals is None else refusals
        self.throttle = Throttle()
        """What the provider has refused for its rate limit."""

    def may_ask(self, body: bytes) -> bool:
        """Whether the provider is not known to refuse the field, for the model that a body names."""
        return not self._refusals or _model(body) not in self._refusals

    def send(self, outgoing: Outgoing, call_id: str, attempts: list[Attempt]) -> Awaitable[Incoming]:
        """The provider's answer.

        Args:
            outgoing: what to send.
            call_id: of the row that the attempts belong to.
            attempts: each try is added to it.

        Raises:
            NoAnswerError: there is none.

        """
        if outgoing.asking is None:
            return self._try(outgoing, None, call_id, attempts)
        return self._ask(outgoing, outgoing.asking, call_id, attempts)

    async def _ask(self, outgoing: Outgoing, asking: bytes, call_id: str, attempts: list[Attempt]) -> Incoming:
        """Ask for usage in the client's place; as the client has it, where the provider refuses that."""
        incoming = await self._try(outgoing, asking, call_id, attempts)
        response = incoming.response
        if response.status not in _REFUSING:
            return incoming
        read = await peek(response)
        if not _names_the_field(read, response.headers.get("Content-Encoding")):
            return Incoming(response, asked=True, read=read)
        response.close()
        attempts[-1] = replace(attempts[-1], error="the provider refuses stream_options.include_usage")
        incoming = await self._try(outgoing, None, call_id, attempts)
        if incoming.response.status not in _REFUSING:
            self._refusals.find_out(_model(outgoing.body))
        return incoming

    async def _try(
        self, outgoing: Outgoing, asking: bytes | None, call_id: str, attempts: list[Attempt], *, again: bool = False
    ) -> Incoming:
        """One try; two where nothing of the first one was sent."""
        content, identity = (outgoing.body, outgoing.identity) if asking is None else (asking, True)
        headers = outgoing.headers.lines(outgoing.key, identity=identity)
        n, started_at, began = len(attempts) + 1, now_us(), time.perf_counter()
        try:
            response = _unwrapped(await self._client.request(outgoing.method, outgoing.target, headers, content))
        except (TimeoutError, aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            unsent = isinstance(error, PeerHungUpError)
            broken = no_answer(error, self._upstream, self._limits)
            reason = _STALE if unsent else broken.reason
            latency_ms = _ms_since(began)
            attempts.append(Attempt(call_id=call_id, n=n, started_at=started_at, latency_ms=latency_ms, error=reason))
            if again or not unsent:
                raise NoAnswerError(broken, unreached=_may_connect_later(error)) from error
        else:
            attempt = _answered(response, call_id, n, started_at, _ms_since(began))
            attempts.append(attempt)
            self.throttle.note(attempt)
            return Incoming(response, asked=asking is not None)
        return await self._try(outgoing, asking, call_id, attempts, again=True)


def _answered(response: ProviderResponse, call_id: str, n: int, started_at: int, latency_ms: float) -> Attempt:
    """A try that has got the head of an answer."""
    headers = response.headers
    limits = tells_of_limits(response.raw_headers)
    return Attempt(
        call_id=call_id,
        n=n,
        started_at=started_at,
        status=response.status,
        retry_after_ms=retry_after_ms(headers, now_us()) if limits else None,
        ratelimit=rate_limits(headers) if limits else None,
        request_id=request_id(headers),
        latency_ms=latency_ms,
    )


def _unwrapped(answer: ProviderAnswer) -> ProviderResponse:
    """An answer without the transfer codings that it may have come in."""
    applied = below_chunked(answer.headers)
    try:
        return answer if applied is None else Unwrapped(answer, applied)
    except HttpProcessingError:
        answer.close()
        raise


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's name for the request, under whichever header it uses."""
    for name in _REQUEST_ID_HEADERS:
        found = headers.get(name)
        if found:
            return found
    return None


def _may_connect_later(error: Exception) -> bool:
    """Whether no connection came about, and another might: a refused one, but no bad name or certificate."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _TRY_AGAIN_LATER in str(error.os_error)
    lasting = (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError)
    failed = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
    return isinstance(error, failed) and not isinstance(error, lasting)


async def peek(response: ProviderResponse) -> bytes:
    """The body of an error, or its beginning. What goes wrong here goes wrong again for whoever reads on."""
    read = bytearray()
    try:
        async for chunk in response.chunks():
            read += chunk
            if len(read) > _MAX_REFUSAL:
                break
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    return bytes(read)


def _names_the_field(body: bytes, encoding: str | None) -> bool:
    plain = StreamDecoder(encoding, _MAX_REFUSAL).feed(body)
    return any(name in plain for name in _ASKING_NAMES)


def _model(body: bytes) -> str | None:
    return text(load_object(body).get("model"))


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
