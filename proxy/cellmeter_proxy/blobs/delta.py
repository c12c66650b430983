"""What a text has in common with an older one: a list of the stretches to copy. Pure.

An agent resends its history, so a request is the one before it with something put in near the end, in front of what
follows the messages. Equal ends are found by comparing, which costs less than hashing; what was changed in between
is found again by looking for samples of the older text in the newer one. Nothing depends on the samples: a stretch
is a copy because it was compared, and a text that shares nothing is a list without stretches.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

_WORTH: Final = 24
"""A shorter stretch costs about as much to name as to write out."""
_LARGE: Final = 8 * 1024
"""The middle of a smaller text is only looked into where its ends are old: what else it repeats a compressor finds."""
_ROUNDS: Final = 48
_STEPS: Final = (0, 32, 128, 512, 2048, 8192, 32768)
_SAMPLE: Final = 32
_STEP: Final = 64
"""So many bytes are compared first, then four times as many each time: most texts differ soon, or late."""
_FEW: Final = 512
"""Among so many bytes the first that differs is found as a number; among more, by comparing the half of them."""


class Copy(NamedTuple):
    """A stretch of the newer text that stands in the older one."""

    at: int
    """Where it begins in the newer text."""
    source: int
    """Where it begins in the older text."""
    size: int


def diff(old: bytes, new: bytes) -> list[Copy]:
    """The stretches of a text that can be copied from an older one, in the order of the newer text."""
    shorter = min(len(old), len(new))
    head = common_prefix(old, new)
    tail = common_suffix(old, new, shorter - head)
    copies = [Copy(0, 0, head)] if head >= _WORTH else []
    is_worth_it = len(new) >= _LARGE or (head + tail) * 4 >= len(new)
    if shorter - head - tail >= _SAMPLE and is_worth_it:
        copies += _within(old, new, (head, len(old) - tail), (head, len(new) - tail))
    if tail >= _WORTH:
        copies.append(Copy(len(new) - tail, len(old) - tail, tail))
    return copies


def _within(old: bytes, new: bytes, old_part: tuple[int, int], new_part: tuple[int, int]) -> Iterable[Copy]:
    """What the middles have in common, which differ at both of their ends."""
    (source, old_end), (at, new_end) = old_part, new_part
    for _ in range(_ROUNDS):
        found = _resume(old, new, (source, old_end), (at, new_end))
        if found is None:
            return
        at, source = found
        size = common_prefix(old, new, source, at, min(old_end - source, new_end - at))
        yield Copy(at, source, size)
        at, source = at + size, source + size


def _resume(old: bytes, new: bytes, old_part: tuple[int, int], new_part: tuple[int, int]) -> tuple[int, int] | None:
    """Where the two agree again: the place in the newer text and the one in the older, or None."""
    (source, old_end), (at, new_end) = old_part, new_part
    for step in _STEPS:
        begin = source + step
        if begin + _SAMPLE > old_end:
            return None
        place = new.find(old[begin : begin + _SAMPLE], at, new_end)
        if place >= 0:
            back = common_suffix(old[source:begin], new[at:place], min(step, place - at))
            return place - back, begin - back
    return None


def common_prefix(old: bytes, new: bytes, old_at: int = 0, new_at: int = 0, most: int | None = None) -> int:
    """How many bytes two texts share from a place in each on."""
    size = min(len(old) - old_at, len(new) - new_at)
    size = size if most is None else min(size, most)
    known, step = 0, _STEP
    while known < size:
        end = min(known + step, size)
        if new.startswith(old[old_at + known : old_at + end], new_at + known):
            known, step = end, step * 4
        elif end - known <= _FEW:
            ours, theirs = old[old_at + known : old_at + end], new[new_at + known : new_at + end]
            return known + _equal(int.from_bytes(ours) ^ int.from_bytes(theirs), end - known)
        else:
            size, step = end, (end - known) // 2
    return max(size, 0)


def common_suffix(old: bytes, new: bytes, most: int) -> int:
    """How many bytes two texts share at their ends, ``most`` at the most."""
    old_end, new_end, size = len(old), len(new), most
    known, step = 0, _STEP
    while known < size:
        end = min(known + step, size)
        if new.endswith(old[old_end - end : old_end - known], 0, new_end - known):
            known, step = end, step * 4
        elif end - known <= _FEW:
            ours, theirs = old[old_end - end : old_end - known], new[new_end - end : new_end - known]
            return known + _equal(int.from_bytes(ours, "little") ^ int.from_bytes(theirs, "little"), end - known)
        else:
            size, step = end, (end - known) // 2
    return max(size, 0)


def _equal(difference: int, size: int) -> int:
    """How many bytes of two stretches are equal before the first that differs, as the leading ones of their XOR."""
    return size - (difference.bit_length() + 7) // 8
