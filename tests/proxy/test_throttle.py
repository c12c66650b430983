"""What a provider's refusals say, whichever mode the proxy is in."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

from cellmeter_proxy.absorb import On429, Patience
from cellmeter_proxy.record import Attempt
from cellmeter_proxy.scripted import Fault, Script, ScriptedProvider, Turn
from cellmeter_proxy.server import Running
from cellmeter_proxy.throttle import Throttle

Recorder = Callable[..., AbstractAsyncContextManager[Running]]


def attempt(status: int | None, retry_after_ms: float | None = None) -> Attempt:
    return Attempt(call_id="c", n=1, started_at=1, status=status, retry_after_ms=retry_after_ms)


def test_refusals_are_counted_and_the_latest_moment_that_any_of_them_names_is_kept() -> None:
    throttle = Throttle(clock=lambda: 100.0)
    for other in (200, 401, 500, None):
        throttle.note(attempt(other, 9000))
    assert (throttle.refusals, throttle.status, throttle.until) == (0, None, 0.0)
    throttle.note(attempt(429, 5000))
    throttle.note(attempt(529, 2000))
    throttle.note(attempt(503))
    assert (throttle.refusals, throttle.status, throttle.until) == (3, 503, 105.0)


@pytest.mark.parametrize("mode", ["observe", "absorb", "pace"])
async def test_a_running_proxy_tells_of_refusals_though_no_client_sees_them(recorder: Recorder, mode: On429) -> None:
    fault = Fault(status=429, headers={"retry-after-ms": "50"}, times=2)
    provider = ScriptedProvider([Script(name="any", turns=[Turn(content="hello", fault=fault)])])
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    patience = Patience(first_s=0.01)
    async with (
        provider,
        recorder(provider.url, on_429=mode, patience=patience) as proxy,
        aiohttp.ClientSession() as http,
    ):
        before = proxy.throttle.clock()
        async with http.post(proxy.url + "/v1/chat/completions", data=body) as answer:
            status = answer.status
    assert (status, proxy.throttle.refusals) == ((429, 1) if mode == "observe" else (200, 2))
    assert proxy.throttle.until >= before + 0.05
