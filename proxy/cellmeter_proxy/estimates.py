"""Estimates of recorded calls from their rows and their stored bodies, and what a log's own calls teach about them.

Invariant: an estimate is of the bytes in the log, so that whoever has the log gets the same.

Importing this module loads the tokenizer; the recorder leaves that to a process of its own, see ``estimator``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from cellmeter_proxy.counts import model_of, usage_of
from cellmeter_proxy.encodings import StreamDecoder, decode
from cellmeter_proxy.estimator import Reply
from cellmeter_proxy.log import CALIBRATION, Log
from cellmeter_proxy.record import Call
from cellmeter_proxy.tokens import Calibration, Estimate, estimate, learn

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


class Estimator:
    """Estimates the calls of a log that lack their usage, one after another.

    It learns how a provider counts only when a call of that provider lacks its usage, and then from the latest calls
    of the log: where every provider reports, no text is ever counted.
    """

    def __init__(self, log: Log) -> None:
        self.learned = load_learned(log)
        self._log = log

    def of(self, call: Call) -> Reply:
        """The estimate of a closed call."""
        before = self.learned
        try:
            self.learned = learn_more(self._log, self.learned, call)
            made = estimate_call(self._log, call, self.learned.calibration)
        except Exception as error:  # noqa: BLE001 - the next call is not to suffer from this one
            return Reply(error=f"{type(error).__name__}: {error}")
        return Reply(
            prompt_tokens=made.prompt_tokens,
            completion_tokens=made.completion_tokens,
            method=method_of(made),
            learned=None if self.learned is before else msgspec.json.encode(self.learned).decode(),
        )


def method_of(made: Estimate) -> str:
    """How an estimate came about, in one line: the count, what was corrected, the versions, what is in no count."""
    return "; ".join([made.method, made.version, *made.flags])


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
        " AND response_blob IS NOT NULL AND max(request_bytes, coalesce(response_bytes, 0)) <= ?"
        " ORDER BY rowid DESC LIMIT ?"
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
    if not call.redactions:
        return _decompressed(stored, call.response_encoding)
    plain = decode(stored, call.response_encoding)
    return stored if plain is None else plain


def _decompressed(stored: bytes, encoding: str | None) -> bytes:
    decoder = StreamDecoder(encoding)
    return decoder.feed(stored)


def _of_masked(made: Estimate) -> Estimate:
    return msgspec.structs.replace(
        made,
        flags=[*made.flags, _MASKED],
        prompt_tolerance=None,
        completion_tolerance=None,
        counted_prompt_tokens=None,
        counted_completion_tokens=None,
    )


def main() -> None:
    """Estimate a call for each line of stdin, until it ends; the argument is the log."""
    with Log.read(Path(sys.argv[1])) as log:
        estimator = Estimator(log)
        for line in sys.stdin.buffer:
            sys.stdout.buffer.write(msgspec.json.encode(estimator.of(msgspec.json.decode(line, type=Call))) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
