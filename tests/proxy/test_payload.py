"""A body is written to a connection that is there, and to no other."""

import asyncio
import socket

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import StreamWriter

from cellmeter_proxy.payload import PeerHungUpError, WholeBody


async def connected() -> tuple[StreamWriter, socket.socket]:
    """A writer to one end of a connection, and the other end."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, protocol = await loop.create_connection(lambda: BaseProtocol(loop), *listener.getsockname())
        peer, _ = listener.accept()
    return StreamWriter(protocol, loop), peer


async def test_the_body_is_written_as_it_is() -> None:
    writer, peer = await connected()
    body = WholeBody(b"\x00abc")
    await body.write(writer)
    assert body.begun
    assert peer.recv(10) == b"\x00abc"
    peer.close()
    assert writer.transport is not None
    writer.transport.close()


async def test_an_end_that_has_arrived_is_seen_before_the_event_loop_sees_it() -> None:
    writer, peer = await connected()
    peer.close()
    body = WholeBody(b"abc")
    with pytest.raises(PeerHungUpError):
        await body.write(writer)
    assert not body.begun
    assert writer.transport is not None
    writer.transport.close()


async def test_a_connection_that_is_gone_takes_nothing() -> None:
    writer, peer = await connected()
    peer.close()
    while writer.transport is not None:
        await asyncio.sleep(0)
    body = WholeBody(b"abc")
    with pytest.raises(PeerHungUpError):
        await body.write(writer)
    assert not body.begun
