import pytest

from cellmeter_proxy.tokens.families import OTHER, family_of


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o-2024-08-06", "openai"),
        ("openai/gpt-4.1-mini", "openai"),
        ("chatgpt-4o-latest", "openai"),
        ("gpt-4-turbo", "openai cl100k"),
        ("gpt-4", "openai cl100k"),
        ("gpt-35-turbo", "openai cl100k"),
        ("text-embedding-3-small", "openai cl100k"),
        ("gpt-5-mini", "gpt-5"),
        ("gpt-5.4", "gpt-5"),
        ("gpt-6-astra", "gpt-5"),
        ("o3-mini", "openai reasoning"),
        ("openrouter/openai/o4-mini", "openai reasoning"),
        ("o1", "o1"),
        ("openai/gpt-oss-120b", "gpt-oss"),
        ("claude-3-7-sonnet-latest", "claude"),
        ("claude-sonnet-4-5-20250929", "claude"),
        ("claude-opus-4-20250514", "claude"),
        ("anthropic/claude-opus-4.7", "claude 4.7"),
        ("claude-opus-4-8", "claude 4.7"),
        ("claude-opus-5", "claude 4.7"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama 3"),
        ("llama3.1:8b", "llama 3"),
        ("meta-llama/llama-4-scout", "llama 4"),
        ("mistralai/mistral-small-4", "mistral"),
        ("open-mixtral-8x22b", "mistral"),
        ("devstral-small", "mistral"),
        ("deepseek-v4-flash", "deepseek"),
        ("qwen/qwen3-coder", "qwen"),
        ("z-ai/glm-4.7", "glm"),
        ("", OTHER.name),
        ("gemini-2.5-pro", OTHER.name),
    ],
)
def test_a_name_tells_the_family(model: str, name: str) -> None:
    assert family_of(model).name == name
