"""``cellmeter record``: run a command with its model calls recorded, then print the audit, as time(1) does for time."""

import asyncio
import contextlib
import logging
import logging.handlers
import os
import re
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import click

from cellmeter_harness.child import Child
from cellmeter_harness.cli.aio import run_async
from cellmeter_harness.cli.audit import show_audit
from cellmeter_harness.cli.output import prices_option, stderr_console
from cellmeter_harness.launch import Route, http_proxy, redirected, routes
from cellmeter_proxy.attribution import split_session
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log
from cellmeter_proxy.record import Call, new_id
from cellmeter_proxy.server import ProxyConfig, serve
from cellmeter_proxy.writer import LogWriter
from cellmeter_scoring import Audit, audit

_HELD_LINES: Final = 10_000
_SILENCE_S: Final = 1.0
_WAITING: Final = f"waiting up to {ProxyConfig.shutdown_s:g} s for answers that are still on their way"


class _Recorded(NamedTuple):
    """One run: where its calls are, how the command ended, and what it called."""

    session: str
    exit_code: int
    audit: Audit | None
    error: CellmeterError | None


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] CMD…")
@click.option(
    "--log", type=click.Path(path_type=Path), default="cellmeter.db", show_default=True, help="The file to record into."
)
@click.option(
    "--upstream",
    metavar="URL",
    help="Send every call to this provider, with the keys that CMD sends. By default each goes where the environment"
    " says (OPENAI_BASE_URL, ANTHROPIC_BASE_URL and their like), or else to OpenAI and Anthropic themselves.",
)
@click.option("--session", metavar="NAME", help="What to call the run in the log; by default CMD's name and the time.")
@prices_option
def record(command: tuple[str, ...], log: Path, upstream: str | None, session: str | None, prices: Path | None) -> int:
    """Run CMD with its model calls recorded, then print their audit to stderr.

    CMD keeps its terminal, its keys and its exit code. It is pointed at the recorder by the variables that common
    agents and SDKs read; an agent that takes its provider's address from a file of its own is not recorded by this.
    """
    ways = routes(os.environ, upstream)
    name = _checked(session) if session is not None else session_name(command[0])
    child = Child(command)
    with _talk_held_back():
        recorded = run_async(_record(child, log, ways, name, prices), child.deliver)
    _show(recorded, log, ways)
    return recorded.exit_code


def session_name(program: str) -> str:
    """A session's name for one run of a program: its name, the time (UTC), and four digits against coincidence."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(program).name)[:64].strip("-") or "run"
    return f"{base}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{new_id()[-4:]}"


async def _record(child: Child, log: Path, ways: list[Route], name: str, prices: Path | None) -> _Recorded:
    """Run the command with a proxy for each provider, and audit what it called once they have ended."""
    writer = await LogWriter.open(log)
    try:
        session = await writer.read(lambda written: _unused(written, name))
        async with AsyncExitStack() as stack:
            proxies: dict[str, str] = {}
            for upstream in {way.upstream: None for way in ways}:
                way_out = http_proxy(os.environ, upstream)
                config = ProxyConfig(upstream=upstream, log=log, http_proxy=way_out, prices=prices)
                proxies[upstream] = (await stack.enter_async_context(serve(config, writer))).url
            code = await child.run(redirected(os.environ, ways, proxies, session))
            waiting = asyncio.get_running_loop().call_later(_SILENCE_S, stderr_console().print, _WAITING)
        waiting.cancel()
        return _Recorded(session, code, *await _audited(writer, session))
    finally:
        await writer.aclose()


async def _audited(writer: LogWriter, session: str) -> tuple[Audit | None, CellmeterError | None]:
    """The audit of a session, None where it has no call; or why there is none. The command's exit code outlives it."""
    try:
        return await writer.read(lambda log: audit(log, session=session) if _has_calls(log, session) else None), None
    except CellmeterError as error:
        return None, error


def _has_calls(log: Log, session: str) -> bool:
    return next(log.rows(Call, "session = ?", (session,)), None) is not None


def _unused(log: Log, name: str) -> str:
    """The name, with a number where the log holds a session of that name already: one run is one session."""
    session, number = name, 1
    while _has_calls(log, session):
        number += 1
        session = f"{name}@{number}"
    return session


def _checked(session: str) -> str:
    if split_session(f"/s/{session}/")[0] != session:
        raise CellmeterError(
            f"--session {session!r} is not a name for a session",
            hint="use up to 128 letters, digits and . _ ~ @ : + -",
            exit_code=2,
        )
    return session


@contextmanager
def _talk_held_back() -> Iterator[None]:
    """Keep the log's own messages off the terminal until the command no longer uses it."""
    shown = logging.StreamHandler()
    held = logging.handlers.MemoryHandler(_HELD_LINES, flushLevel=logging.CRITICAL + 1, target=shown)
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING, handlers=[held])
    shown.setFormatter(held.formatter)
    try:
        yield
    finally:
        held.flush()


def _show(recorded: _Recorded, log: Path, ways: list[Route]) -> None:
    talk = stderr_console()
    if recorded.error is not None:
        talk.print(f"error: there is no audit: {recorded.error.message}")
    elif recorded.audit is None:
        talk.print(_nothing_recorded(ways))
    else:
        # The command's stdout stays its own, so what the audit writes there goes to stderr.
        with contextlib.redirect_stdout(sys.stderr):
            show_audit(recorded.audit)
        talk.print(f"recorded in {log}; again: cellmeter audit {log} --session {recorded.session}")


def _nothing_recorded(ways: list[Route]) -> str:
    variables = ", ".join(way.variable for way in ways)
    return (
        f"no model call was recorded; these variables led to the recorder: {variables}\n\n"
        "hint: where the command takes its provider's address from elsewhere, start `cellmeter proxy` and give it that"
    )
