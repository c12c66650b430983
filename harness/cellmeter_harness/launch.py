"""The environment in which a command's model calls go through recording proxies.

Pure. Invariant: every variable that names a provider keeps its provider and every key stays where it is; only the way
there changes. A provider that the environment does not name is the one that the command would have used anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from cellmeter_harness.sandbox.environment import LOOPBACK
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.server import parse_upstream

Style = Literal["openai", "anthropic"]
"""What clients append to a base URL: ``/chat/completions``, or ``/v1/messages``."""


@dataclass(frozen=True)
class _Provider:
    """Variables that name one provider's base URL, the first that is set before the others."""

    variables: tuple[str, ...]
    default: str | None = None
    """The provider where none is set; None leaves the variables unset then."""
    key: str | None = None
    """The default holds only where this variable holds a key."""
    style: Style = "openai"


# The last four defaults are LiteLLM's (https://docs.litellm.ai/docs/providers), which aider and mini-swe-agent use.
_PROVIDERS: Final = (
    _Provider(("OPENAI_BASE_URL", "OPENAI_API_BASE"), "https://api.openai.com/v1"),
    _Provider(("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE"), "https://api.anthropic.com", style="anthropic"),
    _Provider(("OPENROUTER_API_BASE",), "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    _Provider(("DEEPSEEK_API_BASE",), "https://api.deepseek.com/beta", "DEEPSEEK_API_KEY"),
    _Provider(("GROQ_API_BASE",), "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    _Provider(("MISTRAL_API_BASE",), "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
)
_OTHERS: Final = (
    "AIDER_OPENAI_API_BASE",
    "AZURE_API_BASE",
    "AZURE_OPENAI_ENDPOINT",
    "COPILOT_PROVIDER_BASE_URL",
    "HOSTED_VLLM_API_BASE",
    "LITELLM_PROXY_API_BASE",
    "LLM_BASE_URL",
    "LM_STUDIO_API_BASE",
    "MOONSHOT_API_BASE",
    "OLLAMA_API_BASE",
    "OPENAI_LIKE_API_BASE",
    "XAI_API_BASE",
    "ZAI_API_BASE",
)
"""Variables that change what their agent does when they are set, so that they are redirected only where they are."""


@dataclass(frozen=True)
class Route:
    """One variable, the provider it leads to, and what stands between the session's prefix and a client's path."""

    variable: str
    upstream: str
    suffix: str


def routes(environ: Mapping[str, str], upstream: str | None = None) -> list[Route]:
    """Where each variable is to lead.

    Args:
        environ: the environment in which the command would have run.
        upstream: a provider for all of them, in place of those that the environment names.

    Raises:
        CellmeterError: ``upstream``, or a variable's value, is not an address of a provider.

    """
    found = []
    for provider in (*_PROVIDERS, *(_Provider((name,)) for name in _OTHERS)):
        given = next((environ[name] for name in provider.variables if environ.get(name)), None)
        for variable in provider.variables:
            named = environ.get(variable) or given or _default(provider, environ)
            if named is not None:
                found.append(_route(variable, named, upstream, provider.style))
    return found


def redirected(
    environ: Mapping[str, str], routes: Sequence[Route], proxies: Mapping[str, str], session: str
) -> dict[str, str]:
    """The environment for the command.

    Args:
        environ: the environment in which it would have run.
        routes: where each variable is to lead.
        proxies: the address of the recording proxy, by the provider it records.
        session: under which its calls are recorded; it stands in the address, because that is the only identity
            that every agent carries.

    """
    bypass = _no_proxy(environ)
    entries = {route.variable: f"{proxies[route.upstream]}/s/{session}{route.suffix}" for route in routes}
    return {**environ, "NO_PROXY": bypass, "no_proxy": bypass, **entries}


def http_proxy(environ: Mapping[str, str], upstream: str) -> str | None:
    """The HTTP proxy by which the environment says that a provider is reached, or None where it is reached directly."""
    scheme, host = urlsplit(upstream).scheme, urlsplit(upstream).hostname or ""
    named = environ.get(f"{scheme}_proxy") or environ.get(f"{scheme}_proxy".upper())
    if not named or any(_covers(entry, host) for entry in _no_proxy(environ).split(",")):
        return None
    named = named if "://" in named else f"http://{named}"
    return named if named.startswith(("http://", "https://")) else None


def _no_proxy(environ: Mapping[str, str]) -> str:
    given = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    # Agents send loopback addresses to a proxy otherwise, where their HTTP library reads such settings.
    return given if given.strip() == "*" else ",".join(filter(None, (given, LOOPBACK)))


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of ``NO_PROXY`` names a host, or a domain that it is in; a port in it makes no difference."""
    name = entry.strip().lower().partition(":")[0].lstrip(".")
    return name == "*" or (bool(name) and (host == name or host.endswith(f".{name}")))


def _default(provider: _Provider, environ: Mapping[str, str]) -> str | None:
    return provider.default if provider.key is None or environ.get(provider.key) else None


def _route(variable: str, named: str, upstream: str | None, style: Style) -> Route:
    if upstream is None:
        address = _checked(named, variable)
        # Exactly what the client would have asked for: the proxy takes a base that ends in /v1 for the same version.
        return Route(variable, address, "/v1" if address.endswith("/v1") else "")
    address = _checked(upstream, "--upstream")
    versioned = style == "openai" and (address.endswith("/v1") or not urlsplit(address).path)
    return Route(variable, address, "/v1" if versioned else "")


def _checked(address: str, source: str) -> str:
    try:
        return str(parse_upstream(address))
    except CellmeterError as error:
        raise CellmeterError(f"{source}: {error.message}", hint=error.hint, exit_code=error.exit_code) from None
