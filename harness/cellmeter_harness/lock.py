"""One run of a sweep at a time: two would run the same cells, and each would take the other's for abandoned."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellmeter_proxy.errors import CellmeterError


@contextmanager
def sweep_lock(log: Path, sweep_id: str) -> Iterator[None]:
    """Hold the right to run a sweep on a log. It ends with the process, however that ends.

    Raises:
        CellmeterError: another process holds it.

    """
    path = log.with_name(f"{log.name}.{sweep_id}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except BlockingIOError:
        raise CellmeterError(f"the sweep {sweep_id} is being run on {log} already", hint="wait for it to end") from None
    except OSError as error:
        raise CellmeterError(f"the sweep {sweep_id} cannot be run on {log}: {error}") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor of the file at a path, locked (flock(2)) while it still is the file at that path."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
