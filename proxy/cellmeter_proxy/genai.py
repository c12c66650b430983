"""OpenTelemetry's GenAI names for what a call is and who answers it.

Pure. The conventions are https://github.com/open-telemetry/semantic-conventions-genai (status: development), so rows
keep names of their own and are mapped on the way out.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from cellmeter_proxy.record import Dialect

OPERATIONS: Final[Mapping[Dialect, str]] = MappingProxyType(
    {
        "chat.completions": "chat",
        "responses": "chat",
        "messages": "chat",
        "completions": "text_completion",
        "embeddings": "embeddings",
    }
)
"""``gen_ai.operation.name`` of the dialects in which a model is asked for something."""

_PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "api.openai.com": "openai",
        "api.anthropic.com": "anthropic",
        "api.cohere.com": "cohere",
        "api.deepseek.com": "deepseek",
        "api.groq.com": "groq",
        "api.mistral.ai": "mistral_ai",
        "api.moonshot.ai": "moonshot_ai",
        "api.moonshot.cn": "moonshot_ai",
        "api.perplexity.ai": "perplexity",
        "api.x.ai": "x_ai",
        "generativelanguage.googleapis.com": "gcp.gemini",
        "aiplatform.googleapis.com": "gcp.vertex_ai",
        "openai.azure.com": "azure.ai.openai",
        "services.ai.azure.com": "azure.ai.inference",
        "amazonaws.com": "aws.bedrock",
    }
)
"""``gen_ai.provider.name`` by the end of the host's name."""


def operation_name(dialect: Dialect) -> str:
    """``gen_ai.operation.name``; the dialect's own name where the conventions have none."""
    return OPERATIONS.get(dialect, dialect)


def provider_name(upstream: str | None) -> str | None:
    """``gen_ai.provider.name`` of an upstream's address; its host where the conventions have no name for it."""
    host = urlsplit(upstream or "").hostname
    if host is None:
        return None
    return next(
        (name for end, name in _PROVIDERS.items() if host == end or host.endswith((f".{end}", f"-{end}"))),
        host,
    )
