"""Transfer codings below ``chunked``: they belong to one hop, so that they are undone here and the client gets none.

https://www.rfc-editor.org/rfc/rfc9112#section-6.1 allows that to whoever receives a message. Invariant: what goes on
without its label is without its coding; where that cannot be, nothing goes on.
"""

from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy

from cellmeter_proxy.encodings import StreamDecoder, codings
from cellmeter_proxy.headers import RawHeaders
from cellmeter_proxy.http_answer import ProviderAnswer
from cellmeter_proxy.http_body import Take, each_of

_CHUNKED: Final = "chunked"


def below_chunked(headers: CIMultiDictProxy[str]) -> str | None:
    """The transfer codings that were applied before a message was divided into chunks; None where there are none."""
    if "transfer-encoding" not in headers:
        return None
    applied = codings(",".join(headers.getall("transfer-encoding")))
    # It is applied once, however often it is named (RFC 9112 §6.1): servers behind servers repeat the header.
    while applied[-1:] == [_CHUNKED]:
        applied.pop()
    return ", ".join(applied) or None


class Unwrapped:
    """An answer without the transfer codings that it came in; a ``ProviderResponse``.

    Args:
        answer: whose head has come.
        applied: its codings, as ``below_chunked`` has them.

    Raises:
        HttpProcessingError: one of them is not known here.

    """

    def __init__(self, answer: ProviderAnswer, applied: str) -> None:
        self._answer = answer
        self._decoder = StreamDecoder(applied)
        if self._decoder.error is not None:
            raise HttpProcessingError(code=400, message=f"its transfer coding is not known here: {applied[:100]}")

    @property
    def is_whole(self) -> bool:
        """Never told: whether what has come is sound shows as it is read."""
        return False

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def reason(self) -> bytes:
        return self._answer.reason

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self._answer.headers

    @property
    def raw_headers(self) -> RawHeaders:
        return self._answer.raw_headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """See ``ProviderAnswer.chunks``; a coding that is damaged or cut off is an answer that broke off."""
        async for chunk in self._answer.chunks():
            plain = self._decoder.feed(chunk)
            if plain:
                yield plain
            self._check()
        self._decoder.finish()
        self._check()

    def each(self, take: Take) -> AsyncIterator[None]:
        """See ``ProviderAnswer.each``."""
        return each_of(self.chunks(), take)

    def take_all(self) -> bytes:
        """Nothing: all of it comes in pieces."""
        return b""

    def close(self) -> None:
        """See ``ProviderAnswer.close``."""
        self._answer.close()

    def _check(self) -> None:
        if self._decoder.error is not None:
            raise aiohttp.ClientPayloadError(f"in its transfer coding: {self._decoder.error}")
