"""An answer inside a head that had to be sent before it: in a stream of events, or after a JSON document's white space.

Invariant: the client can parse what it gets, whatever the provider answered: an error to a stream is an event of it.
"""

from typing import Final

from cellmeter_proxy.encodings import StreamDecoder
from cellmeter_proxy.http_message import Reply, Response
from cellmeter_proxy.waiting import EVENTS

# Line ends are white space in JSON, and would end the event's data line.
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")


class Envelope:
    """What is done to an answer's bytes so that they fit the head that the client has.

    Args:
        early: the answer whose head the client has.
        streamed: the provider's answer is a stream of events.
        encoding: the content coding of the provider's answer; the client was told of none.

    """

    def __init__(self, early: Response, *, streamed: bool, encoding: str | None) -> None:
        self._as_event = is_stream(early) and not streamed
        self._decoder = StreamDecoder(encoding)
        self._begun = False

    def put(self, data: bytes) -> bytes:
        """The next bytes, as the client shall get them."""
        data = self._decoder.feed(data)
        if not self._as_event or not data:
            return data
        prefix, self._begun = b"" if self._begun else b"data: ", True
        return prefix + data.translate(_ONE_LINE)

    def end(self) -> bytes:
        """What follows the last bytes."""
        return b"\n\n" if self._begun else b""


def is_stream(early: Response) -> bool:
    """Whether the client was told that events follow."""
    return (b"Content-Type", EVENTS.content_type) in early.headers


async def answer_late(early: Response, reply: Reply) -> Response:
    """Give the proxy's own answer to a client that already has another head."""
    envelope = Envelope(early, streamed=False, encoding=None)
    try:
        await early.write(envelope.put(reply.body) + envelope.end())
    except ConnectionError:
        return early
    return early
