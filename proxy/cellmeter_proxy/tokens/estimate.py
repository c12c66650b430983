"""Estimates of a call's tokens from the bytes of its request and answer.

For OpenAI's models the count of a prompt of text is what is billed, and with tools within some percent. For others it
is a count in ``o200k_base``, with the ratio and the offset of the model's family, or of a ``Calibration``.

Everything is a pure function of its arguments and takes some milliseconds per 100 KB: call it in a thread.
"""

import math
from typing import Final

import msgspec
import tiktoken

from cellmeter_proxy.record import Dialect, Usage
from cellmeter_proxy.tokens.answers import Answer, answer_of
from cellmeter_proxy.tokens.calibration import Calibration, Fit, Key
from cellmeter_proxy.tokens.conversation import Conversation
from cellmeter_proxy.tokens.counting import Tally
from cellmeter_proxy.tokens.families import Family, family_of
from cellmeter_proxy.tokens.images import image_tokens
from cellmeter_proxy.tokens.prompts import conversation_of
from cellmeter_proxy.tokens.ranks import encoding
from cellmeter_proxy.tokens.rules import count_answer, count_prompt

RULES_VERSION: Final = "1"
HIDDEN_REASONING: Final = "hidden reasoning: lower bound"

_THINKING: Final = 30
"""What Anthropic's template adds where thinking is asked for (24 to 37 seen)."""
_SLACK: Final = 8
_TOOLS_ERROR: Final = 0.07
_FIT_ERROR: Final = 0.05


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a call is likely to be billed for. A number that could not be estimated is None."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    method: str
    """The encoding, and the correction that was applied to the prompt's count."""
    version: str
    """Of the rules and of tiktoken."""
    flags: list[str] = []
    """What is in no count, or counted roughly, each as a short sentence."""
    prompt_tolerance: int | None = None
    """How far off an honest provider's figure may be, in tokens; None where something is in no count."""
    completion_tolerance: int | None = None
    """The same for the answer; None where the estimate is only a lower bound."""
    key: Key | None = None
    """The calls that this one can teach about, and learn from."""
    counted_prompt_tokens: int | None = None
    """The count before ratio and offset, for ``learn``; None where it would teach something wrong."""
    counted_completion_tokens: int | None = None
    """The same for the answer."""


def estimate(
    dialect: Dialect,
    request: bytes,
    answer: bytes = b"",
    *,
    model: str | None = None,
    host: str = "",
    calibration: Calibration | None = None,
) -> Estimate:
    """Estimate the tokens of one call. Any bytes give an estimate, if only one of None.

    Args:
        dialect: the dialect of the call.
        request: the body of the request, decompressed.
        answer: the body of the answer, decompressed: JSON or a stream of events, even a cut one.
        model: the model that answered; else the one that the request names.
        host: the upstream host, for the calibration.
        calibration: what calls that reported their usage have taught.

    """
    try:
        conversation = conversation_of(dialect, request)
        said = answer_of(dialect, answer)
        named = model or (conversation.model if conversation else "")
        return _assemble(conversation, said, _Context.of(named, host, conversation, calibration or Calibration()))
    except RecursionError:
        return Estimate(method="none", version=version(), flags=["nested too deeply to be counted"])


def corrected(made: Estimate, calibration: Calibration) -> Estimate:
    """The same estimate by what other calls taught, without counting again.

    A half that teaches nothing (an image in it, a part that could not be counted) stays as it was.

    Args:
        made: the estimate by the rules of the model's family.
        calibration: what those calls taught.

    """
    if made.key is None:
        return made
    family = family_of(made.key.model)
    prompt = calibration.fit(made.key, ratio=family.ratio)
    completion = calibration.fit(msgspec.structs.replace(made.key, part="completion"), ratio=family.ratio)
    if prompt and made.counted_prompt_tokens is not None:
        tokens = prompt.apply(made.counted_prompt_tokens)
        made = msgspec.structs.replace(
            made,
            prompt_tokens=tokens,
            prompt_tolerance=_fitted_tolerance(tokens, prompt),
            method=_fitted_method(family, prompt),
        )
    if completion and made.counted_completion_tokens is not None and made.completion_tolerance is not None:
        tokens = completion.apply(made.counted_completion_tokens)
        tolerance = _fitted_tolerance(tokens, completion)
        made = msgspec.structs.replace(made, completion_tokens=tokens, completion_tolerance=tolerance)
    return made


def learn(calibration: Calibration, made: Estimate, usage: Usage) -> Calibration:
    """What a calibration knows once one more call is known both by its estimate and by what was billed.

    Args:
        calibration: what is known so far.
        made: the estimate of the call.
        usage: what the provider reported for it, whole.

    """
    if made.key is None:
        return calibration
    if made.counted_prompt_tokens is not None and usage.prompt_tokens is not None:
        calibration = calibration.observe(made.key, counted=made.counted_prompt_tokens, billed=usage.prompt_tokens)
    shown = usage.completion_tokens
    if shown is not None and HIDDEN_REASONING in made.flags:
        shown = None if usage.reasoning_tokens is None else shown - usage.reasoning_tokens
    if made.counted_completion_tokens is not None and shown is not None:
        key = msgspec.structs.replace(made.key, part="completion")
        calibration = calibration.observe(key, counted=made.counted_completion_tokens, billed=shown)
    return calibration


def version() -> str:
    """The version of these rules and of the tokenizer, as stored with each estimate."""
    return f"cellmeter rules {RULES_VERSION}, tiktoken {tiktoken.__version__}"


class _Context(msgspec.Struct, frozen=True, kw_only=True):
    """What both halves of an estimate need of the call."""

    key: Key
    family: Family
    tally: Tally
    thinking: bool | None
    prompt_fit: Fit | None
    completion_fit: Fit | None

    @classmethod
    def of(cls, model: str, host: str, conversation: Conversation | None, calibration: Calibration) -> "_Context":
        family = family_of(model)
        key = Key(host=host, model=model, tools=bool(conversation and conversation.tools))
        return cls(
            key=key,
            family=family,
            tally=Tally(encoding(family.encoding)),
            thinking=conversation.thinking if conversation else None,
            prompt_fit=calibration.fit(key, ratio=family.ratio),
            completion_fit=calibration.fit(msgspec.structs.replace(key, part="completion"), ratio=family.ratio),
        )


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """One half of an estimate."""

    tokens: int | None = None
    tolerance: int | None = None
    counted: int | None = None
    flags: list[str] = []


def _assemble(conversation: Conversation | None, answer: Answer | None, context: _Context) -> Estimate:
    prompt = _prompt(conversation, context) if conversation else _Part(flags=["request not readable"])
    completion = _completion(answer, context) if answer else _Part()
    extrapolated = ["too long to be counted whole: extrapolated"] if context.tally.extrapolated else []
    return Estimate(
        prompt_tokens=prompt.tokens,
        completion_tokens=completion.tokens,
        method=_method(context),
        version=version(),
        flags=list(dict.fromkeys(prompt.flags + completion.flags + extrapolated)),
        prompt_tolerance=prompt.tolerance,
        completion_tolerance=completion.tolerance,
        key=context.key,
        counted_prompt_tokens=prompt.counted,
        counted_completion_tokens=completion.counted,
    )


def _method(context: _Context) -> str:
    fit, family = context.prompt_fit, context.family
    if fit:
        return _fitted_method(family, fit)
    offset = family.offset + (family.tools_offset if context.key.tools else 0)
    return f"{family.encoding}, rules for {family.name}: ratio {family.ratio:.3g}, offset {offset:+d}"


def _fitted_method(family: Family, fit: Fit) -> str:
    return f"{family.encoding}, ratio {fit.ratio:.3g} and offset {fit.offset:+.0f} learned from {fit.calls} calls"


def _prompt(conversation: Conversation, context: _Context) -> _Part:
    counted = count_prompt(conversation, context.family, context.tally)
    seen, images_left_out = _images(conversation, context.key.model)
    flags = conversation.uncounted + (["image not counted"] if images_left_out else [])
    # A prompt that no template was put around says nothing of the template.
    fit = context.prompt_fit if conversation.messages else None
    tokens = seen + (fit.apply(counted) if fit else _by_family(counted, conversation, context))
    teaches = conversation.messages and not flags and not seen
    return _Part(
        tokens=tokens,
        tolerance=None if flags else _tolerance(tokens, fit, context),
        counted=counted if teaches else None,
        flags=flags,
    )


def _by_family(counted: int, conversation: Conversation, context: _Context) -> int:
    family = context.family
    offset = family.offset if conversation.messages else 0
    offset += family.tools_offset if context.key.tools else 0
    offset += _THINKING if family.name.startswith("claude") and context.thinking else 0
    return max(0, round(offset + family.ratio * counted))


def _images(conversation: Conversation, model: str) -> tuple[int, bool]:
    """The tokens of the images that could be counted, and whether there are others."""
    counts = [image_tokens(image, model) for message in conversation.messages for image in message.images]
    return sum(count for count in counts if count is not None), None in counts


def _tolerance(tokens: int, fit: Fit | None, context: _Context) -> int:
    if fit:
        return _fitted_tolerance(tokens, fit)
    relative = context.family.error + (_TOOLS_ERROR if context.key.tools else 0)
    # What a template in JSON adds for tools differs from model to model.
    unsure = context.family.tools_offset // 2 if context.key.tools and context.family.tools == "json" else 0
    return _SLACK + unsure + math.ceil(relative * tokens)


def _fitted_tolerance(tokens: int, fit: Fit) -> int:
    return _SLACK + math.ceil(4 * fit.error + _FIT_ERROR * tokens)


def _completion(answer: Answer, context: _Context) -> _Part:
    family, fit = context.family, context.completion_fit
    may_reason = family.reasons and context.thinking is not False
    counted = count_answer(answer, context.tally)
    tokens = fit.apply(counted) if fit else round(family.ratio * counted) + (family.answer_offset if may_reason else 0)
    hidden = answer.hidden_reasoning or (may_reason and not answer.shown_reasoning)
    flags = answer.uncounted + ([HIDDEN_REASONING] if hidden else [])
    return _Part(
        tokens=tokens,
        tolerance=None if flags else _tolerance(tokens, fit, context),
        counted=None if answer.uncounted else counted,
        flags=flags,
    )
