"""What headers say of waiting and of limits."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.ratelimit import Limit, duration_ms, rate_limits, read_limits, retry_after_ms

NOW = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after-ms": "120"}, 120.0),
        ({"Retry-After-Ms": "120.5", "Retry-After": "9"}, 120.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9000.0),
        ({"X-MS-Retry-After-Ms": "7"}, 7.0),
        ({"Retry-After": " 2 "}, 2000.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1500.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:05 GMT"}, 5000.0),
        ({"retry-after": "Thu, 01 Jan 2026 01:00:05 +0100"}, 5000.0),
        ({"retry-after": "Wed, 31 Dec 2025 23:59:00 GMT"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "١"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_in_every_form(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_ms(headers, NOW) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", 1000.0),
        ("6m0s", 360_000.0),
        ("20ms", 20.0),
        ("1h2m3.5s", 3_723_500.0),
        ("8.64s", 8640.0),
        ("2d", 172_800_000.0),
        ("7", 7000.0),
        ("", None),
        ("s", None),
        ("1s later", None),
        ("1x", None),
        ("-1s", None),
    ],
)
def test_durations_are_milliseconds(text: str, expected: float | None) -> None:
    assert duration_ms(text) == expected


def test_limits_of_openai_and_azure_are_read() -> None:
    headers = {
        "X-RateLimit-Limit-Requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
        "content-type": "application/json",
    }
    assert read_limits(headers, NOW) == {
        "requests": Limit(limit=60, remaining=59, reset_ms=1000.0),
        "tokens": Limit(remaining=149984, reset_ms=360_000.0),
    }


def test_limits_of_anthropic_are_read() -> None:
    headers = {
        "anthropic-ratelimit-input-tokens-limit": "400000",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:10Z",
        "anthropic-ratelimit-requests-reset": "never",
    }
    assert read_limits(headers, NOW) == {
        "input-tokens": Limit(limit=400_000, remaining=0, reset_ms=10_000.0),
        "requests": Limit(),
    }


def test_the_headers_are_kept_verbatim() -> None:
    headers = {"X-RateLimit-Remaining-Tokens": "9 ", "Retry-After": "2", "ratelimit-policy": "10;w=60", "Date": "x"}
    assert json.loads(rate_limits(headers) or "") == {
        "x-ratelimit-remaining-tokens": "9",
        "retry-after": "2",
        "ratelimit-policy": "10;w=60",
    }
    assert rate_limits({"date": "x"}) is None


@given(
    st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-limit"]),
    st.text() | st.text(alphabet="0123456789.:-TZ+, GMThs"),
)
def test_no_value_makes_it_raise(name: str, value: str) -> None:
    wait = retry_after_ms({name: value}, NOW)
    assert wait is None or wait >= 0
    read_limits({name: value}, NOW)
    rate_limits({name: value})
