"""One port for several processes: a listening socket for each of them, bound by the one that starts them.

With SO_REUSEPORT of socket(7) Linux deals connections out by their addresses. Whoever binds keeps the sockets open, so
that what waits in the queue of a process that dies is accepted by the one that takes its place.

Invariant: a port on which anybody listens is not free, be it with the same option.
"""

import asyncio
import errno
import socket
from collections.abc import Sequence
from typing import Any, Final

from cellmeter_proxy.server import cannot_listen

_BACKLOG: Final = 1024


async def bind(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """Sockets that listen on an address, for each of so many workers: one for every address that the host has.

    Raises:
        CellmeterError: the address cannot be had, or is not free.

    """
    groups: list[list[socket.socket]] = []
    absent: OSError | None = None
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                groups.append(_bound(family, address, count))
            except OSError as error:
                # A name may stand for an address of a protocol that this machine has switched off.
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                absent = error
        if not groups:
            raise absent or OSError(errno.EADDRNOTAVAIL, "the name has no address")
    except OSError as error:
        close(groups)
        raise cannot_listen(error, host, port) from None
    return [list(share) for share in zip(*groups, strict=True)]


def _bound(family: int, address: Any, count: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for number in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # The first one is bound without it, so that a port on which another proxy has its workers is not free.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(number > 0))
            sock.bind(sockets[0].getsockname() if number else address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for sock in sockets:
            sock.listen(_BACKLOG)
    except OSError:
        close([sockets])
        raise
    return sockets


def close(groups: Sequence[Sequence[socket.socket]]) -> None:
    """Give them up."""
    for sock in (sock for group in groups for sock in group):
        sock.close()
