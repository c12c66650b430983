"""What the head of a request says is worked out once for heads that are the same, and never for others."""

from typing import Any, cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from cellmeter_proxy.attribution import Upstream
from cellmeter_proxy.http_message import Request
from cellmeter_proxy.letterhead import Letterheads

HEADERS = [(b"Host", b"p"), (b"Authorization", b"Bearer sk-one"), (b"Content-Length", b"10")]


class Sent:
    """As much of a request as its head says."""

    def __init__(self, headers: list[tuple[bytes, bytes]], path: str = "/s/mine/v1/responses", query: str = "") -> None:
        self.method, self.path, self.query, self.raw_headers = "POST", path, query, headers
        decoded = [(name.decode(), value.decode()) for name, value in headers]
        self.headers = CIMultiDictProxy(CIMultiDict(decoded))


def request(*args: Any) -> Request:
    return cast("Request", Sent(*args))


def test_heads_that_differ_in_their_length_alone_are_one() -> None:
    heads = Letterheads(Upstream(URL("https://h/v1"), "sk-real"))
    first = heads.of(request(HEADERS))
    assert heads.of(request([*HEADERS[:2], (b"content-length", b"11")])) is first
    assert (first.named, first.path, first.target, first.dialect) == (
        "mine",
        "/v1/responses",
        "/v1/responses",
        "responses",
    )
    assert first.secrets == ("sk-one", "sk-real", "sk-one")
    assert first.headers.lines("sk-real") == b"Authorization: Bearer sk-real\r\n"
    assert first.headers.lines(None) == b"Authorization: Bearer sk-one\r\n"


@pytest.mark.parametrize(
    "other",
    [
        ([HEADERS[0], (b"Authorization", b"Bearer sk-two"), HEADERS[2]],),
        ([HEADERS[1], HEADERS[0], HEADERS[2]],),
        ([*HEADERS, (b"x-session-id", b"a")],),
        (HEADERS, "/s/other/v1/responses"),
        (HEADERS, "/s/mine/v1/responses", "key=sk-query"),
    ],
)
def test_any_other_difference_makes_another_head(other: tuple[Any, ...]) -> None:
    heads = Letterheads(Upstream(URL("https://h/v1")))
    assert heads.of(request(*other)) is not heads.of(request(HEADERS))


def test_few_heads_are_kept_and_no_large_ones() -> None:
    heads = Letterheads(Upstream(URL("https://h/v1")))
    first = heads.of(request(HEADERS))
    for number in range(300):
        heads.of(request([(b"x-a", b"%d" % number)]))
    assert heads.of(request(HEADERS)) is not first
    large = [(b"x-a", b"a" * 20_000)]
    assert heads.of(request(large)) is not heads.of(request(large))
