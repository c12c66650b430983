"""No isolation: a command runs as the user, in a directory of its own, with an environment of its own.

It sees the machine and its network. What is promised is a clean start and that nothing of it is left running.
The row of a cell that ran here says so.
"""

import secrets
from pathlib import Path

from cellmeter_harness.sandbox.base import Command, Gate, Room, View
from cellmeter_harness.sandbox.environment import environment
from cellmeter_harness.sandbox.supervised import Launch, SupervisedExecution, interpreter, supervised
from cellmeter_proxy.record import Isolation


class ProcessSandbox:
    """Runs commands as they are."""

    isolation: Isolation = "process"

    def view(self, room: Room, gate: Gate | None) -> View:
        """The room's own paths and the proxy's own URL."""
        return View(
            workspace=str(room.workspace),
            home=str(room.home),
            tmp=str(room.tmp),
            cache=str(room.cache),
            agent_dir=str(room.agent or ""),
            python=str(interpreter()),
            api_root=gate.url if gate else "",
        )

    def execute(self, room: Room, command: Command, gate: Gate | None) -> SupervisedExecution:
        """An execution in the room's workspace."""
        supervisor = Path(__file__).with_name("supervisor.py")
        return SupervisedExecution(
            Launch(
                argv=supervised(command.argv, str(interpreter()), str(supervisor)),
                env=environment(self.view(room, gate), command.env),
                cwd=room.workspace,
                timeout_s=command.timeout_s,
                marker=secrets.token_hex(16),
            )
        )
