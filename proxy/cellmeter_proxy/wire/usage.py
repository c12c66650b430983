"""Token counts out of the usage objects that providers send, normalised to the meanings of ``record.Usage``."""

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from cellmeter_proxy.record import Usage
from cellmeter_proxy.wire.fields import MAX_COUNT, amount, as_object, count

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)] | None


class _Openai(msgspec.Struct):
    prompt_tokens: _Count = None
    input_tokens: _Count = None
    completion_tokens: _Count = None
    output_tokens: _Count = None
    total_tokens: _Count = None
    reasoning_tokens: _Count = None
    prompt_cache_hit_tokens: _Count = None
    cached_tokens: _Count = None


class _Anthropic(msgspec.Struct):
    input_tokens: _Count = None
    cache_read_input_tokens: _Count = None
    cache_creation_input_tokens: _Count = None
    output_tokens: _Count = None


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: _Count = None
    cache_write_tokens: _Count = None
    reasoning_tokens: _Count = None
    thinking_tokens: _Count = None


_NO_DETAILS: Final = _Details()
_C = TypeVar("_C", _Openai, _Anthropic, _Details)


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
    counts = _counts(_Openai, fields)
    prompt = _known(counts.prompt_tokens, counts.input_tokens)
    completion = _known(counts.completion_tokens, counts.output_tokens)
    if prompt is None and completion is None:
        return None
    taken = _details(fields, "prompt_tokens_details", "input_tokens_details")
    made = _details(fields, "completion_tokens_details", "output_tokens_details")
    reasoning = _known(made.reasoning_tokens, counts.reasoning_tokens)
    usage = Usage(
        prompt_tokens=prompt,
        cache_read_tokens=_known(taken.cached_tokens, _known(counts.prompt_cache_hit_tokens, counts.cached_tokens)),
        cache_write_tokens=taken.cache_write_tokens,
        completion_tokens=_all_output(completion, prompt, reasoning, counts.total_tokens),
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
    counts = _counts(_Anthropic, fields)
    fresh, read, written = counts.input_tokens, counts.cache_read_input_tokens, counts.cache_creation_input_tokens
    if fresh is None and counts.output_tokens is None:
        return None
    made = _details(fields, "output_tokens_details")
    return Usage(
        prompt_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        cache_read_tokens=read,
        cache_write_tokens=written,
        completion_tokens=counts.output_tokens,
        reasoning_tokens=_known(made.thinking_tokens, made.reasoning_tokens),
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


def _details(fields: dict[str, Any], *names: str) -> _Details:
    """What the first of these objects counts that holds anything."""
    for name in names:
        found = fields.get(name)
        if found and isinstance(found, dict):
            return _counts(_Details, found)
    return _NO_DETAILS


def _counts(kind: type[_C], fields: dict[str, Any]) -> _C:
    """What an object counts. A member that is no count, of which there are few, costs none of the others."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError:
        return kind(**{name: count(fields.get(name)) for name in kind.__struct_fields__})


def _known(one: int | None, other: int | None) -> int | None:
    return other if one is None else one
