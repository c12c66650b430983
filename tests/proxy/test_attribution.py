"""Whose call a request is, decided from its path and headers alone."""

from functools import partial

import pytest
from multidict import CIMultiDict
from yarl import URL

from cellmeter_proxy.attribution import (
    Admission,
    Refusal,
    Upstream,
    admit,
    client_session,
    presented_key,
    session_of,
    split_session,
)
from cellmeter_proxy.keys import CellRef, KeyRing

UPSTREAM = Upstream(URL("https://api.example.com/v1"))


def decide(
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    *,
    keys: KeyRing | None = None,
    cells_only: bool = False,
    upstream: Upstream = UPSTREAM,
) -> Admission | Refusal:
    return admit(
        *split_session(path),
        presented_key(CIMultiDict(headers or {})),
        keys=keys or KeyRing(),
        cells_only=cells_only,
        upstream=upstream,
        session_of=partial(session_of, salt="salt"),
    )


@pytest.mark.parametrize(
    ("base", "path", "query", "target"),
    [
        ("https://h/v1", "/v1/chat/completions", "", "/v1/chat/completions"),
        ("https://h/openai/v1", "/v1/chat/completions", "", "/openai/v1/chat/completions"),
        ("https://h", "/v1/messages", "beta=true", "/v1/messages?beta=true"),
        ("https://h/v1", "/chat/completions", "", "/v1/chat/completions"),
        ("http://h:8080/v1", "/v1", "", "/v1"),
        ("https://h/v1", "/v1beta/x", "", "/v1/v1beta/x"),
        ("https://h", "/a%2Fb/%20", "q=%2F+", "/a%2Fb/%20?q=%2F+"),
    ],
)
def test_a_path_is_put_onto_the_base_with_one_version_and_no_byte_changed(
    base: str, path: str, query: str, target: str
) -> None:
    assert Upstream(URL(base)).target(path, query) == target


@pytest.mark.parametrize(
    ("path", "session", "rest"),
    [
        ("/s/mine/v1/chat/completions", "mine", "/v1/chat/completions"),
        ("/s/mine", "mine", "/"),
        ("/s//v1", None, "/s//v1"),
        ("/s/a b/v1", None, "/s/a b/v1"),
        ("/v1/s/x", None, "/v1/s/x"),
        ("/s/a%20b/v1", "a b", "/v1"),
        ("/s/%00/v1", None, "/s/%00/v1"),
        ("/s/" + "%41" * 129 + "/v1", None, "/s/" + "%41" * 129 + "/v1"),
    ],
)
def test_a_session_is_named_by_the_path(path: str, session: str | None, rest: str) -> None:
    assert split_session(path) == (session, rest)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Authorization": "Bearer sk-1"}, "sk-1"),
        ({"authorization": "bearer sk-1"}, "sk-1"),
        ({"X-Api-Key": "sk-2"}, "sk-2"),
        ({"api-key": "sk-3"}, "sk-3"),
        ({"Authorization": "Basic abc"}, None),
        ({}, None),
    ],
)
def test_the_key_is_found_in_whichever_header_carries_it(headers: dict[str, str], key: str | None) -> None:
    assert presented_key(CIMultiDict(headers)) == key


def test_a_clients_own_key_names_its_session_by_a_fingerprint_and_is_forwarded() -> None:
    admission = decide(headers={"Authorization": "Bearer sk-very-secret"})
    assert isinstance(admission, Admission)
    assert admission.session.startswith("fp:")
    assert "secret" not in admission.session
    assert admission.upstream_key is None
    assert admission.cell is None


def test_a_request_without_a_key_is_anonymous() -> None:
    assert decide().session == "anonymous"


def test_a_virtual_key_names_its_cell_and_is_replaced_by_the_providers() -> None:
    keys = KeyRing()
    key = keys.issue("sweep/agent/m/c/t#run1", 2)
    admission = decide(
        headers={"x-api-key": key}, keys=keys, cells_only=True, upstream=Upstream(URL("https://h/v1"), "sk-real")
    )
    assert isinstance(admission, Admission)
    assert admission.cell == CellRef("sweep/agent/m/c/t#run1", 2)
    assert admission.session == "sweep/agent/m/c/t#run1@2"
    assert admission.upstream_key == "sk-real"


def test_a_revoked_key_is_refused_inside_a_sweep_and_outside() -> None:
    keys = KeyRing()
    key = keys.issue("c")
    keys.revoke(key)
    for cells_only in (True, False):
        assert isinstance(decide(headers={"Authorization": f"Bearer {key}"}, keys=keys, cells_only=cells_only), Refusal)


def test_in_a_sweep_a_foreign_key_and_none_at_all_are_refused() -> None:
    assert isinstance(decide(headers={"Authorization": "Bearer sk-1"}, cells_only=True), Refusal)
    assert isinstance(decide("/s/named/v1/models", cells_only=True), Refusal)


def test_an_agents_own_session_header_is_kept_beside() -> None:
    assert client_session(CIMultiDict({"X-Claude-Code-Session-Id": "abc"})) == "abc"
    assert client_session(CIMultiDict()) is None
