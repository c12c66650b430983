"""An answer inside a head that came before it."""

import gzip
import json

import pytest

from cellmeter_proxy.http_message import Response
from cellmeter_proxy.late import Envelope
from cellmeter_proxy.waiting import EVENTS, JSON, Filler


def early(filler: Filler) -> Response:
    return Response(200, [(b"Content-Type", filler.content_type)])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_document_becomes_one_event_of_a_stream_however_it_is_split(size: int) -> None:
    body = b'{\r\n  "error": {"message": "a\\nb"}\n}\n'
    envelope = Envelope(early(EVENTS), streamed=False, encoding=None)
    parts = [envelope.put(body[at : at + size]) for at in range(0, len(body), size)]
    event = b"".join([*parts, envelope.end()])
    assert event.startswith(b"data: {")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert b"\r" not in event
    assert json.loads(event.removeprefix(b"data: ")) == {"error": {"message": "a\nb"}}


def test_a_stream_in_a_stream_and_a_document_in_a_document_stay_as_they_are() -> None:
    for filler, streamed in ((EVENTS, True), (JSON, False)):
        envelope = Envelope(early(filler), streamed=streamed, encoding=None)
        assert envelope.put(b"a\r\n\r\nb") == b"a\r\n\r\nb"
        assert envelope.end() == b""


def test_a_coding_that_the_client_was_not_told_of_is_taken_off() -> None:
    envelope = Envelope(early(JSON), streamed=False, encoding="gzip")
    assert envelope.put(gzip.compress(b'{"a":1}')) == b'{"a":1}'


def test_an_empty_answer_is_no_event() -> None:
    envelope = Envelope(early(EVENTS), streamed=False, encoding=None)
    assert envelope.put(b"") + envelope.end() == b""
