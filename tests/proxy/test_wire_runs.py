"""Frames that are read as a run say what they say one by one, whatever a provider sends."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cellmeter_proxy.blobs.frames import join, split_marked
from cellmeter_proxy.blobs.ints import Cursor
from cellmeter_proxy.record import Dialect
from cellmeter_proxy.redact import Redactor, redact_frames
from cellmeter_proxy.redact.words import long_words
from cellmeter_proxy.scripted.session import AgentDialect, session
from cellmeter_proxy.sse import parse_frame, split
from cellmeter_proxy.wire import StreamWatcher, chat, completions, fields, messages, responses
from cellmeter_proxy.wire.fields import load
from cellmeter_proxy.wire.frames import read_frames
from cellmeter_proxy.wire.runs import Run

WORDS = [b"w%d" % number for number in range(12)]
SECRET = "hunter-2-and-more"
REDACTOR = Redactor([SECRET, 'odd"one'])
READERS: dict[Dialect, Any] = {
    "chat.completions": chat.Stream,
    "completions": completions.Stream,
    "responses": responses.Stream,
    "messages": messages.Stream,
}
CHAT = b'{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}'
MARKED = b'data: {"p":"%b","choices":[{"delta":{"content":"\\u00000"}}]}\n\n'
FRAMES: dict[Dialect, list[bytes]] = {
    "chat.completions": [
        b"data: " + CHAT + b"\n\n",
        b'data: {"id": "c", "t": %d, "model": "m", "choices": [{"index": 0, "delta": {"content": "%b"}}]}\n\n',
        b'data: {"choices":[{"delta":{"reasoning":"%b"}}],"usage":{"prompt_tokens":3},"p":"%b"}\n\n',
        b'data: {"choices":[{"index":1,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%b"}}]}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"%b"}]}\n\n',
        b'data: {"choices":[{"index":%d,"delta":{"content":"%b"}}]}\n\n',
        b'data: {"model":"%b","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d}}\n\n',
        b'data: {"choices":[{"delta":{"content":"%b","content":"x"}}]}\n\n',
        MARKED,
        b'data: {"id":"%b","choices":[{"delta":{"content":"%b"}}]}\n\n',
        b'data: {"id":"%b","choices":[{"delta":{"content":"x"}}],"id":"%b"}\n\n',
        b'data: {"id":%d,"choices":[{"delta":{"content":"%b"}}]}\n\n',
        b'data: {"p":%d,"t":9007199254740881,"choices":[{"delta":{"content":"%b"}}]}\n\n',
    ],
    "completions": [
        b'data: {"choices":[{"text":"%b","index":0}]}\n\n',
        b'data: {"id":"%b","choices":[{"text":"%b"}]}\n\n',
    ],
    "responses": [
        b'event: a.delta\ndata: {"type":"a.delta","sequence_number":%d,"item_id":"i","delta":"%b","p":"%b"}\n\n',
        b'data: {"type":"response.output_text.delta","delta":"%b"}\n\n',
        b'event: x\ndata: {"type":"response.output_item.done","item":{"type":"function_call"},"delta":"%b"}\n\n',
        b'data: {"type":"a.delta","delta":"%b","response":{"model":"m","usage":{"input_tokens":2}}}\n\n',
    ],
    "messages": [
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"%b"}}\n\n',
        b'data: {"type":"content_block_delta","index":0,\ndata: "delta":{"partial_json":"%b"}}\n\n',
        b'data: {"type":"content_block_start","content_block":{"type":"tool_use"},"delta":{"text":"%b"}}\n\n',
    ],
}
ODD = [b": ping\n\n", b"data: [DONE]\n\n", b"data: 1 2\n\n", b"data: \n\n", b"\n", b"event: message_stop\n", b"data: {"]
TEXTS = [
    *(b"", b" word", b'\\"', b"\\\\", b"\\", b'"', b'x""y', b'x" "y', b"\xc3\xa9", b"\xff", b"\\u00e9", b"\\ud83d"),
    *(b"\x01", b"\x02", b"\n", b'","content":"y', b"content", b"c\\u006f", b"sk-abc"),
    *(b"hunter-2", b"-and-more", b'odd\\"', b"one"),
]
NUMBERS = [b"1", b"20", b"-3", b"1.5", b"01", b"1 2", b"", b"9007199254740880", b"x", b"1e999", b"\x01"]


@st.composite
def streams(draw: st.DrawFn, dialect: Dialect) -> bytes:
    """A few shapes of frames, many times each, with things in between and some that are broken."""
    parts: list[bytes] = []
    for _ in range(draw(st.integers(1, 3))):
        frame = draw(st.sampled_from(FRAMES[dialect]))
        nasty = draw(st.lists(st.sampled_from(TEXTS), max_size=2))
        numbers = draw(st.sampled_from([[], [], [b"1 2", b""], *([number] for number in NUMBERS)]))
        run: list[bytes] = []
        for number in range(draw(st.integers(7, 14))):
            text = draw(st.sampled_from([b"w%d" % number, b"w%d" % number, b"x", *nasty]))
            counted = draw(st.sampled_from([b"%d" % (number * 7)] * 4 + numbers))
            run.append(filled(frame, [text, b"pad"[: number % 4]], counted))
        for odd in draw(st.sampled_from([[], [], broken(frame), *([odd] for odd in ODD)])):
            run.insert(draw(st.integers(0, len(run))), odd)
        parts += run
    return b"".join(parts)


def broken(frame: bytes) -> list[bytes]:
    """Frames that begin and end like one, with too little between that, and with too much."""
    head, *inner, tail = re.split(rb"%[db]", frame)
    middle = inner[0] if inner else b"x"
    return [head + b"5" + tail, head + b"5" + middle + b"9" + middle + b"y" + tail, head[:-1] + tail]


def filled(frame: bytes, texts: list[bytes], number: bytes) -> bytes:
    """A frame with a number and texts in the places for them."""
    frame = frame.replace(b"%d", number)
    for text in texts:
        frame = frame.replace(b"%b", text, 1)
    return frame


def chunks(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[low:high] for low, high in pairwise(edges)]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Dialect, bytes, list[int]]:
    dialect = draw(st.sampled_from(list(READERS)))
    return dialect, draw(streams(dialect)), draw(st.lists(st.integers(0, 9999), max_size=12))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_a_stream_says_the_same_read_in_runs_and_frame_by_frame(case: tuple[Dialect, bytes, list[int]]) -> None:
    dialect, body, places = case
    watcher = StreamWatcher(dialect)
    for at, chunk in enumerate(chunks(body, places)):
        watcher.feed(chunk, float(at * at))
    reader, ends, token = READERS[dialect](), [], None
    end = 0
    for frame in split(body):
        event, end = parse_frame(frame), end + len(frame)
        if event is not None:
            ends.append(end)
            token = end if token is None and reader.carries_token(event, load(event.data)) else token
            reader.add(event, load(event.data))
    assert watcher.facts() == reader.facts(complete=watcher.facts().complete)
    assert watcher.frames == len(ends)
    came = [at for at, _ in watcher.timeline]
    total = [sum(watcher.sizes[: at + 1]) for at in range(len(watcher.sizes))]
    arrived = [next(at for at, size in zip(came, total, strict=True) if size >= end) for end in ends]
    assert watcher.max_gap_ms == max(
        (later - sooner for sooner, later in pairwise(dict.fromkeys(arrived))), default=None
    )
    assert watcher.ttft_ms == (None if token is None else arrived[ends.index(token)])


@settings(max_examples=300, deadline=None)
@given(cases())
def test_a_stream_read_in_runs_is_kept_and_masked_as_it_is_frame_by_frame(
    case: tuple[Dialect, bytes, list[int]],
) -> None:
    dialect, body, _ = case
    parsed, plain = read_frames(body, dialect), read_frames(body, "unknown")
    assert parsed.raw() == plain.raw() == split(body)
    assert redact_frames(parsed, dialect, REDACTOR) == redact_frames(plain, dialect, REDACTOR)
    # What stands before a number that is no string is none of its text: keys that begin there are looked for above.
    assert set(long_words(body, before=0)) <= set(long_words(parsed.brief, before=0))
    split_up = split_marked(parsed.marked, parsed.repeated) if parsed.repeated else None
    if split_up is not None:
        assert join(Cursor(split_up.table + split_up.texts)) == body


def counted(*numbers: bytes) -> tuple[Dialect, bytes, list[int]]:
    """Frames in a row that are counted, the first of them like this."""
    frames = [filled(FRAMES["chat.completions"][1], [b"w%d" % len(number)], number) for number in numbers]
    return "chat.completions", b"".join(frames) + counted_well(), []


def counted_well() -> bytes:
    return b"".join(filled(FRAMES["chat.completions"][1], [b"x%d" % n], b"%d" % n) for n in range(20))


@settings(max_examples=300, deadline=None)
@given(cases())
@example(
    (
        "chat.completions",
        b"".join(b"data: %b\n\n" % (CHAT % text) for text in [b"a\nb", *WORDS]),
        [],
    )
)
@example(("chat.completions", b"".join(MARKED.replace(b"%b", text) for text in WORDS), []))
@example(counted(b"1 2", b""))
@example(counted(b"01"))
@example(counted(b"-"))
@example(("chat.completions", b"".join([*broken(FRAMES["chat.completions"][1])[:2], counted_well()]), []))
def test_a_run_is_its_frames(case: tuple[Dialect, bytes, list[int]]) -> None:
    dialect, body, _ = case
    parsed, plain = read_frames(body, dialect), read_frames(body, "unknown")
    at = 0
    for event, value in zip(parsed.events, parsed.values, strict=True):
        if not isinstance(value, Run):
            assert (event, value) == (plain.events[at], plain.values[at])
            at += 1
            continue
        assert event == plain.events[at]
        ids = [fields.text(one.get("id")) for one in plain.values[at : at + len(value.pieces)]]
        assert fields.text(value.value.get("id")) == ids[-1]
        assert None not in ids or set(ids) == {None}
        for piece in value.pieces:
            value.holder[value.name] = piece
            assert [value.value[name] for name in value.value] == [
                member if name in SEEN else value.value[name] for name, member in plain.values[at].items()
            ]
            at += 1
    assert at == len(plain.values)


SEEN = {"model", "choices", "type", "delta", "item_id", "index", "usage", "response", "item", "content_block"}


def test_the_first_token_of_a_run_comes_with_its_first_piece_of_text() -> None:
    frames = [b"data: %b\n\n" % (CHAT % text) for text in (b"", b"", b"", b"d", b"e", b"", *WORDS)]
    watcher = StreamWatcher("chat.completions")
    for at, frame in enumerate(frames):
        watcher.feed(frame, float(at))
    assert isinstance(watcher.parsed.values[0], Run)
    assert watcher.ttft_ms == 3.0


@pytest.mark.parametrize("dialect", ["chat.completions", "messages", "responses"])
def test_most_frames_of_an_agents_streams_are_read_in_runs(dialect: AgentDialect) -> None:
    for turn in session(dialect, 5):
        parsed = read_frames(turn.answer, dialect)
        assert len(parsed.values) * 2 < len(parsed.sizes)


@pytest.mark.parametrize("dialect", list(READERS))
def test_ordinary_frames_are_one_run_though_they_are_counted_and_padded(dialect: Dialect) -> None:
    frame = FRAMES[dialect][1 if dialect == "chat.completions" else 0]
    body = b"".join(filled(frame, [b"w%d" % number, b"pad" * (number % 3)], b"%d" % number) for number in range(30))
    parsed = read_frames(body, dialect)
    (run,) = parsed.values
    assert isinstance(run, Run)
    assert run.pieces == [f"w{number}" for number in range(30)]
    assert run.holder[run.name] == "".join(run.pieces)
    assert len(parsed.brief) * 2 < len(body)


@pytest.mark.parametrize("dialect", ["chat.completions", "completions"])
def test_a_stream_whose_frames_each_have_an_id_of_their_own_is_one_run_with_the_last(dialect: Dialect) -> None:
    frame = next(one for one in FRAMES[dialect] if one.startswith(b'data: {"id":"%b"'))
    watcher = StreamWatcher(dialect)
    for number in range(30):
        watcher.feed(filled(frame, [b"id-%d" % number, b"w%d" % number], b""), float(number))
    (run,) = watcher.parsed.values
    assert isinstance(run, Run)
    assert run.pieces == [f"w{number}" for number in range(30)]
    assert watcher.facts().response_id == "id-29"
    watcher.feed(filled(frame, [b"", b"w30"], b""), 30.0)
    assert watcher.facts().response_id == "id-29"


def test_a_secret_that_goes_on_in_what_a_run_repeats_is_found() -> None:
    body = b"".join(b"data: %b\n\n" % (CHAT % text) for text in WORDS)
    redactor = Redactor(['w3"},"finish'])
    masked = redact_frames(read_frames(body, "chat.completions"), "chat.completions", redactor)
    assert masked == redactor.bytes(body)
    assert masked[1] == 1


def test_a_stream_with_more_runs_than_there_are_marks_is_kept_as_it_was() -> None:
    frame = b'data: {"n%m":%d,"model":"%m","choices":[{"delta":{"content":"%b"}}],"p%m":"%b"}\n\n'
    numbers = [b"%d" % number for number in range(12)]
    body = b"".join(filled(frame.replace(b"%m", model), [n, n], n) for model in (b"x", b"y", b"z") for n in numbers)
    parsed = read_frames(body, "chat.completions")
    runs = [value for value in parsed.values if isinstance(value, Run)]
    assert len(parsed.repeated) == 6 < len(runs) * 3
    taken = split_marked(parsed.marked, parsed.repeated)
    assert taken is not None
    assert join(Cursor(taken.table + taken.texts)) == body


def test_what_reasons_then_answers_then_calls_is_three_runs() -> None:
    deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
    deltas.extend({"reasoning": f"r{number}"} for number in range(20))
    deltas.extend({"content": f"c{number}"} for number in range(20))
    deltas.extend({"tool_calls": [{"index": 0, "function": {"arguments": f"a{number}"}}]} for number in range(20))
    frames = [{"id": "c", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    body = b"".join(b"data: %b\n\n" % json.dumps(frame).encode() for frame in frames)
    runs = [value for value in read_frames(body, "chat.completions").values if isinstance(value, Run)]
    assert [run.name for run in runs] == ["reasoning", "content", "arguments"]
    assert all(len(run.pieces) >= 18 for run in runs)
