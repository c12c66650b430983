"""Headers go on as they came, less those of the hop and with the key exchanged."""

from cellmeter_proxy.headers import answer_headers, request_headers

RAW = [
    (b"Host", b"127.0.0.1:4000"),
    (b"X-Stainless-OS", b"Linux"),
    (b"accept", b"a"),
    (b"Accept", b"b"),
    (b"Authorization", b"Bearer sk-client"),
    (b"Connection", b"keep-alive, X-Hop"),
    (b"x-hop", b"1"),
    (b"Content-Length", b"5"),
    (b"Transfer-Encoding", b"chunked"),
    (b"x-stainless-retry-count", b"0"),
]


def test_names_keep_their_order_case_and_repetitions() -> None:
    assert request_headers(RAW, None) == [
        (b"X-Stainless-OS", b"Linux"),
        (b"accept", b"a"),
        (b"Accept", b"b"),
        (b"Authorization", b"Bearer sk-client"),
        (b"x-stainless-retry-count", b"0"),
    ]


def test_a_coding_that_nobody_may_use_is_not_asked_for() -> None:
    raw = [(b"accept-encoding", b"gzip"), (b"Accept-Encoding", b"br"), (b"A", b"1")]
    assert request_headers(raw, None, identity=True) == [(b"A", b"1"), (b"Accept-Encoding", b"identity")]


def test_the_providers_key_takes_the_place_of_the_clients() -> None:
    assert (b"Authorization", b"Bearer sk-real") in request_headers(RAW, "sk-real")
    assert request_headers([(b"x-api-key", b"cm-1")], "sk-real") == [(b"x-api-key", b"sk-real")]
    assert request_headers([(b"Accept", b"*/*")], "sk-real") == [
        (b"Accept", b"*/*"),
        (b"Authorization", b"Bearer sk-real"),
    ]


def test_an_answers_length_and_encoding_are_kept() -> None:
    raw = [
        (b"content-length", b"9"),
        (b"Content-Encoding", b"gzip"),
        (b"Keep-Alive", b"timeout=5"),
        (b"set-cookie", b"a"),
    ]
    assert answer_headers(raw) == [(b"content-length", b"9"), (b"Content-Encoding", b"gzip"), (b"set-cookie", b"a")]
    assert answer_headers(raw, shortened=True) == [(b"Content-Encoding", b"gzip"), (b"set-cookie", b"a")]


def test_bytes_beyond_ascii_survive() -> None:
    raw = [(b"X-Name", "é".encode()), (b"X-Latin", b"\xe9")]
    assert request_headers(raw, None) == raw


def test_what_ends_a_line_becomes_a_space() -> None:
    assert answer_headers([(b"A", b"1\r\nSet-Cookie: x"), (b"B", b"\t2")]) == [
        (b"A", b"1  Set-Cookie: x"),
        (b"B", b"\t2"),
    ]
