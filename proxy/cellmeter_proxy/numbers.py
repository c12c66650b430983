"""What is worked out about a recorded call from its row and its stored bodies: its cost, and estimates of its tokens.

Invariant: nothing here replaces what a provider reported. A cost is of counts that the provider finished; an estimate
is of the bytes in the log, so that whoever has the log gets the same.

Importing this module loads the tokenizer and the table of prices (some 0.4 s, 60 MB): the relay does so in the thread
of its ``Accountant``, when the first call needs it.
"""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from cellmeter_proxy.encodings import StreamDecoder
from cellmeter_proxy.log import CALIBRATION, Log
from cellmeter_proxy.prices import Cost, Overrides, price
from cellmeter_proxy.record import Call, Numbers, Usage
from cellmeter_proxy.tokens import Calibration, Estimate, estimate, learn
from cellmeter_proxy.unmetered import is_unmetered
from cellmeter_proxy.wire.fields import amount, as_object

_LESSONS: Final = 12
"""How many calls are looked at to estimate one: counting costs milliseconds per 100 KB."""
_LESSON_BYTES: Final = 1_000_000
_MASKED: Final = "secrets masked in the stored bodies"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far the calls to one model were looked at."""

    upstream: str | None
    model: str | None
    rowid: int


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of a log that reported their usage have taught."""

    calibration: Calibration = Calibration()
    marks: list[Mark] = []


class Numbering:
    """Works the numbers of calls out, one after another.

    It learns how a provider counts only when a call of that provider lacks its usage, and then from the latest calls
    of the log: where every provider reports, no text is ever counted.
    """

    def __init__(self, log: Log, overrides: Overrides | None = None) -> None:
        self.learned = load_learned(log)
        self._log = log
        self._overrides = overrides

    def of(self, call: Call) -> Numbers:
        """The numbers of a closed call; those that cannot be told are None."""
        cost = cost_of(call, self._overrides)
        made = None
        if is_unmetered(call):
            self.learned = learn_more(self._log, self.learned, call)
            made = estimate_call(self._log, call, self.learned.calibration)
        return numbers_of(call, cost, made)


def numbers_of(call: Call, cost: Cost | None, made: Estimate | None) -> Numbers:
    """The columns that a cost and an estimate fill."""
    return Numbers(
        call_id=call.call_id,
        cost=cost.usd if cost else None,
        price_source=cost.source if cost else None,
        estimated_prompt_tokens=made.prompt_tokens if made else None,
        estimated_completion_tokens=made.completion_tokens if made else None,
        estimate_method=method_of(made) if made else None,
    )


def method_of(made: Estimate) -> str:
    """How an estimate came about, in one line: the count, what was corrected, the versions, what is in no count."""
    return "; ".join([made.method, made.version, *made.flags])


def usage_of(call: Call) -> Usage:
    """The counts of a call as its provider reported them."""
    return Usage(**{name: getattr(call, name) for name in Usage.__struct_fields__})


def model_of(call: Call) -> str | None:
    """The model that answered, or else the one that was asked for."""
    return call.response_model or call.request_model


def cost_of(call: Call, overrides: Overrides | None = None) -> Cost | None:
    """What a call cost, or None where that is not known; a part of a call's usage has no price."""
    reported = reported_cost(call.usage)
    usage = usage_of(call) if call.usage_source == "provider" else Usage()
    return price(usage, model_of(call), call.upstream, call.started_at, overrides, reported_usd=reported)


def reported_cost(usage: str | None) -> float | None:
    """The US dollars that a provider's usage object names, as OpenRouter's ``cost`` does.

    See https://openrouter.ai/docs/use-cases/usage-accounting.
    """
    found: Any = None if usage is None else msgspec.json.decode(usage)
    objects = found if isinstance(found, list) else [found]
    return next((cost for one in reversed(objects) if (cost := amount(as_object(one).get("cost"))) is not None), None)


def estimate_call(log: Log, call: Call, calibration: Calibration | None = None) -> Estimate:
    """The estimate of a recorded call from its stored bodies.

    Raises:
        KeyError: the log does not hold a body that the row names.

    """
    made = estimate(
        call.dialect,
        request_of(log, call),
        answer_of(log, call),
        model=model_of(call),
        host=host_of(call),
        calibration=calibration,
    )
    return _of_masked(made) if call.redactions else made


def learn_more(log: Log, learned: Learned, call: Call) -> Learned:
    """What is known once the latest calls to the model of ``call`` were looked at, some at a time, each once."""
    upstream, model = call.upstream, model_of(call)
    seen = next((mark.rowid for mark in learned.marks if (mark.upstream, mark.model) == (upstream, model)), 0)
    newest = int(log.conn.execute("SELECT coalesce(max(rowid), 0) FROM calls").fetchone()[0])
    calibration = learned.calibration
    for one in latest_reporting(log, call, after=seen, count=_LESSONS):
        calibration = learn(calibration, estimate_call(log, one), usage_of(one))
    others = [mark for mark in learned.marks if (mark.upstream, mark.model) != (upstream, model)]
    return Learned(calibration=calibration, marks=[*others, Mark(upstream=upstream, model=model, rowid=newest)])


def latest_reporting(log: Log, call: Call, *, after: int = 0, count: int) -> Iterator[Call]:
    """The latest calls of the log to the model of ``call`` that reported their usage, oldest first.

    Args:
        log: where they are.
        call: the call whose upstream and model they share.
        after: only rows written after the one of this number.
        count: how many at most.

    """
    where = (
        "rowid > ? AND upstream IS ? AND coalesce(response_model, request_model) IS ? AND usage_source = 'provider'"
        " AND response_blob IS NOT NULL AND request_bytes <= ? ORDER BY rowid DESC LIMIT ?"
    )
    found = log.rows(Call, where, (after, call.upstream, model_of(call), _LESSON_BYTES, count))
    yield from reversed(list(found))


def load_learned(log: Log) -> Learned:
    """What a log says that its calls have taught; nothing where another version wrote it."""
    try:
        return msgspec.json.decode(log.meta(CALIBRATION) or "{}", type=Learned)
    except msgspec.DecodeError:
        return Learned()


def host_of(call: Call) -> str:
    """The host of the upstream, with its port where the URL has one."""
    return urlsplit(call.upstream or "").netloc


def request_of(log: Log, call: Call) -> bytes:
    """The body of a call's request, decompressed; empty where there is none."""
    stored = log.blob(call.request_blob) if call.request_blob else b""
    # What had to be masked was stored decompressed, and no longer has the digest of what was received.
    return stored if call.request_blob != call.body_hash else _decompressed(stored, call.request_encoding)


def answer_of(log: Log, call: Call) -> bytes:
    """The body of a call's answer, decompressed, as far as it came; empty where there is none."""
    stored = log.blob(call.response_blob) if call.response_blob else b""
    return _decompressed(stored, call.response_encoding)


def _decompressed(stored: bytes, encoding: str | None) -> bytes:
    decoder = StreamDecoder(encoding)
    plain = decoder.feed(stored)
    return stored if decoder.error is not None and not plain else plain


def _of_masked(made: Estimate) -> Estimate:
    return msgspec.structs.replace(
        made,
        flags=[*made.flags, _MASKED],
        prompt_tolerance=None,
        completion_tolerance=None,
        counted_prompt_tokens=None,
        counted_completion_tokens=None,
    )
