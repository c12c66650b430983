"""What has the same meaning has the same hash, and what differs differs."""

import hashlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellmeter_proxy.canonical import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_ELEMENTS,
    NOT_JSON,
    body_hash,
    dump,
    has_negative_zero,
    parse,
    prefix_chain,
    request_hash,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def canonical(body: bytes) -> bytes | None:
    value = parse(body)
    return None if value is NOT_JSON else dump(value)


def test_the_hash_of_a_body_is_that_of_its_exact_bytes() -> None:
    assert body_hash(b'{"a": 1}') == "sha256:" + hashlib.sha256(b'{"a": 1}').hexdigest()


def test_the_hash_of_a_request_is_that_of_its_canonical_form() -> None:
    expected = "c1:sha256:" + hashlib.sha256(b'{"a":[1,"\xc3\xa9"],"b":null}').hexdigest()
    assert request_hash(b'{"b":null,"a":[1,"\xc3\xa9"]}') == expected
    assert request_hash(b' {\n"a" : [ 1 , "\\u00e9" ],\t"b":null}\r\n') == expected


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"1.0", b"1.0"),
        (b"1", b"1"),
        (b"1e0", b"1e0"),
        (b"-0", b"-0"),
        (b"1e400", b"1e400"),
        (b"9" * 5000, b"9" * 5000),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b'"\\/ \\u0008\\f\\n\\r\\t\\u001F\\u007f\\"\\\\"', b'"/ \\b\\f\\n\\r\\t\\u001f\x7f\\"\\\\"'),
        (b'"\\ud83d\\ude00"', b'"\xf0\x9f\x98\x80"'),
        (b'{"\\ud800":"\\n","a":[true,1.50,{}]}', b'{"a":[true,1.50,{}],"\xed\xa0\x80":"\\n"}'),
        ('{"\U0001f600":1,"\uffff":2,"é":3,"z":4}'.encode(), '{"z":4,"é":3,"\uffff":2,"\U0001f600":1}'.encode()),
    ],
)
def test_the_canonical_form_is_defined_for_every_json_text(body: bytes, form: bytes) -> None:
    assert canonical(body) == form


@pytest.mark.parametrize(
    "body", [b"", b"NaN", b"[Infinity]", b"{", b'"\xff"', b"\xef\xbb\xbf1", b"1 2", b'"\n"', b'{"a":1,}', b"\x00"]
)
def test_what_is_not_json_has_no_hash(body: bytes) -> None:
    assert request_hash(body) is None


def test_nesting_is_bounded_and_never_raises() -> None:
    assert request_hash(b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)) is not None
    assert request_hash(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)) is None
    assert request_hash(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is not None
    assert request_hash(b"[" * MAX_DEPTH + b"0" + b"]" * MAX_DEPTH) is None
    assert request_hash(b"[" * 200_000) is None
    assert request_hash(b"[" * 200_000 + b"]" * 200_000) is None


@given(JSON)
def test_the_form_does_not_depend_on_how_the_text_is_written(value: object) -> None:
    spread = json.dumps(value, indent=1, ensure_ascii=True).encode()
    compact = json.dumps(value, separators=(",", ":"), ensure_ascii=True, sort_keys=True).encode()
    assert canonical(spread) == canonical(compact)
    form = canonical(spread)
    assert form is not None
    assert canonical(form.decode("utf-8", "surrogatepass").encode("utf-8", "replace")) is not None
    if all(not 0xD800 <= ord(letter) <= 0xDFFF for letter in form.decode("utf-8", "surrogatepass")):
        assert canonical(form) == form
        assert json.loads(form) == value


def as_defined(body: bytes) -> bytes | None:
    """The canonical form as its definition says it, by a parser that keeps every number's literal."""

    def form(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ",".join(f"{form(key)}:{form(value[key])}" for key in sorted(value)) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(form, value)) + "]"
        if isinstance(value, bytes):
            return value.decode()
        return json.encoder.encode_basestring(value) if isinstance(value, str) else json.dumps(value)

    def refuse(text: str) -> None:
        raise ValueError(text)

    decoder = json.JSONDecoder(parse_int=str.encode, parse_float=str.encode, parse_constant=refuse)
    try:
        return form(decoder.decode(body.decode())).encode("utf-8", "surrogatepass")
    except ValueError:
        return None


WRITTEN = (
    b'[,]{}: \t"a" "\\ud800" "\\udc00" "\\n" "\n" 0 -0 -0.0 -00 -0e1 01 1. .5 1e5 1E+400 -1 -0123 1-0 true null NaN'
)
ODD = [b"9" * 30, b"-" + b"9" * 4400, b'"\xff"', b'"\xc3\xa9"', b'"-0"', b'{"b":1,"b":-0}', b"\x0c"]
PIECES = [*WRITTEN.split(b" "), *ODD, b",", b"[", b"]", b'{"k":', b"}"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
@example(b'[-0,{"a":-0}, 2024-0]')
def test_the_form_is_the_defined_one_however_the_text_is_parsed(body: bytes) -> None:
    assert canonical(body) == as_defined(body)


@given(JSON, st.booleans())
def test_the_form_of_any_value_is_the_defined_one(value: object, spread: bool) -> None:
    body = json.dumps(value, indent=1 if spread else None, ensure_ascii=spread).encode("utf-8", "surrogatepass")
    assert canonical(body) == as_defined(body)


NEAR_ZERO = st.text(alphabet="-0,:1 .").map(str.encode)


@given(NEAR_ZERO, NEAR_ZERO, NEAR_ZERO, NEAR_ZERO)
def test_a_negative_zero_is_found_between_the_ends_of_a_text_that_has_none(
    head: bytes, old: bytes, new: bytes, tail: bytes
) -> None:
    if not has_negative_zero(head + old + tail):
        body = head + new + tail
        assert has_negative_zero(body, len(head), len(head + new)) or not has_negative_zero(body)


@given(st.binary())
def test_no_bytes_make_it_raise(body: bytes) -> None:
    request_hash(body)


def test_a_chain_tells_how_much_of_a_history_is_shared() -> None:
    first = prefix_chain([{"role": "user", "content": "a"}])
    more = prefix_chain([{"content": "a", "role": "user"}, {"role": "assistant", "content": "b"}])
    other = prefix_chain([{"role": "user", "content": "x"}, {"role": "assistant", "content": "b"}])
    assert more[0] == first[0]
    assert not set(more) & set(other)
    assert prefix_chain([]) == []


def test_a_link_of_the_chain_is_a_hash_of_the_message_and_its_parent() -> None:
    chain = prefix_chain(["a", None])
    first = "c1:sha256:" + hashlib.sha256(b'{"message":"a","parent":null}').hexdigest()
    second = "c1:sha256:" + hashlib.sha256(b'{"message":null,"parent":"%b"}' % first.encode()).hexdigest()
    assert chain == [first, second]


@pytest.mark.parametrize("body", [b"[" + b"1," * (MAX_ELEMENTS + 1) + b"1]", b'"' + b"x" * MAX_BYTES + b'"'])
def test_what_would_take_seconds_to_read_is_no_request(body: bytes) -> None:
    assert request_hash(body) is None
