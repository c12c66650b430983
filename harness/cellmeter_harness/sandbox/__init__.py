"""Sandboxes: where a command runs, what it sees, and the promise that nothing of it is left running."""

from cellmeter_harness.sandbox.base import Command, Execution, Gate, Room, Sandbox, View
from cellmeter_harness.sandbox.choose import choose

__all__ = ["Command", "Execution", "Gate", "Room", "Sandbox", "View", "choose"]
