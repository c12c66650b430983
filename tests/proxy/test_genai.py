import pytest

from cellmeter_proxy.genai import operation_name, provider_name


@pytest.mark.parametrize(
    ("upstream", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.anthropic.com", "anthropic"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://acme.openai.azure.com/openai", "azure.ai.openai"),
        ("https://europe-west1-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1"),
        ("https://notapi.openai.com.example.net/v1", "notapi.openai.com.example.net"),
        (None, None),
    ],
)
def test_a_provider_is_told_by_the_end_of_its_host(upstream: str | None, name: str | None) -> None:
    assert provider_name(upstream) == name


def test_a_dialect_without_a_name_in_the_conventions_keeps_its_own() -> None:
    assert operation_name("messages") == "chat"
    assert operation_name("count_tokens") == "count_tokens"
