"""Event streams taken apart and put together again."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.blobs.frames import join, split
from cellmeter_proxy.blobs.ints import Cursor, column
from cellmeter_proxy.scripted.session import AgentDialect, session

BETWEEN = b'"}}]}\n\ndata: {"id":"x","choices":[{"delta":{"content":"'
WORDS = [b"Hel", b"lo", b" wor", b"ld", b"!", b" How", b" are", b" you"]
STREAM = b'data: {"id":"x","choices":[{"delta":{"content":"' + BETWEEN.join(WORDS) + b'"}}]}\n\ndata: [DONE]\n\n'


def put_together(content: bytes) -> bytes | None:
    """What comes of a stream that was taken apart; None where it was not."""
    found = split(content)
    return None if found is None else join(Cursor(found.table + found.texts))


def test_what_stands_between_the_texts_is_kept_once_and_the_text_is_in_one_piece() -> None:
    found = split(STREAM)
    assert found is not None
    first, last = STREAM.split(BETWEEN)[0], STREAM.split(BETWEEN)[-1]
    middle = WORDS[1:-1]
    assert found.texts == first + b"".join(middle) + last
    sizes = [len(piece) for piece in (first, *middle, last)]
    assert found.table == b"\x01" + bytes([len(BETWEEN)]) + BETWEEN + b"\x07" + b"\x01" * 7 + column(sizes)
    assert put_together(STREAM) == STREAM


@pytest.mark.parametrize("dialect", ["chat.completions", "messages", "responses"])
def test_the_streams_of_agents_are_put_together_as_they_were(dialect: AgentDialect) -> None:
    for turn in session(dialect, 5):
        assert put_together(turn.answer) == turn.answer
        found = split(turn.answer)
        assert found is not None
        assert len(found.table + found.texts) * 2 < len(turn.answer)


def test_numbers_that_count_frames_and_padding_do_not_keep_texts_apart() -> None:
    stream = b"".join(
        b'data: {"n":%d,"id":"item_1","delta":"%b","logprobs":[],"obfuscation":"%b"}\n\n' % (at, word, b"x" * (at % 7))
        for at, word in enumerate(WORDS * 4)
    )
    found = split(stream)
    assert found is not None
    assert b"lo wor" in found.texts
    assert put_together(stream) == stream


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(STREAM.replace(b"\n\n", b"\r\n\r\n"), id="lines that end in two characters"),
        pytest.param(b": keep alive\n\n" * 9 + STREAM, id="comments before"),
        pytest.param(STREAM[:-20], id="broken off"),
        pytest.param(STREAM + STREAM[: len(STREAM) // 2].replace(b"content", b"thought"), id="two kinds of frames"),
        pytest.param(STREAM.replace(b"lo", "\N{SNOWMAN}\\u2603\\n".encode()), id="escapes"),
        pytest.param(STREAM.replace(b" wor", b"\xff\xfe"), id="no UTF-8"),
    ],
)
def test_an_unusual_stream_is_put_together_as_it_was(stream: bytes) -> None:
    assert put_together(stream) == stream


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"data: 1\n\n", b"data: a\n\ndata: b\n\n", STREAM.replace(b"lo", b"\x01"), b"x" + STREAM]
)
def test_what_does_not_look_like_a_stream_of_frames_is_left_alone(content: bytes) -> None:
    assert split(content) is None


@given(
    st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n"]),
    st.lists(st.tuples(st.sampled_from([b"data: ", b"event: e\ndata: ", b":"]), st.text('ab1"\\,:{}\n\r', max_size=9))),
    st.sampled_from([b'{"id":"0123456789","d":"', b'{"k":12,"id":"0123456789","delta":"', b""]),
)
def test_any_stream_is_put_together_as_it_was(end: bytes, frames: list[tuple[bytes, str]], head: bytes) -> None:
    content = b"".join(field + head + text.encode() + b'"}' + end for field, text in frames)
    assert put_together(content) in {None, content}


@given(st.binary(max_size=200))
def test_bytes_that_are_no_split_are_refused_or_read_without_harm(data: bytes) -> None:
    with suppress(ValueError):
        join(Cursor(data))
