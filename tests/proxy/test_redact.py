"""No credential is left in what is written, and nothing else is changed."""

import base64
import itertools
import json
import re
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.redact import (
    Redactor,
    Redactors,
    credential,
    fingerprint,
    is_credential_header,
    redact_headers,
    redact_stream,
    redact_url,
)
from cellmeter_proxy.redact.shared import Known
from cellmeter_proxy.redact.words import long_words
from cellmeter_proxy.sse import split

SECRET = 'pk/live+"9f8e7d6c"\\é'
KEY = "sk-proj-" + "a1B2" * 8


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(json.dumps({"arguments": SECRET})),
        json.dumps(SECRET).replace("/", "\\/"),
        quote(SECRET, safe=""),
        quote_plus(SECRET).lower(),
        base64.b64encode(f"user:{SECRET}".encode()).decode(),
        base64.b64encode(f"u:{SECRET}!!".encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_given_secret_is_masked_in_every_form(form: str) -> None:
    redactor = Redactor([SECRET])
    masked, found = redactor.text(f"x {form} y")
    assert found == 1
    assert "9f8e7d6c" not in masked
    assert masked.startswith("x ")
    assert masked.endswith(" y")
    assert redactor.text(masked) == (masked, 0)
    assert len(masked.encode()) == len(f"x {form} y".encode())


@pytest.mark.parametrize(
    ("key", "masked"),
    [
        (KEY, "sk-proj-" + "*" * 32),
        ("sk-ant-api03-" + "x9" * 20, "sk-ant-" + "*" * 46),
        ("sk-" + "abc123" * 4, "sk-" + "*" * 24),
        ("cm-" + "0123456789abcdef", "cm-" + "*" * 16),
        ("gsk_" + "a1" * 26, "gsk_" + "*" * 52),
        ("AIza" + "a" * 35, "AIza" + "*" * 35),
        ("ghp_" + "a1" * 18, "ghp_" + "*" * 36),
        ("github_pat_" + "a1" * 20, "github_pat_" + "*" * 40),
        ("xoxb-" + "123-abc-" * 3, "xoxb-" + "*" * 24),
        ("hf_" + "a" * 34, "hf_" + "*" * 34),
        ("Bearer abcdefgh12345678", "Bearer " + "*" * 16),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijkl", "eyJ" + "*" * 50),
    ],
)
def test_what_has_the_shape_of_a_key_keeps_only_its_shape(key: str, masked: str) -> None:
    assert Redactor().text(f'{{"k": "{key}"}}') == (f'{{"k": "{masked}"}}', 1)


@pytest.mark.parametrize("before", ["\n", "\t", "\r\n", "é", "/", "=", '"', "\\"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_key_at_the_beginning_of_a_line_is_masked_however_json_writes_the_line(before: str, ascii_only: bool) -> None:
    once = json.dumps({"output": f"x{before}{KEY}"}, ensure_ascii=ascii_only)
    twice = json.dumps({"arguments": once}, ensure_ascii=ascii_only)
    for text in (once, twice):
        masked, found = Redactor().text(text)
        assert (masked, found) == (text.replace(KEY[8:], "*" * 32), 1)


@pytest.mark.parametrize(
    "text",
    [
        "task-force-sk-learn-things-of-long-names",
        "risk-1234567890abcdefghijklmnop",
        "sk-short",
        "Bearer of good news and of much text",
        "the token is abc",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor(["abc"]).text(text) == (text, 0)


def test_each_secret_counts_once() -> None:
    assert Redactor(["hunter22"]).bytes(b"hunter22 hunter22, " + KEY.encode())[1] == 3
    assert Redactor(["hunter22", "hunter22x"]).bytes(b"hunter22x") == (b"*********", 1)


@given(st.binary(), st.text(min_size=6))
def test_no_secret_survives_in_any_bytes(data: bytes, secret: str) -> None:
    plain = secret.encode("utf-8", "surrogatepass")
    masked, _ = Redactor([secret]).bytes(data + plain + data)
    assert plain not in masked or not plain.strip(b"*")
    assert len(masked) == 2 * len(data) + len(plain)


SHAPES = (
    rb"sk-(?:ant-|proj-|or-v1-|svcacct-)?(?=[A-Za-z_-]*[0-9])()[A-Za-z0-9_-]{20,}",
    rb"xox[abeoprs]-()[A-Za-z0-9-]{10,}",
    rb"AKIA()[A-Z0-9]{16}",
    rb"eyJ()[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    rb"[Bb]earer ()(?=[A-Za-z._~+/=-]*[0-9])[A-Za-z0-9._~+/=-]{16,}",
)
START = rb"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4}))"
PARTS = (
    *(b"sk-", b"sk-proj-", b"xoxb-", b"AKIA", b"eyJ", b".eyJ", b"Bearer ", b"bearer "),
    *(b"A", b"1", b"a1B2" * 4, b"0" * 11, b"Z9" * 8, b"-", b"_", b".", b"/", b"="),
    *(
        b" ",
        b'"',
        b"\\",
        b"\\n",
        b"\\u00e9",
        b",",
        b":",
        b"{",
        b"\xff",
        b"*",
        b"hunter22",
        b'pa"ss,wo',
        b"pa",
        b'"ss',
        b",wo",
        b'pa\\"ss,wo',
    ),
)
GIVEN = ("hunter22", 'pa"ss,wo', "AKIA1")
DATA = st.lists(st.sampled_from(PARTS), max_size=14).map(b"".join)


def as_defined(data: bytes) -> bytes:
    """The data masked by patterns that are each tried everywhere."""
    out = bytearray(data)
    patterns = [re.compile(START + shape) for shape in SHAPES]
    patterns += [re.compile(b"()" + re.escape(form)) for form in (b"hunter22", b'pa"ss,wo', b'pa\\"ss,wo')]
    for pattern in patterns:
        for match in pattern.finditer(data):
            out[match.end(1) : match.end()] = b"*" * (match.end() - match.end(1))
    return bytes(out)


@given(DATA)
@settings(max_examples=400)
def test_what_is_masked_is_what_the_shapes_define(data: bytes) -> None:
    assert Redactor(GIVEN).bytes(data)[0] == as_defined(data)


SECRETS = st.sampled_from([b"hunter22", b'pa"ss,wo', b"sk-proj-" + b"a1B2" * 5, b"Bearer " + b"a1" * 8])


@given(st.lists(SECRETS | st.sampled_from(PARTS), max_size=8).map(b"".join), DATA, st.data())
@settings(max_examples=600)
def test_what_is_known_of_other_data_that_begins_and_ends_alike_changes_nothing(
    one: bytes, middle: bytes, draw: st.DataObject
) -> None:
    redactor = Redactor(GIVEN)
    head = draw.draw(st.integers(0, len(one)))
    tail = draw.draw(st.integers(0, len(one) - head))
    other = one[:head] + middle + one[len(one) - tail :]
    for before, data in ((one, other), (other, one)):
        known = Known(redactor.spans(before), len(before), head, tail)
        assert redactor.spans(data, known) == redactor.spans(data)


def test_short_texts_that_come_again_are_looked_through_once_and_still_judged_alike() -> None:
    redactor = Redactor(["hunter22"])
    for _ in range(2):
        assert redactor.are_harmless(["POST", "/v1/models"])
        assert not redactor.are_harmless(["POST", "hunter22"])
        assert not redactor.are_harmless(["POST", "é"])
    for number in range(1000):
        assert redactor.are_harmless([f"request {number}", "x" * 1000])
    assert not redactor.are_harmless(["request 1", f"k={KEY}"])


def test_a_redactor_is_made_once_for_the_same_secrets_and_not_kept_for_ever() -> None:
    redactors = Redactors(size=2)
    first = redactors.of(["hunter22", "hunter23"])
    assert redactors.of(["other-1"]) is not first
    assert redactors.of(["hunter22", "hunter23"]) is first
    redactors.of(["other-2"])
    assert redactors.of(["hunter22", "hunter23"]) is first
    redactors.of(["other-3"])
    redactors.of(["other-4"])
    again = redactors.of(["hunter22", "hunter23"])
    assert again is not first
    assert again.text("hunter23 other-4") == ("******** other-4", 1)


@given(st.lists(st.sampled_from([b"a", b"-_", b"~+/=", b"9" * 14, b"Z" * 15, b" ", b"\xff", b".", b":"]), max_size=12))
def test_the_long_words_are_the_long_runs_of_what_keys_are_made_of(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    runs = list(re.finditer(rb"[A-Za-z0-9_.~+/=-]{15,}", data))
    assert long_words(data, before=0) == [run[0] for run in runs]
    assert long_words(data) == [data[max(run.start() - 7, 0) : run.end()] for run in runs]


def test_a_fingerprint_is_keyed_and_short() -> None:
    assert fingerprint("key", "salt") == fingerprint("key", "salt")
    assert fingerprint("key", "salt") != fingerprint("key", "other")
    assert fingerprint("key", "salt") == "fp:95a47c9b4fdb"
    assert credential("Bearer  key") == credential("basic key") == credential(" key ") == "key"


def test_headers_keep_everything_but_their_credentials() -> None:
    headers = [("Authorization", "Bearer k1"), ("X-Api-Key", "k1"), ("X-Note", f"uses {KEY}"), ("Accept", "*/*")]
    assert redact_headers(headers, "salt", Redactor()) == [
        ("Authorization", fingerprint("k1", "salt")),
        ("X-Api-Key", fingerprint("k1", "salt")),
        ("X-Note", "uses sk-proj-" + "*" * 32),
        ("Accept", "*/*"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "proxy-authorization",
        "X-API-Key",
        "api-key",
        "Cookie",
        "set-cookie",
        "x-goog-api-key",
        "x-portkey-api-key",
        "x-amz-security-token",
        "cf-aig-authorization",
        "x-vault-token",
    ],
)
def test_these_headers_are_credentials(name: str) -> None:
    assert is_credential_header(name)


@pytest.mark.parametrize(
    "name", ["accept", "x-ratelimit-remaining-tokens", "x-request-id", "x-session-id", "anthropic-version"]
)
def test_these_headers_are_not(name: str) -> None:
    assert not is_credential_header(name)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("/v1/models?key=AIzaX&alt=sse", "/v1/models?key=***&alt=sse"),
        ("https://u:p@host/x?a=1&API-KEY=5&b=#f", "https://***@host/x?a=1&API-KEY=***&b=#f"),
        ("?X-Amz-Signature=1;access_token=2&token", "?X-Amz-Signature=***;access_token=***&token"),
        ("/a?k%65y=5", "/a?k%65y=***"),
        ("/key=5/x", "/key=5/x"),
    ],
)
def test_credentials_in_a_url_are_masked(url: str, masked: str) -> None:
    assert redact_url(url) == masked


def chat(content: str, index: int = 0) -> bytes:
    delta = {"index": index, "delta": {"content": content}}
    return b"data: " + json.dumps({"id": "c1", "choices": [delta]}).encode() + b"\r\n\r\n"


def test_a_secret_spread_over_deltas_is_masked_in_each_and_the_rest_is_kept() -> None:
    body = chat(f"key: {KEY[:5]}") + b": comment\n\n" + chat(KEY[5:20]) + chat("other", 1) + chat(f'{KEY[20:]} "ü"')
    masked, found = redact_stream(body + b"data: [DONE]\n\n", "chat.completions", Redactor())
    assert found == 1
    assert masked == (
        chat("key: sk-pr")
        + b": comment\n\n"
        + chat("oj-" + "*" * 12)
        + chat("other", 1)
        + chat("*" * 20 + ' "ü"')
        + b"data: [DONE]\n\n"
    )
    assert redact_stream(masked, "chat.completions", Redactor()) == (masked, 0)


def test_texts_of_two_tool_calls_are_not_run_together() -> None:
    def call(index: int, arguments: str) -> bytes:
        tool = {"index": index, "function": {"arguments": arguments}}
        return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [tool]}}]}).encode() + b"\n\n"

    body = call(0, "hunt") + call(1, "er2-") + call(0, "er2-") + call(1, "hunt")
    masked, found = redact_stream(body, "chat.completions", Redactor(["hunter2-"]))
    assert (masked, found) == (call(0, "****") + call(1, "er2-") + call(0, "****") + call(1, "hunt"), 1)


@pytest.mark.parametrize(
    ("dialect", "frame"),
    [
        (
            "messages",
            'event: content_block_delta\ndata: {{"type":"content_block_delta","index":0,"delta":{{"text":"{}"}}}}\n\n',
        ),
        ("messages", 'data: {{"type":"content_block_delta","index":1,"delta":{{"partial_json":"{}"}}}}\n\n'),
        (
            "responses",
            'data: {{"type":"response.output_text.delta","item_id":"i","delta":"{}","sequence_number":1}}\n\n',
        ),
        ("completions", 'data: {{"choices":[{{"index":0,"text":"{}"}}]}}\n\n'),
        ("unknown", 'data: {{"delta":"{}"}}\n\n'),
    ],
)
def test_every_dialect_has_its_pieces(dialect: Dialect, frame: str) -> None:
    parts = ["a \\u0068", "unter", "2\\u00e9-", " z"]
    body = "".join(frame.format(part) for part in parts).encode()
    masked, found = redact_stream(body, dialect, Redactor(["hunter2é-"]))
    assert masked == "".join(frame.format(part) for part in ["a *", "*****", "***", " z"]).encode()
    assert found == 1


def test_data_over_several_lines_keeps_its_lines() -> None:
    body = b'data: {"choices": [\r\ndata:{"index": 0, "delta":\rdata: {"content": "hunter2-"}}]}\n\n'
    masked, found = redact_stream(body, "chat.completions", Redactor(["hunter2-"]))
    assert (masked, found) == (body.replace(b"hunter2-", b"********"), 1)


def test_a_secret_outside_the_texts_is_masked_too() -> None:
    body = b": hunter2-\ndata: not json hunter2-\n\n" + b'data: {"error":{"message":"key hunter2-"}}'
    masked, found = redact_stream(body, "chat.completions", Redactor(["hunter2-"]))
    assert (masked, found) == (body.replace(b"hunter2-", b"********"), 3)


@given(st.lists(st.integers(1, len(KEY) - 1)), st.text(), st.text())
def test_however_a_secret_is_spread_it_is_masked(cuts: list[int], before: str, after: str) -> None:
    edges = [0, *sorted(set(cuts)), len(KEY)]
    parts = [KEY[low:high] for low, high in itertools.pairwise(edges)]
    body = chat(before + " ") + b"".join(map(chat, parts)) + chat(" " + after)
    masked, found = redact_stream(body, "chat.completions", Redactor([KEY]))
    text = "".join(
        json.loads(frame.strip().removeprefix(b"data: "))["choices"][0]["delta"]["content"] for frame in split(masked)
    )
    assert text == f"{before} {'*' * len(KEY)} {after}"
    assert found == 1


def said(stream: bytes) -> str:
    frames = [json.loads(frame.strip().removeprefix(b"data: ")) for frame in split(stream)]
    return "".join(frame["choices"][0]["delta"]["content"] for frame in frames)


@given(st.lists(st.sampled_from(["hunt", "er22", "hunter22", "hunter22 hunter22", "é", "", " ", "x"]), max_size=12))
def test_however_many_secrets_are_spread_the_text_is_masked_as_it_is_in_one_piece(parts: list[str]) -> None:
    masked, found = redact_stream(b"".join(map(chat, parts)), "chat.completions", Redactor(["hunter22"]))
    assert (said(masked), found) == Redactor(["hunter22"]).text("".join(parts))


def test_a_stream_of_many_secrets_takes_no_longer_than_it_is_long() -> None:
    began = time.thread_time()
    masked, found = redact_stream((chat("hunt") + chat("er22,")) * 5000, "chat.completions", Redactor(["hunter22"]))
    assert (said(masked), found) == ("********," * 5000, 5000)
    assert time.thread_time() - began < 4


@given(st.binary())
def test_no_bytes_make_it_raise(body: bytes) -> None:
    redactor = Redactor(["secret"])
    redact_stream(body, "chat.completions", redactor)
    redact_stream(b'data: {"a":' + body + b"}\n\n", "unknown", redactor)
    assert redact_stream(b"data: " + b"[" * 3000 + b"]" * 3000, "unknown", redactor)[1] == 0
