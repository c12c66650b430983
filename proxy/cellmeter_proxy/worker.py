"""One of the processes of a proxy: ``python -m cellmeter_proxy.worker LINK TURN SOCKET…``, started by ``supervisor``.

It is given file descriptors, of the link to its supervisor, of the file by whose lock the workers take turns to
commit, and of the sockets that it listens on; and on stdin its configuration. It serves until it is told to stop, or
the link is lost: it does not outlive its supervisor.
"""

import asyncio
import logging
import signal
import socket
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.link import Link
from cellmeter_proxy.loop import collect_rarely, loop_factory
from cellmeter_proxy.messages import Ready
from cellmeter_proxy.metrics import Metrics
from cellmeter_proxy.server import ProxyConfig, serve
from cellmeter_proxy.shared import Shared
from cellmeter_proxy.turn import Turn
from cellmeter_proxy.writer import LogWriter


def main() -> None:
    """Run a worker to its end."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    link, turn, *sockets = map(int, sys.argv[1:])
    config = decode_config(sys.stdin.buffer.read())
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(_work(config, link, turn, [socket.socket(fileno=number) for number in sockets]))
        except CellmeterError as error:
            sys.exit(f"cellmeter: a worker cannot serve: {error.message}")


async def _work(config: ProxyConfig, link_number: int, turn_number: int, sockets: list[socket.socket]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    link = await Link.open(socket.socket(fileno=link_number))
    metrics = Metrics(version("cellmeter"))
    shared = Shared(link, sockets, metrics, budgeted=config.budget is not None, stop=stopping.set)
    hearing = asyncio.create_task(shared.run())
    turn = open(turn_number, "r+b", buffering=0)  # noqa: ASYNC230, SIM115 - no file of a disk's, and open to the end
    writer = await LogWriter.open(config.log, config.durability, Turn(turn))
    try:
        async with serve(config, writer, shared.commons):
            collect_rarely()
            link.tell(Ready())
            await stopping.wait()
        if not link.lost:
            await shared.give_back(config.shutdown_s)
    finally:
        await writer.aclose()
        await link.aclose()
        await hearing


def encode_config(config: ProxyConfig) -> bytes:
    """A configuration for a worker's stdin."""
    return msgspec.json.encode(config, enc_hook=str)


def decode_config(data: bytes) -> ProxyConfig:
    """A worker's configuration."""
    return msgspec.json.decode(data, type=ProxyConfig, dec_hook=_path)


def _path(type_: type[Any], value: Any) -> Any:
    return type_(value) if issubclass(type_, Path) else value


if __name__ == "__main__":
    main()
