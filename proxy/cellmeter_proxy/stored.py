"""What is stored of an answer: its body and its timeline, masked, and taken apart where the watcher has done so."""

from typing import NamedTuple

from cellmeter_proxy.blobs import Content, arrivals, frames, recipe
from cellmeter_proxy.log import digest_of
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.redact import Redactor, redact_frames
from cellmeter_proxy.watch import Watcher


class Stored(NamedTuple):
    """The content that an answer comes to."""

    body: Content
    timeline: Content | None
    """When each chunk of a stream came."""
    masked: int
    """How many secrets were masked."""


def stored(watcher: Watcher, dialect: Dialect, redactor: Redactor) -> Stored:
    """What is stored of an answer: as it came, content coding included, unless something in it has to be masked."""
    body, masked = _body(watcher, dialect, redactor)
    return Stored(body, None if watcher.frames is None else _timeline(watcher), masked)


def _body(watcher: Watcher, dialect: Dialect, redactor: Redactor) -> tuple[Content, int]:
    parsed = watcher.parsed
    if parsed is None:
        data, masked = redactor.bytes(watcher.decoded)
    else:
        data, masked = redact_frames(parsed, dialect, redactor)
    if watcher.coded and not masked:
        data, masked = redactor.bytes(watcher.received)
    split = None
    if parsed is not None and parsed.repeated and data is parsed.body:
        split = frames.split_marked(parsed.marked, parsed.repeated)
    return Content(digest_of(data), data, recipe=None if split is None else recipe.of_frames(split)), masked


def _timeline(watcher: Watcher) -> Content:
    # More may come in another thread, and a chunk has its time before it has its size.
    sizes = list(watcher.sizes)
    data, packed = arrivals.timeline(watcher.times[: len(sizes)], sizes)
    return Content(digest_of(data), data, recipe=None if packed is None else recipe.of_timeline(packed))
