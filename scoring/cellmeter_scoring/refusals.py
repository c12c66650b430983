"""Whether a refused call says that the provider cannot serve the agent, or only that the agent asked badly.

Invariant: a refusal excuses an agent only where the wire shows what the provider lacks. Else an agent could keep out
of every rate by sending nothing but nonsense.
"""

import re
from typing import Final

from cellmeter_proxy.record import Call

_NOT_THERE: Final = frozenset({404, 405, 410, 415, 426})
"""No such endpoint, method or model, no longer, not in this coding, not over this protocol (RFC 9110 §15.5)."""
_NAMES_WHAT_IS_LACKING: Final = re.compile(
    r"""
    unsupported | not[ ]supported | (does[ ]not|doesn't|cannot)[ ]support         # OpenAI, Anthropic, DeepSeek, Ollama
    | unknown_(parameter|url) | unknown[ ](parameter|name|field)                  # OpenAI, Gemini
    | unrecognized[ ]request[ ]argument | extra_forbidden | extra[ ]inputs        # OpenAI, Mistral, vLLM
    | model_not_found | not_found_error | model\b.{0,100}(does[ ]not[ ]exist|not[ ]found|not[ ]available)
    | not[ ](implemented|enabled) | requires[ ]--enable                           # vLLM
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""How providers name a parameter, an endpoint or a model that they do not have, in an error's code or its sentence."""


def shows_incompatibility(call: Call, model: str) -> bool:
    """Whether a call that was refused as malformed or unsupported proves that agent and provider do not fit.

    It does where the proxy refused the provider's own tools, which the sweep does not grant; and where the request was
    JSON, asked for the model that the cell is about, and was told that its endpoint, its model or something that it
    asked for is not there. A body that is no JSON, a model of the agent's own choice and an error that names nothing of
    the kind prove nothing.

    Args:
        call: was refused.
        model: of the cell.

    """
    if call.outcome == "rejected":
        return bool(call.provider_tools)
    if call.request_hash is None or not _is_the_model(call.request_model, model):
        return False
    return call.status in _NOT_THERE or _NAMES_WHAT_IS_LACKING.search(call.error or "") is not None


def _is_the_model(asked: str | None, model: str) -> bool:
    """Whether the names are the same but for a provider's prefix, which some agents add and others take away."""
    return asked is not None and asked.rpartition("/")[2] == model.rpartition("/")[2]
