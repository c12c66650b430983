"""Run a command and leave nothing of it behind: ``supervisor.py GRACE_S [LIMIT=VALUE…] -- PROGRAM ARGUMENT…``.

Run as a program of its own, with the standard library only: it is also started inside sandboxes that
hold nothing of cellmeter. A limit is one of setrlimit(2), such as ``NPROC=4096``, and holds for the command.

Invariant: when this process has ended, no process that descends from the command is alive, whatever it
did to get away (own session, double fork, cleared environment): as a child subreaper (prctl(2),
PR_SET_CHILD_SUBREAPER) it is the parent of every orphan below it. Where there is no such thing, the
command's process group is what is ended. The command cannot take this process's descriptors
(PR_SET_DUMPABLE; as long as it is not root) and, where this is the first process of its name space, cannot kill it.

Standard input is the lifeline, a socket. When its other end is closed, or on SIGTERM, the command is asked to
end (SIGTERM), given a grace, and killed. What became of the command is written to it in lines: ``started``, then
``failed SENTENCE`` if it could not be executed after all, or ``exited CODE AT`` once it has ended (128 + N for
signal N; AT is time.monotonic() at its end, before what it left behind was ended).
"""

import contextlib
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PAUSE_S = 0.005


def main(arguments: list[str]) -> int:
    """Supervise the command that the arguments name, and return its exit code."""
    end = arguments.index("--")
    grace_s, limits, argv = float(arguments[0]), arguments[1:end], arguments[end + 1 :]
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_DUMPABLE, 0)
    wakeups = signal_pipe()
    child, failure = start(argv, limits)
    if failure:
        os.waitpid(child, 0)
        report(f"failed {failure}")
        return 127
    code = wait_for(child, wakeups)
    if code is None:
        code = stop(child, grace_s)
    ended_at = time.monotonic()
    end_descendants(child)
    report(f"exited {code} {ended_at}")
    return code


def prctl(option: int, value: int) -> None:
    """Change this process's attribute (prctl(2)), where the system can."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415 - absent from some builds of the interpreter

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def signal_pipe() -> int:
    """A descriptor on which SIGCHLD and the signals that ask this process to end arrive as bytes."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing)
    return reading


def start(argv: list[str], limits: list[str]) -> tuple[int, str]:
    """Start the command in a session of its own; returns its process id and why it could not be executed, if so."""
    reading, writing = os.pipe()  # closed on exec, so that an end without bytes means success
    child = os.fork()
    if child == 0:
        execute(argv, limits, writing)
    os.close(writing)
    failure = b""
    while chunk := os.read(reading, 4096):
        failure += chunk
    os.close(reading)
    return child, failure.decode("utf-8", "replace")


def execute(argv: list[str], limits: list[str], failures: int) -> None:
    """In the child: become the command, or say why not."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        report("started")  # by whoever becomes the command: the parent may be killed before it could
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for name, _, value in (limit.partition("=") for limit in limits):
            lower(getattr(resource, f"RLIMIT_{name}"), int(value))
        os.execvp(argv[0], argv)  # noqa: S606 - a shell would be between the signals and the command
    except OSError as error:
        os.write(failures, f"{argv[0]}: {error.strerror}".encode())
    finally:
        os._exit(127)


def lower(limit: int, value: int) -> None:
    """Put a limit on this process for good; one that is tighter already stays."""
    _, hard = resource.getrlimit(limit)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (bound, bound))


def wait_for(child: int, wakeups: int) -> int | None:
    """The command's exit code, or None when it is to be stopped."""
    while True:
        ready, _, _ = select.select([wakeups, 0], [], [])
        if 0 in ready:
            return None
        numbers = os.read(wakeups, 4096)
        if any(number != signal.SIGCHLD for number in numbers):
            return None
        code = reap(child)
        if code is not None:
            return code


def stop(child: int, grace_s: float) -> int:
    """Ask the command and everything below it to end, and return its exit code when it has, or has been made to."""
    for pid in {child, *descendants()}:
        kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (code := reap(child)) is None:
        if time.monotonic() > deadline:
            kill(child, signal.SIGKILL)
        time.sleep(PAUSE_S)
    return code


def end_descendants(child: int) -> None:
    """Kill until no child is left: the children of a killed one become this process's own.

    By process group where that is not this process's own: a group is killed in one stroke, so that no chain of
    forks within it gets away between being seen and being killed.
    """
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    while True:
        if os.getpid() == 1:
            kill(-1, signal.SIGKILL)
        for pid in descendants():
            with contextlib.suppress(OSError):
                if (group := os.getpgid(pid)) != os.getpgrp():
                    os.killpg(group, signal.SIGKILL)
            kill(pid, signal.SIGKILL)
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(PAUSE_S)


def reap(child: int) -> int | None:
    """Collect whoever has ended; the exit code of the command if it is among them."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return None
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
    return None


def descendants() -> list[int]:
    """The processes below this one, from proc(5); none where there is no such thing."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def kill(pid: int, number: int) -> None:
    """Send a signal; a process that is gone is no error."""
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def report(line: str) -> None:
    """Tell the other end of the lifeline, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(0, f"{line}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
