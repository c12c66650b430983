"""How many tokens a text is, for any text, in bounded pieces.

Invariant: ``count`` returns for every ``str``. A piece that tiktoken sees is never longer than
``MAX_PIECE`` characters, because its cost grows faster than the text on one long run, and a run of a
million blanks makes it panic (https://github.com/openai/tiktoken/pull/587).

The count equals that of the whole text wherever a piece can end at "letter or digit, blank, letter": both
encodings always split there. Text without such a place is cut blindly, at a cost of about one token in each
``MAX_PIECE`` characters.
"""

import re
from collections.abc import Iterator
from typing import Final

import tiktoken

MIN_PIECE: Final = 65_536
MAX_PIECE: Final = 131_072
MAX_CHARACTERS: Final = 8_000_000
"""Of one call; the worst text of this length costs some two seconds, English a third of one."""
_SAFE_CUT: Final = re.compile(r"(?<=[^\W_]) (?=[^\W\d_])")


def count(encoding: tiktoken.Encoding, text: str) -> int:
    """The tokens of a text as ordinary text: what looks like a special token is not one."""
    return sum(_count_piece(encoding, piece) for piece in pieces(text))


def pieces(text: str) -> Iterator[str]:
    """The text in consecutive pieces of at most ``MAX_PIECE`` characters, cut where no token can reach across."""
    start = 0
    while len(text) - start > MAX_PIECE:
        cut = _SAFE_CUT.search(text, start + MIN_PIECE, start + MAX_PIECE)
        end = cut.start() if cut else start + MAX_PIECE
        yield text[start:end]
        start = end
    yield text[start:]


def _count_piece(encoding: tiktoken.Encoding, piece: str) -> int:
    try:
        return len(encoding.encode_ordinary(piece))
    except BaseException as error:
        # Rust's panics reach Python as a BaseException of a class that cannot be imported.
        if type(error).__name__ != "PanicException" or len(piece) < 2:
            raise
    middle = len(piece) // 2
    return _count_piece(encoding, piece[:middle]) + _count_piece(encoding, piece[middle:])


class Tally:
    """Counts the texts of one call, up to a number of characters that bounds the work.

    What is beyond the bound is extrapolated from the tokens per character so far; ``extrapolated`` says so.
    """

    def __init__(self, encoding: tiktoken.Encoding, limit: int = MAX_CHARACTERS) -> None:
        self._encoding = encoding
        self._limit = limit
        self._characters = 0
        self._tokens = 0
        self.extrapolated = False

    def count(self, text: str) -> int:
        """The tokens of a text, counted or extrapolated."""
        counted = text[: self._limit - self._characters]
        tokens = count(self._encoding, counted) if counted else 0
        self._characters += len(counted)
        self._tokens += tokens
        if len(counted) < len(text):
            self.extrapolated = True
            tokens += round((len(text) - len(counted)) * self._tokens / max(1, self._characters))
        return tokens
