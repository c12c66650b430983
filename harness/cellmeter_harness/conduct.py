"""A sweep with everything around it: the provider, the recording proxy, the sandbox, the scoring library's judgement.

Wiring only; what happens in between is ``runner.run_sweep``.
"""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from cellmeter_harness.events import Event, SweepFinished
from cellmeter_harness.lock import sweep_lock
from cellmeter_harness.paths import remove_dead_scratch, scratch_prefix
from cellmeter_harness.plan import outlook
from cellmeter_harness.recorder import ProxyRecorder, admitted_calls_of, cells_of
from cellmeter_harness.runner import Judge, run_sweep
from cellmeter_harness.sandbox import choose
from cellmeter_harness.scripts import ScriptedTask, provider_scripts
from cellmeter_harness.sweep import SweepSpec, plan_cells
from cellmeter_harness.task import Task
from cellmeter_harness.uninterrupted import in_thread
from cellmeter_proxy.budget import is_metered
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import Log
from cellmeter_proxy.logfile import Durability
from cellmeter_proxy.scripted import RateLimit, ScriptedProvider
from cellmeter_proxy.server import ProxyConfig, Running, serve
from cellmeter_scoring import INFRASTRUCTURE, classify
from cellmeter_scoring.calls import is_denied, tokens_of


class Provider(NamedTuple):
    """Who answers, and the key that only the proxy knows."""

    url: str
    key: str | None


async def conduct(
    spec: SweepSpec, on_event: Callable[[Event], None], *, durability: Durability = "full"
) -> SweepFinished:
    """Run what is left of a sweep.

    Raises:
        CellmeterError: the provider's key is not set though it will be needed, or anything that ``run_sweep`` or
            ``serve`` raise it for.

    """
    async with AsyncExitStack() as stack:
        provider = await _provider(spec, stack)
        return await conduct_with(provider, spec, on_event, durability=durability)


async def conduct_with(
    provider: Provider, spec: SweepSpec, on_event: Callable[[Event], None], *, durability: Durability = "full"
) -> SweepFinished:
    """Run what is left of a sweep with a provider of the caller's, whatever the sweep itself says of one.

    Raises:
        CellmeterError: the sweep is being run already, or anything that ``run_sweep`` or ``serve`` raise it for.

    """
    sandbox = choose(spec.isolation)
    async with AsyncExitStack() as stack:
        stack.enter_context(sweep_lock(spec.log, spec.name))
        await in_thread(remove_dead_scratch)
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=scratch_prefix(os.getpid())))
        config = ProxyConfig(
            upstream=provider.url,
            upstream_key=provider.key,
            log=spec.log,
            durability=durability,
            cells_only=True,
            socket_path=Path(directory) / "proxy.sock",
            on_429=spec.upstream.on_429,
            patience=spec.upstream.patience,
            prices=spec.prices,
            budget=spec.limits.sweep.budget(),
            granted_tools=frozenset(spec.grants.tools),
        )
        running = await stack.enter_async_context(serve(config))
        if config.budget is not None:
            await _carry(running, spec.name)
        return await run_sweep(
            spec,
            ProxyRecorder(running),
            sandbox=sandbox,
            judge=Judge(classify=classify, infrastructure=INFRASTRUCTURE, is_denied=is_denied),
            on_event=on_event,
        )


async def _carry(running: Running, sweep_id: str) -> None:
    """Charge the sweep's budget with what its earlier runs spent."""
    calls = [call for call in await running.writer.read(admitted_calls_of(sweep_id)) if is_metered(call)]
    tokens = [count for call in calls for count in msgspec.structs.astuple(tokens_of(call)) if count is not None]
    running.ledger.carry(calls=len(calls), tokens=sum(tokens), cost_usd=sum(call.cost or 0 for call in calls))


def scripted_provider(tasks: Iterable[Task], key: str, *, limit: RateLimit | None = None) -> ScriptedProvider:
    """A provider that solves the tasks for any of the agents, to be entered; its ledger says what it billed."""
    scripted = [
        ScriptedTask(task_id=task.id, description=task.description, workdir=task.workdir, solution=task.solution)
        for task in tasks
    ]
    return ScriptedProvider(provider_scripts(scripted), key=key, limit=limit)


async def _provider(spec: SweepSpec, stack: AsyncExitStack) -> Provider:
    if spec.upstream.scripted:
        # A key of its own, so that a sweep without a real provider still shows that no agent ever sees one.
        key = f"sk-scripted-{secrets.token_hex(16)}"
        scripted = await stack.enter_async_context(scripted_provider(spec.tasks, key))
        return Provider(scripted.url, key)
    if spec.upstream.url is None:
        raise CellmeterError("the sweep names no provider", hint="give [upstream] a url, or scripted = true")
    variable = spec.upstream.key_env
    if variable is None:
        return Provider(spec.upstream.url, None)
    key_value = os.environ.get(variable)
    if not key_value and not _is_finished(spec):
        raise CellmeterError(
            f"the variable {variable}, which is to hold the provider's key, is not set",
            hint=f"export {variable}=… before the run",
        )
    return Provider(spec.upstream.url, key_value or None)


def _is_finished(spec: SweepSpec) -> bool:
    """Whether the log holds every cell of the sweep, so that no call will be made."""
    if not spec.log.exists():
        return False
    with Log.read(spec.log) as log:
        rows = cells_of(spec.name)(log)
    return not outlook(plan_cells(spec), rows, spec.retry.infrastructure, INFRASTRUCTURE).pending
