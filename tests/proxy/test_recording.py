"""The rows of a call, derived from literal bytes."""

import gzip
from typing import Any

import pytest

from cellmeter_proxy.log import digest_of, make_content
from cellmeter_proxy.outcome import Broken, Head
from cellmeter_proxy.record import Attempt, Call
from cellmeter_proxy.recording import Answer, prepare_close, prepare_open, printable
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.watch import watch

SECRET = "not-a-shape-7731"
REDACTOR = Redactor([SECRET])
BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
HEAD = Head(200, 1.5, "text/event-stream", "gzip", None)


def call(**fields: Any) -> Call:
    return Call(call_id="c", session="s", writer="w", dialect="chat.completions", started_at=1, **fields)


def delta(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode()


@pytest.mark.parametrize("encoding", [None, "identity", "gzip"])
def test_a_request_is_described_by_what_it_says_and_stored_as_it_came(encoding: str | None) -> None:
    body = gzip.compress(BODY) if encoding == "gzip" else BODY
    prepared = prepare_open(call(request_encoding=encoding), body, REDACTOR, sent=b"other")
    row = prepared.call
    assert (row.request_model, row.stream, row.request_bytes, row.redactions) == ("m", True, len(body), 0)
    assert (row.body_hash, row.sent_hash) == (digest_of(body), digest_of(b"other"))
    assert row.request_hash == prepare_open(call(), BODY, REDACTOR).call.request_hash
    assert (row.prefix_hash,) == tuple(prepared.prefix)
    assert prepared.blobs == [make_content(body, grows=True)]


def test_a_request_that_cannot_be_read_is_stored_all_the_same() -> None:
    prepared = prepare_open(call(request_encoding="gzip"), b"\x1f\x8bnonsense", REDACTOR)
    assert (prepared.call.request_model, prepared.call.stream, prepared.call.request_hash) == (None, None, None)
    assert prepared.blobs == [make_content(b"\x1f\x8bnonsense", grows=True)]


def test_a_secret_spread_over_a_compressed_stream_is_masked_in_what_is_stored() -> None:
    stream = delta(SECRET[:7]) + delta(SECRET[7:])
    watcher = watch("chat.completions", {"content-type": "text/event-stream", "content-encoding": "gzip"})
    watcher.feed(gzip.compress(stream), 1.0)
    watcher.finish()
    prepared = prepare_close(call(stream=True), Answer(HEAD, watcher), REDACTOR)
    assert prepared.blobs[0] == make_content(delta("*" * 7) + delta("*" * 9))
    assert (prepared.call.redactions, prepared.call.response_bytes) == (1, len(gzip.compress(stream)))


def test_a_compressed_stream_without_a_secret_is_stored_as_it_came() -> None:
    packed = gzip.compress(delta("hello"))
    watcher = watch("chat.completions", {"content-type": "text/event-stream", "content-encoding": "gzip"})
    watcher.feed(packed, 1.0)
    watcher.finish()
    broken = Broken("timeout", "it fell silent")
    prepared = prepare_close(call(stream=True), Answer(HEAD, watcher, broken), REDACTOR)
    assert prepared.blobs[0] == make_content(packed)
    assert (prepared.call.outcome, prepared.call.error, prepared.call.redactions) == ("timeout", "it fell silent", 0)


def test_what_others_wrote_is_masked_and_made_storable() -> None:
    row = call(user_agent=f"agent \udcff {SECRET}", endpoint="/v1", error=f"é {SECRET}")
    shown = printable(row, REDACTOR)
    stars = "*" * len(SECRET)
    assert (shown.user_agent, shown.endpoint, shown.error) == (f"agent ? {stars}", "/v1", f"é {stars}")
    assert (shown.call_id, shown.session, shown.upstream) == ("c", "s", None)


def test_an_attempt_is_masked_too_and_a_harmless_row_is_left_alone() -> None:
    attempt = Attempt(call_id="c", n=1, started_at=1, error=SECRET, ratelimit=f'{{"x":"{SECRET}"}}')
    shown = printable(attempt, REDACTOR)
    assert SECRET not in f"{shown.error} {shown.ratelimit}"
    row = call(user_agent="agent/1")
    assert printable(row, REDACTOR) is row
