"""What is stored of an answer can be read back, also where its recipe was found on the way."""

import gzip

import msgspec
import pytest

from cellmeter_proxy.blobs.recipe import Place, read_recipe
from cellmeter_proxy.log import digest_of
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.stored import stored
from cellmeter_proxy.watch import watch

SECRET = "hunter-2-and-more"
EVENTS = {"content-type": "text/event-stream"}


def stream(text: str) -> bytes:
    frame = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    return b"".join(frame % text[at : at + 4].encode() for at in range(0, len(text), 4)) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize(
    "text", ["some words of an answer that takes a while", f"some words, and then {SECRET} and more"]
)
def test_a_stream_is_stored_as_it_came_unless_something_in_it_is_masked(encoding: str, text: str) -> None:
    body = stream(text)
    sent = gzip.compress(body) if encoding == "gzip" else body
    watcher = watch("chat.completions", {**EVENTS, "content-encoding": encoding})
    watcher.feed(sent, 12.34)
    watcher.finish()
    content = stored(watcher, "chat.completions", Redactor([SECRET]))
    masked = SECRET in text
    assert content.masked == masked
    assert content.body.data == (stream(text.replace(SECRET, "*" * len(SECRET))) if masked else sent)
    assert content.body.digest == digest_of(content.body.data)
    # The recipe is that of the frames as they were read: of no other bytes.
    assert (content.body.recipe is not None) == (content.body.data == body)
    if content.body.recipe is not None:
        assert read_recipe(Place(1, 0), content.body.recipe) == body


def test_the_timeline_of_a_stream_is_kept_with_its_recipe() -> None:
    watcher = watch("chat.completions", EVENTS)
    for at, size in ((0.0, 5), (20.04, 300), (20.05, 1)):
        watcher.feed(b"x" * size, at)
    timeline = stored(watcher, "chat.completions", Redactor()).timeline
    assert timeline is not None
    assert timeline.digest == digest_of(timeline.data)
    assert msgspec.json.decode(timeline.data) == [[0.0, 5], [20.0, 300], [20.1, 1]]
    assert timeline.recipe is not None
    assert read_recipe(Place(1, 0), timeline.recipe) == timeline.data


def test_an_answer_in_one_piece_has_no_timeline() -> None:
    watcher = watch("chat.completions", {"content-type": "application/json"})
    watcher.feed(b'{"choices":[]}', 1.0)
    content = stored(watcher, "chat.completions", Redactor())
    assert (content.body.data, content.body.recipe, content.timeline) == (b'{"choices":[]}', None, None)
