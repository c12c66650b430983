"""Which kind of isolation a run gets on this machine."""

from typing import Literal

from cellmeter_harness.sandbox.base import Sandbox
from cellmeter_harness.sandbox.bubblewrap import BubblewrapSandbox, problem
from cellmeter_harness.sandbox.process import ProcessSandbox
from cellmeter_proxy.errors import CellmeterError


def choose(isolation: Literal["auto", "bubblewrap", "process"]) -> Sandbox:
    """The sandbox of a kind, or the strongest that works here for "auto".

    Raises:
        CellmeterError: the kind that was asked for does not work on this machine.

    """
    if isolation == "process":
        return ProcessSandbox()
    trouble = problem()
    if trouble is None:
        return BubblewrapSandbox()
    if isolation == "auto":
        return ProcessSandbox()
    raise CellmeterError(
        f"bubblewrap does not work here: {trouble}",
        hint='install it (on Debian: apt-get install bubblewrap), or say isolation = "process" in the sweep',
    )
