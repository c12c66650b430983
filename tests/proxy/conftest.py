"""What every test of the running proxy uses: a log, and a proxy that records into it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cellmeter_proxy.server import ProxyConfig, Running, serve
from cellmeter_proxy.testing import LiteralProvider


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


@pytest.fixture
def recorder(log_path: Path) -> Callable[..., AbstractAsyncContextManager[Running]]:
    """A function that runs a proxy in front of a provider, or of an address."""

    @asynccontextmanager
    async def run(provider: LiteralProvider | str, **options: Any) -> AsyncIterator[Running]:
        upstream = provider if isinstance(provider, str) else provider.url
        async with serve(ProxyConfig(upstream=upstream, log=log_path, **options)) as running:
            yield running

    return run
