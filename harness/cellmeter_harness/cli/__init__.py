"""The command line: stdout is data, stderr is talk; exit 0 done, 1 failed, 2 usage, 130 interrupted.

Every command is a module of its own. An error meant for a person is one sentence and, where there
is one, a hint; a traceback means a bug of ours.
"""

import click

from cellmeter_harness.cli.agents import agents
from cellmeter_harness.cli.audit import audit
from cellmeter_harness.cli.demo import demo
from cellmeter_harness.cli.doctor import doctor
from cellmeter_harness.cli.export import export
from cellmeter_harness.cli.merge import merge
from cellmeter_harness.cli.proxy import proxy
from cellmeter_harness.cli.record import record
from cellmeter_harness.cli.run import run
from cellmeter_harness.cli.score import score
from cellmeter_harness.cli.tasks import tasks
from cellmeter_harness.cli.verify import verify
from cellmeter_proxy.errors import CellmeterError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cellmeter")
def cellmeter() -> None:
    """Record every model call of a coding agent, run agents through the recorder, score the log offline."""


for command in (demo, proxy, record, run, audit, score, verify, merge, export, doctor, tasks, agents):
    cellmeter.add_command(command)


def invoke(arguments: list[str]) -> int:
    """Run the command line and return its exit code.

    Raises:
        KeyboardInterrupt: it was interrupted.

    """
    try:
        result = cellmeter.main(arguments, prog_name="cellmeter", standalone_mode=False)
    except CellmeterError as error:
        _say(error.message, error.hint)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return result if isinstance(result, int) else 0


def _say(message: str, hint: str | None) -> None:
    click.echo(f"error: {message}", err=True)
    if hint is not None:
        click.echo(f"\nhint: {hint}", err=True)
