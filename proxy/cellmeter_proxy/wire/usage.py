"""Token counts out of the usage objects that providers send, normalised to the meanings of ``record.Usage``."""

from typing import Any, Literal

import msgspec

from cellmeter_proxy.record import Usage
from cellmeter_proxy.wire.fields import amount, as_object, count


class Reported(msgspec.Struct, frozen=True):
    """One usage object: what it counts, and what it says the call cost."""

    usage: Usage
    cost: float | None = None


def openai_usage(value: object) -> Reported | None:
    """Counts of a usage object in OpenAI's shape, or None where there is none: ``null`` and ``{}`` are not usage.

    Both namings are read: ``prompt_tokens`` with ``completion_tokens``, and ``input_tokens`` with ``output_tokens``
    (https://platform.openai.com/docs/api-reference/responses/object). Cached input is inside the input; DeepSeek names
    it ``prompt_cache_hit_tokens``, Moonshot ``cached_tokens``. ``cost`` is OpenRouter's.
    """
    fields = as_object(value)
    prompt = _first(fields, "prompt_tokens", "input_tokens")
    completion = _first(fields, "completion_tokens", "output_tokens")
    if prompt is None and completion is None:
        return None
    taken = as_object(fields.get("prompt_tokens_details")) or as_object(fields.get("input_tokens_details"))
    made = as_object(fields.get("completion_tokens_details")) or as_object(fields.get("output_tokens_details"))
    cached = _first(taken, "cached_tokens")
    if cached is None:
        cached = _first(fields, "prompt_cache_hit_tokens", "cached_tokens")
    reasoning = _first(made, "reasoning_tokens")
    if reasoning is None:
        reasoning = _first(fields, "reasoning_tokens")
    usage = Usage(
        prompt_tokens=prompt,
        cache_read_tokens=cached,
        cache_write_tokens=_first(taken, "cache_write_tokens"),
        completion_tokens=_all_output(completion, prompt, reasoning, _first(fields, "total_tokens")),
        reasoning_tokens=reasoning,
    )
    return Reported(usage, amount(fields.get("cost")))


def anthropic_usage(value: object) -> Usage | None:
    """Counts of a usage object in Anthropic's shape, or None where there is none.

    ``input_tokens`` excludes both cache classes there, so they are added to it
    (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance); thinking is
    inside ``output_tokens``.
    """
    fields = as_object(value)
    fresh = _first(fields, "input_tokens")
    read = _first(fields, "cache_read_input_tokens")
    written = _first(fields, "cache_creation_input_tokens")
    completion = _first(fields, "output_tokens")
    if fresh is None and completion is None:
        return None
    return Usage(
        prompt_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        cache_read_tokens=read,
        cache_write_tokens=written,
        completion_tokens=completion,
        reasoning_tokens=_first(as_object(fields.get("output_tokens_details")), "thinking_tokens", "reasoning_tokens"),
    )


def source_of(
    usage: Usage | None, *, final: bool, needs_completion: bool = True
) -> Literal["provider", "partial", "none"]:
    """How far the counts can be relied on.

    Args:
        usage: the counts, if any were seen.
        final: the provider had finished counting.
        needs_completion: the call produces output (embeddings do not).

    """
    if usage is None:
        return "none"
    both = usage.prompt_tokens is not None and (usage.completion_tokens is not None or not needs_completion)
    return "provider" if both and final else "partial"


def _all_output(completion: int | None, prompt: int | None, reasoning: int | None, total: int | None) -> int | None:
    """All output, reasoning included.

    xAI and Gemini's compatible endpoint leave reasoning out of ``completion_tokens`` but not out of ``total_tokens``
    (https://docs.x.ai/docs/key-information/consumption-and-rate-limits): there the total less the input is the output.
    """
    if completion is None or prompt is None or total is None:
        return completion
    apart = total - prompt - completion
    return completion + apart if apart > 0 and reasoning in {None, apart} else completion


def _first(fields: dict[str, Any], *names: str) -> int | None:
    if fields:
        for name in names:
            if name in fields and (found := count(fields[name])) is not None:
                return found
    return None
