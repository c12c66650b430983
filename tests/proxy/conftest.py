"""What every test of the running proxy uses: a log, and a proxy that records into it."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

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


_KILLED: Final = """
import os, signal, sys
from cellmeter_proxy import logfile

left, since, begun = int(sys.argv.pop(1)), sys.argv.pop(1), False

def count_down(statement):
    global left, begun
    begun = begun or since in statement
    counted = ("ALTER", "CREATE", "INSERT", "UPDATE", "COMMIT", "PRAGMA wal_checkpoint")
    left -= begun and statement.startswith(counted)
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

connect = logfile._connect

def watched(path, mode):
    conn = connect(path, mode)
    conn.set_trace_callback(count_down)
    return conn

logfile._connect = watched
"""


@pytest.fixture
def killed_after() -> Callable[..., int]:
    """A function that runs a program and kills it (SIGKILL) before one of the statements that change a log.

    It takes how many of them to let pass, the program, and its arguments, and gives the exit code. The count begins at
    a statement that contains ``since``.
    """

    def run(statements: int, program: str, *arguments: object, since: str = "") -> int:
        command = [sys.executable, "-c", _KILLED + program, str(statements), since, *map(str, arguments)]
        return subprocess.run(command, timeout=30, check=False).returncode

    return run
