"""The sockets that workers are given: one port, connections dealt out, and nobody else on it."""

import socket

import pytest

from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.listening import bind, close


async def test_every_worker_has_a_socket_on_the_same_port_and_connections_are_dealt_out() -> None:
    shares = await bind("127.0.0.1", 0, 3)
    (address,) = {sock.getsockname() for share in shares for sock in share}
    clients = [socket.create_connection(address) for _ in range(120)]
    accepted = []
    for (sock,) in shares:
        sock.setblocking(False)
        count = 0
        try:
            while True:
                sock.accept()[0].close()
                count += 1
        except BlockingIOError:
            accepted.append(count)
    for client in clients:
        client.close()
    close(shares)
    assert sum(accepted) == 120
    assert all(count > 10 for count in accepted)


async def test_a_port_that_workers_have_is_taken_and_free_once_they_have_ended() -> None:
    shares = await bind("127.0.0.1", 0, 2)
    _, port = shares[0][0].getsockname()
    for count in (1, 2):
        with pytest.raises(CellmeterError, match=f":{port} is in use by another program"):
            await bind("127.0.0.1", port, count)
    close(shares)
    close(await bind("127.0.0.1", port, 2))


async def test_a_port_that_another_program_has_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CellmeterError, match="is in use"):
        await bind("127.0.0.1", taken.getsockname()[1], 2)


async def test_a_name_stands_for_all_of_its_addresses() -> None:
    shares = await bind("localhost", 0, 2)
    families = [[sock.family for sock in share] for share in shares]
    close(shares)
    assert families[0] == families[1]
    assert socket.AF_INET in families[0]


async def test_an_address_that_is_not_this_machine_s_is_a_sentence() -> None:
    with pytest.raises(CellmeterError, match=r"cannot listen on 192\.0\.2\.1:0"):
        await bind("192.0.2.1", 0, 2)
