import pytest

from cellmeter_harness.launch import Route, http_proxy, redirected, routes
from cellmeter_proxy.errors import CellmeterError

PROXIES = {"https://api.openai.com/v1": "http://127.0.0.1:1", "https://api.anthropic.com": "http://127.0.0.1:2"}


def test_a_bare_environment_leads_to_the_two_providers_themselves() -> None:
    assert routes({}) == [
        Route("OPENAI_BASE_URL", "https://api.openai.com/v1", "/v1"),
        Route("OPENAI_API_BASE", "https://api.openai.com/v1", "/v1"),
        Route("ANTHROPIC_BASE_URL", "https://api.anthropic.com", ""),
        Route("ANTHROPIC_API_BASE", "https://api.anthropic.com", ""),
    ]


def test_what_the_environment_names_is_kept_and_holds_for_its_other_name() -> None:
    found = {way.variable: way for way in routes({"OPENAI_API_BASE": "http://localhost:11434/v1/", "LLM_BASE_URL": ""})}
    assert found["OPENAI_BASE_URL"] == Route("OPENAI_BASE_URL", "http://localhost:11434/v1", "/v1")
    assert found["OPENAI_API_BASE"].upstream == "http://localhost:11434/v1"
    assert found["ANTHROPIC_BASE_URL"].upstream == "https://api.anthropic.com"
    assert "LLM_BASE_URL" not in found


def test_two_names_that_differ_keep_their_own_providers() -> None:
    found = routes({"OPENAI_BASE_URL": "https://a.example/v1", "OPENAI_API_BASE": "https://b.example/v1"})
    assert [way.upstream for way in found[:2]] == ["https://a.example/v1", "https://b.example/v1"]


@pytest.mark.parametrize(
    ("address", "suffix"),
    [
        ("https://generativelanguage.googleapis.com/v1beta/openai/", ""),
        ("https://api.deepseek.com", ""),
        ("https://api.groq.com/openai/v1", "/v1"),
    ],
)
def test_a_named_base_url_is_continued_exactly_as_the_client_would(address: str, suffix: str) -> None:
    (way, *_) = routes({"OPENAI_BASE_URL": address})
    assert (way.upstream, way.suffix) == (address.rstrip("/"), suffix)


@pytest.mark.parametrize(
    ("upstream", "openai", "anthropic"),
    [
        ("http://127.0.0.1:9000", "/v1", ""),
        ("http://127.0.0.1:9000/v1", "/v1", ""),
        ("https://api.z.ai/api/paas/v4", "", ""),
    ],
)
def test_one_upstream_serves_both_styles(upstream: str, openai: str, anthropic: str) -> None:
    found = routes({"OPENAI_BASE_URL": "https://else.example/v1", "LLM_BASE_URL": "https://x.example"}, upstream)
    assert {way.upstream for way in found} == {upstream}
    by_variable = {way.variable: way.suffix for way in found}
    assert (by_variable["OPENAI_BASE_URL"], by_variable["ANTHROPIC_BASE_URL"]) == (openai, anthropic)
    assert "LLM_BASE_URL" in by_variable


def test_a_provider_of_litellm_is_recorded_where_its_key_is_there() -> None:
    found = {way.variable: way.upstream for way in routes({"OPENROUTER_API_KEY": "k"})}
    assert found["OPENROUTER_API_BASE"] == "https://openrouter.ai/api/v1"
    assert "GROQ_API_BASE" not in found


@pytest.mark.parametrize("address", ["example.com/v1", "https://user:secret-word@example.com/v1", "file:///etc"])
def test_an_address_that_cannot_be_recorded_is_refused_by_the_name_of_its_variable(address: str) -> None:
    with pytest.raises(CellmeterError, match=r"^OPENAI_BASE_URL: ") as caught:
        routes({"OPENAI_BASE_URL": address})
    assert "secret-word" not in str(caught.value)


def test_the_command_keeps_its_keys_and_finds_its_session_in_every_address() -> None:
    environ = {"OPENAI_API_KEY": "sk-own", "PATH": "/bin"}
    given = redirected(environ, routes(environ), PROXIES, "run-1")
    assert given["OPENAI_BASE_URL"] == given["OPENAI_API_BASE"] == "http://127.0.0.1:1/s/run-1/v1"
    assert given["ANTHROPIC_BASE_URL"] == given["ANTHROPIC_API_BASE"] == "http://127.0.0.1:2/s/run-1"
    assert (given["OPENAI_API_KEY"], given["PATH"]) == ("sk-own", "/bin")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"no_proxy": "corp.example"}, "corp.example,127.0.0.1,localhost"),
        ({"NO_PROXY": "corp.example"}, "corp.example,127.0.0.1,localhost"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_loopback_never_goes_through_a_proxy_of_the_network(given: dict[str, str], expected: str) -> None:
    environment = redirected(given, routes({}), PROXIES, "s")
    assert environment["NO_PROXY"] == environment["no_proxy"] == expected


@pytest.mark.parametrize(
    ("environ", "upstream", "proxy"),
    [
        ({}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://api.openai.com/v1", "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, "https://api.openai.com/v1", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "https://api.openai.com/v1", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://127.0.0.1:8000/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".openai.com"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "openai.com"}, "https://notopenai.com", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": "socks5://proxy:1080"}, "https://api.openai.com/v1", None),
    ],
)
def test_the_recorder_reaches_the_provider_as_the_command_would_have(
    environ: dict[str, str], upstream: str, proxy: str | None
) -> None:
    assert http_proxy(environ, upstream) == proxy
