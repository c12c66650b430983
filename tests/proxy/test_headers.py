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


def test_names_keep_their_order_and_repetitions_and_a_repeated_one_the_case_of_its_first() -> None:
    assert list(request_headers(RAW, None).items()) == [
        ("X-Stainless-OS", "Linux"),
        ("accept", "a"),
        ("accept", "b"),
        ("Authorization", "Bearer sk-client"),
        ("x-stainless-retry-count", "0"),
    ]


def test_the_providers_key_takes_the_place_of_the_clients() -> None:
    assert request_headers(RAW, "sk-real")["Authorization"] == "Bearer sk-real"
    assert dict(request_headers([(b"x-api-key", b"cm-1")], "sk-real")) == {"x-api-key": "sk-real"}
    assert dict(request_headers([(b"Accept", b"*/*")], "sk-real")) == {
        "Accept": "*/*",
        "Authorization": "Bearer sk-real",
    }


def test_an_answers_length_and_encoding_are_kept() -> None:
    raw = [
        (b"content-length", b"9"),
        (b"Content-Encoding", b"gzip"),
        (b"Keep-Alive", b"timeout=5"),
        (b"set-cookie", b"a"),
    ]
    assert list(answer_headers(raw).items()) == [
        ("content-length", "9"),
        ("Content-Encoding", "gzip"),
        ("set-cookie", "a"),
    ]


def test_bytes_beyond_ascii_survive() -> None:
    assert request_headers([(b"X-Name", "é".encode())], None)["X-Name"] == "é"
