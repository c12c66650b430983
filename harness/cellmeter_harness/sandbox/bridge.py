"""Give a command without a network one address that works: ``bridge.py SOCKET PORT -- PROGRAM ARGUMENT…``.

Listens on 127.0.0.1:PORT, forwards every connection to the Unix socket, byte by byte as they come, and becomes
the command. Run as a program of its own, with the standard library only, inside a sandbox whose network is cut.

Invariants: the port is open before the command starts; an end of one side is passed on to the other as what it
was, an orderly end as one and a reset as a reset, so that half an answer never looks whole.
"""

import os
import socket
import struct
import sys
import threading
import time

BUFFER = 65536


def main(arguments: list[str]) -> None:
    """Open the port, leave a forwarder behind, and become the command that the arguments name."""
    path, port, argv = arguments[0], int(arguments[1]), arguments[3:]
    server = socket.create_server(("127.0.0.1", port), backlog=128)
    middle = os.fork()
    if middle == 0:
        # The forwarder is the command's grandchild, given away at once: a command may wait for all of its children.
        if os.fork() == 0:
            forward_all(server, path)
        os._exit(0)
    os.waitpid(middle, 0)
    server.close()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - a shell would be between the signals and the command
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - this is a program
        os._exit(127)


def forward_all(server: socket.socket, path: str) -> None:
    """Forward connections until this process is killed."""
    # What is said here is no output of the command.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    while True:
        try:
            client, _ = server.accept()
        except OSError:  # out of descriptors, or the client has gone already
            time.sleep(0.05)
            continue
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=forward, args=(client, path), daemon=True).start()


def forward(client: socket.socket, path: str) -> None:
    """Forward one connection, both ways, until both directions have ended."""
    upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        upstream.connect(path)
    except OSError:
        reset(client)
        return
    there = threading.Thread(target=pump, args=(client, upstream), daemon=True)
    there.start()
    pump(upstream, client)
    there.join()
    upstream.close()
    client.close()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy one direction to its end."""
    try:
        while chunk := source.recv(BUFFER):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            reset(end)


def reset(connection: socket.socket) -> None:
    """End a connection with a reset where its kind has one (a zero SO_LINGER, socket(7)), and wake its reader."""
    try:
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RD)  # the other half would send an orderly end first
        else:
            connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        connection.close()


if __name__ == "__main__":
    main(sys.argv[1:])
