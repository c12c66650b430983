"""A stream that is taken apart quickly is the same stream as one that is taken apart with care."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.sse import FrameSplitter, parse_frame, split
from cellmeter_proxy.wire.chat import Stream
from cellmeter_proxy.wire.fields import load
from cellmeter_proxy.wire.frames import read_frames
from cellmeter_proxy.wire.textchunk import TextChunk, load_chunks

TEXT = b'{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}'
PIECES = [
    b"data: " + TEXT + b"\n\n",
    b"data: [DONE]\n\n",
    b"data: {}",
    b"\n\n",
    b"\n",
    b"\r\n",
    b"\r",
    b": ping\n\n",
    b"event: x\n",
    b'data: {"a":',
    b"data: 1}\n\n",
    b"data:2\n\n",
    b"data: \n\n",
    b'data: "\xff"\n\n',
    b'data: "\\ud800"\n\n',
    b"\xef\xbb\xbf",
]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map(b"".join), st.sampled_from(["chat.completions", "unknown"]))
@example(b"data: 1\n\ndata: \n\n\ndata: 2\n\n", "unknown")
@example(b"data: 1\n2\n\ndata: 3\n\n", "unknown")
def test_every_stream_has_the_frames_that_it_has_byte_by_byte(body: bytes, dialect: Dialect) -> None:
    splitter = FrameSplitter()
    expected = [frame for start in range(len(body)) for frame in splitter.feed(body[start : start + 1])]
    expected += [splitter.rest] if splitter.pending else []
    # A CR at the very end waits for the LF that could follow it, and here nothing follows.
    assert b"".join(split(body)) == body
    parsed = read_frames(body, dialect)
    assert parsed.raw() == split(body)
    if not body.endswith(b"\r"):
        assert parsed.raw() == expected
    events = [parse_frame(frame) for frame in parsed.raw()]
    assert parsed.events == events
    plain = [None if event is None else load(event.data) for event in events]
    assert [as_dict(value) for value in parsed.values] == plain


def as_dict(value: Any) -> Any:
    """What a chunk of text was read from."""
    if not isinstance(value, TextChunk):
        return value
    (choice,) = value.choices
    delta = {"content": choice.delta.content}
    return {"id": value.id, "model": value.model, "choices": [{"index": choice.index, "delta": delta}]}


def test_a_chunk_that_is_nothing_but_text_is_read_by_its_type() -> None:
    (chunk,) = load_chunks([TEXT])
    assert isinstance(chunk, TextChunk)
    assert as_dict(chunk) == load(TEXT)


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"choices":[]}',
        b'{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}',
        b'{"choices":[{"delta":{"role":"assistant"}}]}',
        b'{"choices":[{"delta":{"content":"a","tool_calls":[{"index":0}]}}]}',
        b'{"choices":[{"delta":{"content":"a","reasoning":"b"}}]}',
        b'{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}',
        b'{"choices":[{"delta":{"content":"a"},"index":-1}]}',
        b'{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}',
        b'{"choices":[{"delta":{"content":"a"}}],"error":{}}',
        b'{"choices":[{"delta":{"content":"a"}}],"x_groq":{"usage":{}}}',
        b'{"choices":[{"delta":{"content":"a"}}],"index":0}',
        b'{"choices":[{"delta":{"content":"a"}}],"type":null}',
        b'{"choices":[{"delta":{"content":1}}]}',
        b'{"choices":[{"delta":{"content":"\\ud800"}}]}',
        b"[DONE]",
    ],
)
def test_a_chunk_that_is_more_or_less_than_text_is_read_as_it_is(chunk: bytes) -> None:
    assert load_chunks([chunk]) == [load(chunk)]


def test_a_stream_of_another_kind_is_read_as_such_after_a_few_chunks() -> None:
    odd = b'{"choices":[{"delta":{"tool_calls":[]}}]}'
    kinds = [type(value) for value in load_chunks([odd, odd, odd, TEXT, odd, odd, odd, odd, TEXT])]
    assert kinds == [dict, dict, dict, TextChunk, dict, dict, dict, dict, dict]


def test_a_chunk_of_text_tells_the_same_facts_by_either_way() -> None:
    quick, careful = Stream(), Stream()
    for body in (b"data: " + TEXT + b"\n\n", b'data: {"model":"other","choices":[{"delta":{"content":null}}]}\n\n'):
        parsed = read_frames(body, "chat.completions")
        (event,) = parsed.events
        assert event is not None
        assert isinstance(parsed.values[0], TextChunk)
        assert quick.carries_token(event, parsed.values[0]) == careful.carries_token(event, load(event.data))
        quick.add(event, parsed.values[0])
        careful.add(event, load(event.data))
    assert quick.facts(complete=True) == careful.facts(complete=True)
    assert quick.facts(complete=True).response_model == "other"
