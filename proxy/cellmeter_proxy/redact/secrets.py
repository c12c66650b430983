"""Finding secrets in text and masking them.

Invariant: what is masked keeps its length and the prefix that tells its kind (``sk-``, ``Bearer ``), so that JSON stays
JSON, a secret can be masked piece by piece, and masking twice changes nothing. It takes time linear in the text.
"""

import base64
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final
from urllib.parse import quote, quote_plus

import msgspec

from cellmeter_proxy.redact.shared import Known, Span, joined, left
from cellmeter_proxy.redact.slices import SLICE, find, slices
from cellmeter_proxy.redact.words import long_words

Data = bytes  # inside the class the name belongs to the method that the house calls ``bytes``
MIN_SECRET: Final = 6
"""A given secret shorter than this is not looked for: masking it would riddle every text."""
_MASK: Final = b"*"
_OVERLAP: Final = 64
"""What is looked for of a key of any shape is shorter: how it begins, and the least long word."""
_SHORT: Final = 200
_MAX_HARMLESS: Final = 256


class _Shape(msgspec.Struct, frozen=True):
    """Keys of one kind: a text without which there is none, and the pattern, whose first group stays readable."""

    needle: bytes
    pattern: re.Pattern[bytes]
    barren: re.Pattern[bytes]
    """Matches where the pattern does not: what none of its keys begins in, so that it is not looked through again."""


def _shape(needle: bytes, pattern: bytes, barren: bytes = b"(?!)") -> _Shape:
    return _Shape(needle, re.compile(_START + pattern), re.compile(_START + barren))


_START: Final = rb"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4}))"
"""Not within a word; the letters of an escape in JSON, such as that of a line's end, are no part of one."""
_NO_DIGIT: Final = rb"[A-Za-z_-]*+(?![0-9])"
_SHAPES: Final = tuple(
    _shape(*parts)
    for parts in (
        (b"sk-", rb"(sk-(?:ant-|proj-|or-v1-|svcacct-)?)(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}", _NO_DIGIT),
        (b"cm-", rb"(cm-)(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{16,}", _NO_DIGIT),
        (b"gsk_", rb"(gsk_)[A-Za-z0-9]{20,}"),
        (b"AIza", rb"(AIza)[A-Za-z0-9_-]{35}"),
        *((b"gh%c_" % kind, rb"(gh%c_)[A-Za-z0-9]{30,}" % kind) for kind in b"pousr"),
        (b"github_pat_", rb"(github_pat_)[A-Za-z0-9_]{22,}"),
        (b"xox", rb"(xox[abeoprs]-)[A-Za-z0-9-]{10,}"),
        (b"hf_", rb"(hf_)[A-Za-z0-9]{30,}"),
        (b"nvapi-", rb"(nvapi-)[A-Za-z0-9_-]{30,}"),
        (b"xai-", rb"(xai-)[A-Za-z0-9]{30,}"),
        (b"AKIA", rb"(AKIA)[A-Z0-9]{16}"),
        (
            b"eyJ",
            rb"(eyJ)[A-Za-z0-9_-]{10,}+\.eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}",
            rb"[A-Za-z0-9_-]{13,}+",
        ),
        *((b"%cearer " % b, rb"(%cearer )(?=[A-Za-z._~+/=-]*[0-9])[A-Za-z0-9._~+/=-]{16,}" % b) for b in b"Bb"),
    )
)
"""Each begins with the text without which there is none, and is part of one long word and what is before it: ``words``.
"""


class _Form(msgspec.Struct, frozen=True):
    """A way in which a given secret can stand in data, and a long word of it, if it has one."""

    text: bytes
    word: bytes


class Redactor:
    """Masks the secrets it was given, in every form they are written in, and whatever has the shape of a key.

    Args:
        secrets: provider keys, virtual keys, anything that must not be written. Also found JSON-escaped (twice too, as
            in the arguments of a tool call), URL-encoded, and inside base64.

    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= MIN_SECRET for form in _forms(secret)}
        self._harmless: set[str | None] = {None}
        long_enough = [form for form in forms if len(form) >= MIN_SECRET]
        self._forms = [_Form(form, max(long_words(form, before=0), key=len, default=b"")) for form in long_enough]
        self._longest = max(map(len, long_enough), default=0)
        in_words = [*(form.word for form in self._forms if form.word), *(shape.needle for shape in _SHAPES)]
        self._in_words = re.compile(_any_of(in_words)).search
        self._overlap = max(self._longest, _OVERLAP)
        self._in_data = [form.text for form in self._forms if not form.word]

    def bytes(self, data: Data) -> tuple[Data, int]:
        """The data with its secrets masked, and how many there were."""
        found = self.spans(data)
        return (mask(data, found), len(found)) if found else (data, 0)

    def text(self, text: str) -> tuple[str, int]:
        """The same for text. A character beyond ASCII becomes as many asterisks as it has bytes in UTF-8."""
        masked, found = self.bytes(text.encode("utf-8", "surrogatepass"))
        return masked.decode("utf-8", "surrogatepass"), found

    def are_harmless(self, texts: Sequence[str | None]) -> bool:
        """Whether short texts are ASCII without a secret. Those that come again and again are looked through once."""
        known = self._harmless
        if known.issuperset(texts):
            return True
        new = [text for text in texts if text is not None and text not in known]
        together = "\n".join(new)
        if not together.isascii() or self.spans(together.encode()):
            return False
        if len(known) > _MAX_HARMLESS:
            known = self._harmless = {None}
        known.update([text for text in new if len(text) < _SHORT])
        return True

    def has_none(self, data: Data, brief: Data) -> bool:
        """Whether there is certainly nothing to mask in either; often told in less time than ``spans`` takes.

        Args:
            data: to look through.
            brief: the data without repetitions, and whatever else is to be looked through. It is cut where no key of a
                known shape goes on: at the quotes of JSON strings, and at numbers outside of strings.

        """
        return not (self._words_of(brief) or self._stands_in(data) or self._stands_in(brief))

    def spans(self, data: Data, known: Known | None = None) -> list[Span]:
        """Where the bytes are that have to be masked: in order, and none touching the next.

        Args:
            data: to look through.
            known: what this redactor found in other data that begins and ends alike.

        """
        if known is None:
            return joined(found) if (found := self._spans(data)) else []
        start, end, elsewhere = left(data, known, self._longest)
        found = self._spans(data[start:end])
        return joined([*elsewhere, *((first + start, last + start) for first, last in found)])

    def _spans(self, data: Data) -> list[Span]:
        words = self._words_of(data)
        if not words and not self._stands_in(data):
            return []
        spans = (*_given(data, words, self._forms), *_shaped(data, words))
        return [span for span in spans if data[slice(*span)].strip(_MASK)]

    def _stands_in(self, data: Data) -> bool:
        """Whether a given secret without a long word stands in data."""
        return bool(self._in_data) and any(find(data, form) >= 0 for form in self._in_data)

    def _words_of(self, data: Data) -> Data:
        """The long words of data; none where there is certainly no secret in any of them."""
        if len(data) <= SLICE:
            words = b" ".join(long_words(data))
            return b"" if self._in_words(words) is None else words
        return b" ".join(filter(self._in_words, (b" ".join(long_words(part)) for part in slices(data, self._overlap))))


def mask(data: Data, spans: Iterable[Span]) -> Data:
    """The data with asterisks where the spans are."""
    parts: list[Data | memoryview] = []
    view, at = memoryview(data), 0
    for start, end in spans:
        parts += (view[at:start], _MASK * (end - start))
        at = end
    return b"".join([*parts, view[at:]])


class Redactors:
    """The redactors of the secrets that come again and again, so that their forms are worked out once.

    Args:
        size: how many are kept; the one that was not asked for the longest goes first.

    """

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._kept: dict[tuple[str, ...], Redactor] = {}

    def of(self, secrets: Iterable[str]) -> Redactor:
        """The redactor that knows these."""
        key = tuple(secrets)
        redactor = self._kept.pop(key, None) or Redactor(key)
        if len(self._kept) >= self._size:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = redactor
        return redactor


def fingerprint(secret: str, salt: str) -> str:
    """A name for a secret that does not give it away: ``fp:`` and 12 hex digits of HMAC-SHA-256 (RFC 2104).

    Args:
        secret: the key itself, without ``Bearer``; see ``credential``.
        salt: of the log (its ``fingerprint_salt``), so that two logs cannot be joined on it by others.

    """
    digest = hmac.digest(salt.encode(), secret.encode("utf-8", "surrogatepass"), "sha256")
    return f"fp:{digest.hex()[:12]}"


def _any_of(texts: Iterable[bytes]) -> bytes:
    """A pattern for any of these, grouped by their first bytes: a third faster than one after the other."""
    groups = groupby(sorted(texts), key=lambda text: text[:1])
    return b"|".join(
        b"%b(?:%b)" % (re.escape(first), b"|".join(re.escape(text[1:]) for text in group)) for first, group in groups
    )


def _given(data: bytes, words: bytes, forms: list[_Form]) -> Iterator[tuple[int, int]]:
    for form in forms:
        at = find(data, form.text) if form.word in words else -1
        while at >= 0:
            yield at, at + len(form.text)
            at = find(data, form.text, at + 1)


def _shaped(data: bytes, words: bytes) -> Iterator[tuple[int, int]]:
    for shape in _SHAPES:
        at = find(data, shape.needle) if shape.needle in words else -1
        while at >= 0:
            match = shape.pattern.match(data, at)
            if match is not None:
                yield match.end(1), match.end()
            over = match or shape.barren.match(data, at)
            at = find(data, shape.needle, at + 1 if over is None else over.end())


def _forms(secret: str) -> Iterator[bytes]:
    """How a secret can stand in a text."""
    plain = secret.encode("utf-8", "surrogatepass")
    yield plain
    for ascii_only in (False, True):
        once = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        twice = json.dumps(once, ensure_ascii=ascii_only)[1:-1]
        for escaped in (once, twice, once.replace("/", "\\/")):
            yield escaped.encode("utf-8", "surrogatepass")
    for quoted in (quote(plain, safe=""), quote(plain), quote_plus(plain)):
        yield quoted.encode()
        yield re.sub(r"%..", lambda match: match[0].lower(), quoted).encode()
    for shift in range(3):
        yield from _base64_core(plain, shift)


def _base64_core(secret: bytes, shift: int) -> Iterator[bytes]:
    """The digits that a secret has in base64 whatever stands around it, ``shift`` bytes into a group of three."""
    first = -(-shift * 8 // 6)
    last = (shift + len(secret)) * 8 // 6
    padded = bytes(shift) + secret + b"\0\0"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(padded)[first:last]
