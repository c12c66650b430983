"""A request is read alike whether or not its session sent most of it before."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy import canonical
from cellmeter_proxy.reading import Reading, read
from cellmeter_proxy.record import Call, Dialect
from cellmeter_proxy.redact import Redactor
from cellmeter_proxy.resent import UNLIKE, Resent, Sent
from cellmeter_proxy.wire import history_of, read_request
from cellmeter_proxy.wire.history import plain_message

SECRET = "hunter22"
KEY = "sk-proj-" + "a1B2" * 8
LONG = "All work and no play. " * 800
MARK = {"cache_control": {"type": "ephemeral"}}
REDACTOR = Redactor([SECRET])
TEXTS = ("hi", f"\n{KEY}", SECRET, "é\ud800", LONG[:5000], "", '{"a": -0}')
Request = dict[str, Any]


def call(dialect: Dialect = "messages", session: str = "s") -> Call:
    return Call(call_id="c", session=session, writer="w", dialect=dialect, started_at=1)


def alone(body: bytes, dialect: Dialect, redactor: Redactor) -> Reading:
    """What each of the simple functions says of a body."""
    facts = read_request(dialect, "", body)
    return Reading(facts, canonical.request_hash(body), canonical.body_hash(body), redactor.spans(body))


def request(*texts: str) -> Request:
    return {
        "model": "m",
        "max_tokens": 1,
        "messages": [user(text) for text in (LONG, *texts)],
        "tools": [{"name": LONG}],
    }


def user(text: str) -> Request:
    return {"role": "user", "content": text}


def marked(request: Request, text: str) -> None:
    """Put a cache mark onto the last message, and take all others away."""
    messages = [plain_message(message) for message in request["messages"]]
    request["messages"] = [*messages[:-1], user(text) | MARK]


def drop(request: Request, _: str) -> None:
    del request["messages"][-2:]


def nested(depth: int) -> Any:
    """A value in so many arrays."""
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def deep(request: Request, text: str) -> None:
    """Put a message in that is as deep as a request may be, or one level deeper, or much deeper."""
    request["messages"].append(nested({"hi": 198, "": 900}.get(text, 197)))


def image(request: Request, text: str) -> None:
    part = {"type": "image_url", "image_url": {"url": f"https://example.com/{text[:3]}"}}
    request["messages"].append({"role": "user", "content": [part, {"type": "tool_result", "content": [part]}]})


def as_input(request: Request, text: str) -> None:
    request["input"] = text


STEPS: tuple[Callable[[Request, str], object], ...] = (
    lambda request, text: request["messages"].append(user(text)),
    lambda request, text: request["messages"].insert(0, user(text)),
    lambda request, text: request["messages"].append([{"type": "text", "text": text, **MARK}]),
    lambda request, text: request.update(model=text),
    lambda request, text: request.update(zero=-0.0 if text else 0, tools=[text]),
    lambda request, text: request.update(messages=text),
    lambda request, text: request.update(metadata=nested(199 if text else 200)),
    marked,
    drop,
    deep,
    image,
    as_input,
)
WRITTEN: tuple[Callable[[Request], bytes], ...] = (
    lambda request: json.dumps(request).encode(),
    lambda request: json.dumps(request, indent=1).encode(),
    lambda request: json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass"),
    lambda request: json.dumps(request).replace("0.0", "0").encode(),
    lambda request: json.dumps(request, sort_keys=True).encode()[:-1],
)


@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(TEXTS), st.sampled_from(WRITTEN)), max_size=6),
    st.sampled_from(["messages", "chat.completions", "responses", "unknown"]),
)
def test_a_request_of_a_session_is_read_as_it_is_by_itself(
    steps: list[tuple[Callable[[Request, str], object], str, Callable[[Request], bytes]]], dialect: Dialect
) -> None:
    resent, said = Resent(), request("hi")
    read(call(dialect), json.dumps(said).encode(), REDACTOR, resent)
    for step, text, write in steps:
        if isinstance(said["messages"], list) or step is as_input:
            step(said, text)
        body = write(said)
        said_of_it = read(call(dialect), body, REDACTOR, resent)
        assert said_of_it._replace(states=()) == alone(body, dialect, REDACTOR)


@pytest.mark.parametrize("size", [16383, 16384, 16385, 32768, 40000, 65536])
def test_the_hash_of_the_exact_bytes_is_right_at_every_size(size: int) -> None:
    resent, body = Resent(), b'{"messages": "%b"}' % (b"x" * (size - 17))
    for changed in (body, body, body[:-3] + b'y"}', b'{"messages": [5' + b" " * (size - 17) + b"]}", b" " * size):
        said = read(call(), changed, REDACTOR, resent)
        assert said.body_hash == canonical.body_hash(changed)
        for other in (changed, changed[:-1] + b', "more": 1}', b"", b"other", changed[:16384]):
            assert said.hash_beside(changed, other) == canonical.body_hash(other)


def test_a_negative_zero_is_not_forgotten() -> None:
    resent, body = Resent(), b'{"max_tokens": -0, "messages": ["%b"]}' % LONG.encode()
    for said in (body, body, body.replace(b"-0", b"0"), body):
        assert read(call(), said, REDACTOR, resent)._replace(states=()) == alone(said, "messages", REDACTOR)


@pytest.mark.parametrize("text", ["x", "\ud800"])
@pytest.mark.parametrize("depths", [[197, 198, 197], [198, 197], [900, 5], range(300, 1000, 7)])
def test_a_message_may_be_as_deep_as_in_a_request_that_comes_by_itself(depths: Iterable[int], text: str) -> None:
    resent, said, inner = Resent(), request("hi"), json.dumps(text).encode()
    read(call(), json.dumps(said).encode(), REDACTOR, resent)
    for depth in depths:
        body = json.dumps(said).encode().replace(b"]", b", %b%b%b]" % (b"[" * depth, inner, b"]" * depth), 1)
        assert read(call(), body, REDACTOR, resent)._replace(states=()) == alone(body, "messages", REDACTOR)


def test_what_earlier_messages_have_fetched_is_named_with_what_the_new_ones_do() -> None:
    resent, said = Resent(), request("hi")
    for number in range(4):
        image(said, f"{number}")
        said["messages"].append(user("more"))
        facts = read(call(), json.dumps(said).encode(), REDACTOR, resent).facts
        assert facts.provider_tools == [f"image_url:https://example.com/{seen}" for seen in range(number + 1)]


def test_a_history_of_very_many_messages_is_read_too() -> None:
    resent = Resent()
    for number in (10_000, 10_001, 10_002):
        body = b'{"messages": [%b]}' % b",".join([b"1"] * number)
        assert read(call(), body, REDACTOR, resent)._replace(states=()) == alone(body, "messages", REDACTOR)
        history = resent.like("s", body).sent.history
        assert (history is None) == (number > 10_000)


def test_what_one_client_sent_is_looked_through_again_for_the_secrets_of_another() -> None:
    resent, body = Resent(), json.dumps(request("the word is swordfish")).encode()
    assert read(call(), body, REDACTOR, resent).spans == []
    (span,) = read(call(), body, Redactor(["swordfish"]), resent).spans
    assert body[slice(*span)] == b"swordfish"


def test_a_secret_that_is_resent_is_masked_each_time() -> None:
    resent, said = Resent(), request(f"my key is {KEY}")
    for turn in range(3):
        body = json.dumps(said).encode()
        assert [body[slice(*span)] for span in read(call(), body, REDACTOR, resent).spans] == [KEY[8:].encode()] * (
            turn + 1
        )
        said["messages"].append(user(KEY))


def test_each_of_some_conversations_of_a_session_is_remembered() -> None:
    resent = Resent()
    bodies = [json.dumps(request(f"conversation {number} " * 40)).encode() for number in range(4)]
    for body in bodies:
        read(call(), body, REDACTOR, resent)
    for body in bodies:
        longer = body[:-1] + b', "n": 1}'
        found = resent.like("s", longer)
        assert (found.sent.body, found.head, found.tail) == (body, len(body) - 1, 1)
        assert resent.like("other", longer).sent.body == b""


def test_a_request_that_goes_on_from_another_takes_its_place() -> None:
    resent, said = Resent(), request()
    for _ in range(9):
        said["messages"].append(user("more"))
        read(call(), msgspec.json.encode(said), REDACTOR, resent)
    shorter = msgspec.json.encode({**said, "messages": said["messages"][:3]})
    assert resent.like("s", shorter).sent.body == msgspec.json.encode(said)


def test_what_is_remembered_is_bounded() -> None:
    resent = Resent(max_bytes=1000)
    for number in range(100):
        resent.keep(str(number % 7), Sent(b"%d" % number * 60, [], REDACTOR), UNLIKE)
    kept = [number for number in range(100) if resent.like(str(number % 7), b"%d" % number * 60).head]
    assert kept[-1] == 99
    assert sum(len(b"%d" % number * 60) for number in kept) <= 1000
    resent.keep("0", Sent(b"x" * 1001, [], REDACTOR), UNLIKE)
    assert resent.like("0", b"x" * 1001).head == 0


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=4), st.text(), st.lists(st.text()))
def test_an_object_is_what_stands_around_an_array_of_it_and_the_elements(
    value: dict[str, Any], name: str, elements: list[str]
) -> None:
    head, tail = canonical.around(value | {name: elements}, name)
    assert head + b",".join(map(canonical.dump, elements)) + tail == canonical.dump(value | {name: elements})


def test_a_history_is_a_list_of_messages_or_none() -> None:
    assert history_of("messages", {"messages": [1]}) == [1]
    assert history_of("responses", {"input": "x"}) == ["x"]
    assert history_of("messages", [1]) is None
    assert history_of("embeddings", {"messages": [1]}) is None
