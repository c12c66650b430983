"""The quick reading of a stream's texts finds what the thorough one finds, or says that it cannot."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.redact import Redactor, redact_stream
from cellmeter_proxy.redact.pieces import plain_texts
from cellmeter_proxy.redact.streams import _ANY_PIECE, _PIECES, _texts
from cellmeter_proxy.sse import split
from cellmeter_proxy.wire.frames import read_frames

DIALECTS: list[Dialect] = ["chat.completions", "completions", "responses", "messages", "unknown"]
NAMES = st.sampled_from(["content", "text", "delta", "arguments", "index", "type", "choices", "item_id", "x"])
VALUES = st.recursive(
    st.none() | st.integers(0, 2) | st.sampled_from(["a", "content", 'q"', "é", "\\", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def chat(**delta: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta}]}


def written(*values: object, compact: bool = True) -> bytes:
    separators = (",", ":") if compact else (" , ", " : ")
    return b"".join(b"data: %b\n\n" % json.dumps(value, separators=separators).encode() for value in values)


def thorough(body: bytes, names: frozenset[str]) -> list[str]:
    return sorted("".join(piece.text for piece in pieces) for pieces in _texts(split(body), names).values())


CHUNKS = st.builds(
    lambda text, index: {"choices": [{"index": index, "delta": {"content": text}}]}, st.text(), st.just(1)
)


@given(st.lists(VALUES | CHUNKS, max_size=4), st.sampled_from(DIALECTS), st.booleans())
def test_what_the_quick_reading_gives_is_what_the_thorough_one_gives(
    values: list[object], dialect: Dialect, compact: bool
) -> None:
    body = written(*values, compact=compact)
    names = _PIECES.get(dialect, _ANY_PIECE)
    texts = plain_texts(read_frames(body, dialect), names)
    if texts is not None:
        assert sorted(texts) == thorough(body, names)


@pytest.mark.parametrize("compact", [True, False])
def test_an_ordinary_stream_is_read_quickly(compact: bool) -> None:
    call = {"index": 0, "function": {"arguments": '{"content":'}}
    chunks = [chat(role="assistant", content=""), chat(content='say "content"'), chat(content="\n", tool_calls=[call])]
    body = written(*chunks, compact=compact)
    names = _PIECES["chat.completions"]
    texts = plain_texts(read_frames(body + b"data: [DONE]\n\n", "chat.completions"), names)
    assert texts is not None
    assert sorted(filter(None, texts)) == ['say "content"\n', '{"content":']
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    texts = plain_texts(read_frames(written(start, text, compact=compact), "messages"), _PIECES["messages"])
    # With a space behind it, the "text" that names a type is taken for a member's name, to be on the safe side.
    assert texts == (["", "hello"] if compact else None)


@pytest.mark.parametrize(
    "hidden",
    [
        b'data: {"choices":[{"index":0,"delta":{"c\\u006fntent":"hunter"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"hunter","content":"x"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"hunter\t"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"hunter\xff"}}]}\n\n',
        b"data: [" * 1200 + b'{"content":"hunter"}' + b"]" * 1200 + b"\n\n",
    ],
    ids=["an escaped name", "a name twice", "a control character", "no UTF-8", "too deep"],
)
def test_where_a_text_could_hide_the_quick_reading_gives_up(hidden: bytes) -> None:
    body = hidden + written(chat(content="22"))
    assert plain_texts(read_frames(body, "chat.completions"), _PIECES["chat.completions"]) is None


def test_a_secret_behind_an_escaped_name_is_masked_all_the_same() -> None:
    hidden = b'data: {"choices":[{"index":0,"delta":{"c\\u006fntent":"hunt"}}]}\n\n'
    rest = written(chat(content="er22"))
    masked, found = redact_stream(hidden + rest, "chat.completions", Redactor(["hunter22"]))
    assert found == 1
    assert masked == hidden.replace(b"hunt", b"****") + rest.replace(b"er22", b"****")
