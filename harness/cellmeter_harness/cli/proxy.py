"""``cellmeter proxy``: record whatever is pointed at it."""

import asyncio
import logging
from pathlib import Path
from typing import Final

import click
import msgspec

from cellmeter_harness.cli.aio import run_async
from cellmeter_harness.cli.output import prices_option
from cellmeter_proxy.absorb import On429
from cellmeter_proxy.budget import Budget
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.logfile import Durability
from cellmeter_proxy.loop import collect_rarely
from cellmeter_proxy.server import ProxyConfig, serve
from cellmeter_proxy.supervisor import supervise

_BUDGET_KEYS: Final = {"calls": "calls", "tokens": "tokens", "cost": "cost_usd", "seconds": "seconds"}


@click.command()
@click.option(
    "--upstream", required=True, metavar="URL", help="The provider's base URL, e.g. https://api.openai.com/v1."
)
@click.option(
    "--log", type=click.Path(path_type=Path), default="cellmeter.db", show_default=True, help="The file to record into."
)
@click.option(
    "--listen", default="127.0.0.1:4000", show_default=True, metavar="HOST:PORT", help="Port 0 takes a free one."
)
@click.option(
    "--durability",
    type=click.Choice(["full", "process"]),
    default="full",
    show_default=True,
    help="What a recorded call survives: the loss of power, or the death of the process.",
)
@click.option(
    "--ask-usage/--no-ask-usage",
    default=True,
    show_default=True,
    help="Ask for usage in streams of chat completions whose client does not, and take the extra chunk out again.",
)
@click.option(
    "--budget",
    metavar="KEY=N[,…]",
    help="What each session may spend of calls, tokens, cost (US dollars) and seconds, e.g. calls=100,cost=5.",
)
@click.option(
    "--refuse-provider-tools",
    is_flag=True,
    help="Refuse what asks the provider itself to search, to run code, or to fetch a URL.",
)
@click.option(
    "--on-429",
    "on_429",
    type=click.Choice(["observe", "absorb", "pace"]),
    default="observe",
    show_default=True,
    help="What becomes of a provider's 429s and failures: passed on, waited out for at most ten minutes a call, or "
    "also avoided by holding calls back.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many processes share the port and the log.",
)
@click.option(
    "--shutdown",
    "shutdown_s",
    type=click.FloatRange(min=0),
    default=ProxyConfig.shutdown_s,
    show_default=True,
    metavar="SECONDS",
    help="How long calls in flight may take to end once the proxy is told to stop; what is left is interrupted.",
)
@prices_option
def proxy(
    upstream: str,
    log: Path,
    listen: str,
    durability: Durability,
    budget: str | None,
    *,
    prices: Path | None,
    on_429: On429,
    ask_usage: bool,
    refuse_provider_tools: bool,
    workers: int,
    shutdown_s: float,
) -> None:
    """Record every model call of whatever is pointed at this proxy."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    host, port = parse_listen(listen)
    config = ProxyConfig(
        upstream=upstream,
        log=log,
        host=host,
        port=port,
        durability=durability,
        ask_usage=ask_usage,
        on_429=on_429,
        shutdown_s=shutdown_s,
        prices=prices,
        budget=None if budget is None else parse_budget(budget),
        granted_tools=frozenset() if refuse_provider_tools else None,
    )
    run_async(_serve(config) if workers == 1 else _serve_by(workers, config))


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``.

    Raises:
        CellmeterError: it is not of that form.

    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise CellmeterError(
            f"--listen {text!r} is not HOST:PORT", hint="for example --listen 127.0.0.1:4000", exit_code=2
        )
    return host.strip("[]"), int(port)


def parse_budget(text: str) -> Budget:
    """The budget of ``calls=N,tokens=N,cost=USD,seconds=S``, any of them.

    Raises:
        CellmeterError: it is not of that form.

    """
    given = [item.partition("=") for item in text.split(",")]
    values = {_BUDGET_KEYS.get(name.strip(), ""): value.strip() for name, _, value in given}
    try:
        if len(values) < len(given):
            raise ValueError
        budget = msgspec.convert(values, Budget, strict=False)
        if any(getattr(budget, name) is None for name in values):
            raise ValueError
    except ValueError:
        raise CellmeterError(
            f"--budget {text!r} is not made of calls=N, tokens=N, cost=USD and seconds=S, each once",
            hint="for example --budget calls=100,tokens=1000000,cost=5",
            exit_code=2,
        ) from None
    return budget


async def _serve(config: ProxyConfig) -> None:
    async with serve(config) as running:
        collect_rarely()
        _announce(running.url, running.writer.interrupted, config)
        await asyncio.Event().wait()


async def _serve_by(workers: int, config: ProxyConfig) -> None:
    async with supervise(config, workers) as running:
        _announce(running.url, running.interrupted, config)
        await running.failed


def _announce(url: str, interrupted: int, config: ProxyConfig) -> None:
    click.echo(f"listening on {url}/v1")
    if interrupted:
        click.echo(f"{interrupted} calls of a recorder that died are marked as interrupted", err=True)
    click.echo(paste_lines(url, config), err=True)


def paste_lines(url: str, config: ProxyConfig) -> str:
    """What to paste to point common agents at the proxy, and how to look at the result."""
    return f"""\
recording to {config.log}; Ctrl-C stops

  OpenAI clients   export OPENAI_BASE_URL={url}/v1 OPENAI_API_BASE={url}/v1
  aider            aider --openai-api-base {url}/v1 --model openai/MODEL
  Claude Code      export ANTHROPIC_BASE_URL={url}
  name a session   {url}/s/NAME/v1
  Prometheus       {url}/_cellmeter/metrics
  look at it       cellmeter audit {config.log}
"""
