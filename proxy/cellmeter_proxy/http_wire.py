"""One connection to a provider, for one request after another.

aiohttp's connector makes it; from then on it is ours. Invariant: an answer that comes belongs to the request that was
sent last, and what comes where none was sent spoils the connection.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Final

from aiohttp.connector import Connection

from cellmeter_proxy.http_answer import ProviderAnswer

_HANG_UP: Final = sum(getattr(select, name, 0) for name in ("POLLHUP", "POLLERR", "POLLRDHUP"))


class Wire(asyncio.Protocol):
    """A connection to a provider.

    Args:
        connection: fresh from the connector; nothing has been sent over it.
        silence_s: how long the provider may be silent while something is due.
        keep: takes the connection back when it is good for another request.

    """

    __slots__ = (
        "_answer",
        "_asked",
        "_connection",
        "_due",
        "_heard",
        "_keep",
        "_loop",
        "_poll",
        "_silence_s",
        "_timer",
        "spent",
        "transport",
    )

    def __init__(self, connection: Connection, silence_s: float, keep: "Callable[[Wire], None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._silence_s = silence_s
        self._keep = keep
        self._answer: ProviderAnswer | None = None
        self._asked = False  # a request was sent
        self._due = False  # something is to come, and its silence counts
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.spent = False
        """The connection takes no request: it has ended, or something has come that answers none."""
        self.transport: asyncio.Transport | None = connection.transport
        made = connection.protocol
        if self.transport is None or self.transport.is_closing() or made is None or made.should_close:
            self.spent = True
            return
        self.transport.set_protocol(self)
        self._poll = select.poll()
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            # Of TLS also what is no answer to anything: tickets and new keys (RFC 8446 §4.6).
            talks = 0 if self.transport.get_extra_info("ssl_object") else select.POLLIN
            self._poll.register(sock.fileno(), _HANG_UP | talks)

    def is_spent(self) -> bool:
        """Whether the connection takes no request, also where the event loop has not come to see it (poll(2)).

        What has come since the last answer would pass for the answer to the next request, of whichever client. Servers
        say 408 on an idle connection before they close it (https://www.rfc-editor.org/rfc/rfc9110#section-15.5.9).
        """
        if self.spent or self.transport is None or self.transport.is_closing():
            return True
        # What comes over one that is fresh is shown to whoever asks, as no HTTP.
        return any(self._asked or event & _HANG_UP for _, event in self._poll.poll(0))

    def ask(self, head: bytes, body: bytes, *, bodiless: bool) -> ProviderAnswer:
        """Send a request at once and whole; ``head`` of what it gives is done when the answer has begun.

        Args:
            head: of the request.
            body: what follows it.
            bodiless: the answer has no body, whatever its head says.

        Raises:
            RuntimeError: the connection takes no request.

        """
        if self.transport is None or self.spent:
            raise RuntimeError("the connection takes no request")
        self._asked = True
        self._answer = answer = ProviderAnswer(self, self._loop, bodiless=bodiless)
        if body:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head)
        self.listen()
        return answer

    # What an answer asks

    def listen(self) -> None:
        """Count the provider's silence from now on."""
        self._due = True
        self._heard = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence_s, self._look)

    def be_patient(self) -> None:
        """Count it no longer."""
        self._due = False

    def hold(self) -> None:
        """Read nothing more for now."""
        if self.transport is not None:
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read on."""
        if self.transport is not None:
            self.transport.resume_reading()

    def done(self, *, keep: bool) -> None:
        """The answer has ended; what of its request has not gone out is not wanted, and may never be taken."""
        self._due, self._answer = False, None
        transport = self.transport
        if not keep or self.spent or transport is None or transport.get_write_buffer_size():
            self.close()
        else:
            self._keep(self)

    def close(self) -> None:
        """End the connection."""
        self.spent, self._due = True, False
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()
        elif transport is not None:
            transport.close()
        self._connection.close()

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.spent = True
            return
        self._heard = self._loop.time()
        answer.feed(data)
        if answer.overrun:
            self.spent = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.spent = True
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.lose(exc)
        made = self._connection.protocol
        if made is not None:
            made.connection_lost(exc)
        self._connection.close()

    def _look(self) -> None:
        """Whether the provider has been silent for too long."""
        self._timer = None
        if self.transport is None:
            return
        left_s = self._heard + self._silence_s - self._loop.time() if self._due else self._silence_s
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        elif self._answer is not None:
            self._answer.fall_silent()
