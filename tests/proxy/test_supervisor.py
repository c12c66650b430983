"""The supervisor without workers; with them: ``tests/end_to_end/test_workers.py``."""

import asyncio
import tempfile
from pathlib import Path

from cellmeter_proxy.accountant import Accountant
from cellmeter_proxy.budget import Ledger
from cellmeter_proxy.coordinator import Coordinator
from cellmeter_proxy.server import ProxyConfig
from cellmeter_proxy.supervisor import Supervisor
from cellmeter_proxy.writer import LogWriter


async def test_a_log_that_cannot_be_looked_at_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    """``stat`` of what stands below a file is refused as no directory, not as absent."""
    (tmp_path / "file").touch()
    writer = await LogWriter.open(tmp_path / "calls.db")
    accountant = await Accountant.start(writer)
    config = ProxyConfig(upstream="http://127.0.0.1:9/v1", log=tmp_path / "file" / "calls.db")
    coordinator = Coordinator(config.log, Ledger(config.budget), accountant)
    with tempfile.TemporaryFile() as turn:
        supervisor = Supervisor(config, [], coordinator, writer, turn=turn)
        await supervisor.start()
        await asyncio.sleep(0)
        await supervisor.stop()
    await accountant.aclose(1)
    await writer.aclose()
