"""The splice asks for usage and touches nothing else."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.splice import add_include_usage

ASK = {"include_usage": True}


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b'{"stream":true}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (
            b' {\n "stream" : true ,\r\n\t"n" : 1.0 \n}\n ',
            b' {\n "stream" : true ,\r\n\t"n" : 1.0,"stream_options":{"include_usage":true} \n}\n ',
        ),
        (
            b'{"stream_options":{"a":[{}]},"stream":true}',
            b'{"stream_options":{"include_usage":true,"a":[{}]},"stream":true}',
        ),
        (b'{"stream_options":{ },"stream":true}', b'{"stream_options":{"include_usage":true },"stream":true}'),
        (b'{"stream_options" : null,"stream":true}', b'{"stream_options" : {"include_usage":true},"stream":true}'),
        (
            b'{"messages":[{"content":"\\"stream_options\\":{\\"include_usage\\":true}"}],"stream":true}',
            (
                b'{"messages":[{"content":"\\"stream_options\\":{\\"include_usage\\":true}"}],"stream":true'
                b',"stream_options":{"include_usage":true}}'
            ),
        ),
        (
            b'{"x":{"stream_options":{"include_usage":true},"stream":false},"stream":true}',
            (
                b'{"x":{"stream_options":{"include_usage":true},"stream":false},"stream":true'
                b',"stream_options":{"include_usage":true}}'
            ),
        ),
        (
            b'{"stream":true,"big":123456789012345678901234567890,"e":1E+400,"k":"\xc3\xa9\\ud800","a":1,"a":2}',
            (
                b'{"stream":true,"big":123456789012345678901234567890,"e":1E+400,"k":"\xc3\xa9\\ud800","a":1,"a":2'
                b',"stream_options":{"include_usage":true}}'
            ),
        ),
        (
            b'{"stream_option\\u0073":{"b":1},"stream":true}',
            b'{"stream_option\\u0073":{"include_usage":true,"b":1},"stream":true}',
        ),
    ],
)
def test_the_field_is_put_into_the_received_bytes(body: bytes, result: bytes) -> None:
    assert add_include_usage(body) == result


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"stream":false}',
        b'{"stream":"true"}',
        b'{"stream":1}',
        b'{"x":{"stream":true}}',
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        b'{"stream":true,"stream_options":{"include_usage":false}}',
        b'{"stream":true,"stream_options":"x"}',
        b'{"stream":true,"stream_options":[]}',
        b'{"stream":true,"stream":true}',
        b'{"stream":true,"stream_options":null,"stream_options":{}}',
        b'{"stream":true}}',
        b'{"stream":true,}',
        b'{"stream":true',
        b'{"stream":true,"a":[1,]}',
        b'{"stream":true,"a":"\xff"}',
        b"{'stream':true}",
        b'{"a" 1,"stream":true}',
        b'\xef\xbb\xbf{"stream":true}',
        b'{"stream":true,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_it_is_left_alone_where_it_does_not_apply(body: bytes) -> None:
    assert add_include_usage(body) is None


KEYS = st.text(max_size=5) | st.sampled_from(["stream_option", "messages", "model", '"stream_options":', "{"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OPTIONS = st.none() | st.dictionaries(KEYS, VALUES, max_size=3)


@given(
    others=st.dictionaries(KEYS, VALUES, max_size=4),
    has_options=st.booleans(),
    options=OPTIONS,
    indent=st.sampled_from([None, 0, 2, "\t"]),
    ascii_only=st.booleans(),
    random=st.randoms(),
)
def test_any_body_means_the_same_plus_the_field(
    others: dict[str, object],
    *,
    has_options: bool,
    options: dict[str, object] | None,
    indent: int | str | None,
    ascii_only: bool,
    random: Random,
) -> None:
    members = [*others.items(), ("stream", True)]
    if has_options:
        members.append(("stream_options", options))
    random.shuffle(members)
    body = json.dumps(dict(members), indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    result = add_include_usage(body)
    assert result is not None
    expected = json.loads(body)
    expected["stream_options"] = (expected.get("stream_options") or {}) | ASK
    assert json.loads(result) == expected
    if not has_options or options is not None:
        assert body in without_span(result)


def without_span(result: bytes) -> list[bytes]:
    spans = (b',"stream_options":{"include_usage":true}', b'"include_usage":true,', b'"include_usage":true')
    places = [(span, at) for span in spans for at in range(len(result)) if result.startswith(span, at)]
    return [result[:at] + result[at + len(span) :] for span, at in places]


MEMBERS = (
    b'"stream":true',
    b'"stream" : false',
    b'"str\\u0065am":true',
    b'"stream_options":null',
    b'"stream_option\\u0073":{}',
)
OTHERS = (
    b'"a":"\xff"',
    b'"a":"\\ud800"',
    b'"a":{"stream":1}',
    b'"a": "\\"stream\\""',
    b'"\xc3\xa9":NaN',
    b'"n":-0 ',
    b" ",
    b"",
)


@given(
    st.lists(st.sampled_from(MEMBERS + OTHERS), max_size=4), st.sampled_from([b",", b" ,\n"]), st.sampled_from(OTHERS)
)
def test_however_a_name_is_written_it_counts(members: list[bytes], comma: bytes, last: bytes) -> None:
    body = b"{" + comma.join([b'"stream":true', *members, last]) + b"}" + comma.strip(b",")
    result = add_include_usage(body)
    try:
        pairs = json.JSONDecoder(object_pairs_hook=list).decode(body.decode())
    except ValueError:
        assert result is None
        return
    names = [name for name, _ in pairs]
    if names.count("stream") > 1 or names.count("stream_options") > 1:
        assert result is None
    elif "stream_options" not in names:
        within = body.rstrip()[:-1].rstrip()
        assert result == within + b',"stream_options":{"include_usage":true}' + body[len(within) :]


@given(st.binary())
def test_no_bytes_make_it_raise(body: bytes) -> None:
    add_include_usage(body)
    add_include_usage(b'{"stream":true,' + body)
