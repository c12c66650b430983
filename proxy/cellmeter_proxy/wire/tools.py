"""What a request asks the provider to run or to fetch by itself: its search, its sandbox, remote servers, URLs.

A tool is taken for the provider's unless it is known that the agent runs it: an unknown one is named, not missed.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.wire.fields import as_object, objects, text

_AGENT_TOOLS: Final = frozenset(
    {
        "function",
        "custom",
        "local_shell",
        "apply_patch",
        "computer",
        "computer_use",
        "computer_use_preview",
        "namespace",
    }
)
_AGENT_TOOL_PREFIXES: Final = ("bash_", "text_editor_", "computer_", "memory_")
"""Anthropic's tools that the client runs carry a date (https://docs.anthropic.com/en/docs/agents-and-tools/tool-use)."""
_SWITCHES: Final = {
    "web_search_options": "web_search",
    "search_parameters": "live_search",
    "enable_search": "web_search",
}
"""Members of a request that switch a search on: OpenAI's, xAI's and Qwen's."""
_SWITCHING: Final = frozenset({*_SWITCHES, "plugins", "mcp_servers"})
_URL_FIELDS: Final = ("image_url", "file_url", "video_url", "audio_url")
_FETCHING: Final = frozenset({*_URL_FIELDS, "source"})
_NESTING: Final = ("content", "output")


def provider_tools(dialect: Dialect, body: dict[str, Any], fetched: Iterable[str]) -> list[str]:
    """Each thing once, in order of appearance; URLs without user, query and fragment.

    Args:
        dialect: which API the request is for.
        body: the request.
        fetched: what ``fetched`` found in its messages or input items.

    """
    if dialect in {"embeddings", "models", "unknown"}:
        return []
    found = [*_tools(objects(body.get("tools")))]
    if not _SWITCHING.isdisjoint(body):
        found += _switched(body)
    return list(dict.fromkeys([*found, *fetched]))


def fetched(message: object) -> list[str]:
    """The remote addresses in a message, or in an array of them, also in the parts of a tool's result."""
    found: list[str] = []
    _gather([message], found)
    return found


def _tools(tools: list[dict[str, Any]]) -> Iterator[str]:
    for tool in tools:
        kind = text(tool.get("type"))
        if kind == "namespace":
            yield from _tools(objects(tool.get("tools")))
        elif kind == "mcp":
            yield _mcp(tool.get("server_url") or tool.get("connector_id"))
        elif kind == "shell":
            place = text(as_object(tool.get("environment")).get("type"))
            if place not in {None, "local"}:
                yield "shell"
        elif kind is not None and kind not in _AGENT_TOOLS and not kind.startswith(_AGENT_TOOL_PREFIXES):
            yield kind


def _switched(body: dict[str, Any]) -> Iterator[str]:
    for name, tool in _SWITCHES.items():
        if body.get(name) is not None and body[name] is not False:
            yield tool
    for plugin in objects(body.get("plugins")):
        yield f"plugin:{text(plugin.get('id')) or 'unnamed'}"
    for server in objects(body.get("mcp_servers")):
        yield _mcp(server.get("url"))


def _mcp(where: object) -> str:
    return f"mcp:{_address(text(where) or 'unnamed')}"


def _gather(parts: list[Any], found: list[str]) -> None:
    for part in parts:
        if isinstance(part, dict):
            if not _FETCHING.isdisjoint(part):
                found += _named(part)
            for name in _NESTING:
                nested = part.get(name)
                if isinstance(nested, list):
                    _gather(nested, found)
        elif isinstance(part, list):
            _gather(part, found)


def _named(part: dict[str, Any]) -> Iterator[str]:
    """The remote addresses that one part names itself."""
    for name in _URL_FIELDS:
        value = part.get(name)
        yield from _remote(name, text(value) or text(as_object(value).get("url")))
    source = as_object(part.get("source"))
    if source.get("type") == "url":
        yield from _remote(text(part.get("type")) or "source", text(source.get("url")))


def _remote(name: str, url: str | None) -> Iterator[str]:
    """An address on the network; ``data:`` URLs carry their content with them."""
    if url is not None and url.lower().startswith(("http://", "https://")):
        yield f"{name}:{_address(url)}"


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "unreadable"
    return f"{parts.scheme}://{host}{port}{parts.path}" if host else url[:200]
