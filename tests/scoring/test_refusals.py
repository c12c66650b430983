import pytest

from cellmeter_scoring.refusals import shows_incompatibility
from cellmeter_scoring.testing import make_failed_call

MODEL = "vendor/small"


@pytest.mark.parametrize("status", [404, 405, 410, 415, 426])
def test_what_is_not_there_cannot_serve(status: int) -> None:
    assert shows_incompatibility(make_failed_call("a", 1, status), MODEL)


@pytest.mark.parametrize(
    "error",
    [
        # OpenAI
        "unsupported_parameter: Unsupported parameter: 'max_tokens' is not supported with this model.",
        "unsupported_value: 'temperature' does not support 0.2 with this model.",
        "unknown_parameter: Unknown parameter: 'prompt_cache_key'.",
        "invalid_request_error: Unrecognized request argument supplied: reasoning_effort",
        "model_not_found: The model `x` does not exist or you do not have access to it.",
        # Anthropic
        "invalid_request_error: thinking: this model does not support extended thinking",
        # vLLM
        'BadRequestError: "auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        # Mistral
        "extra_forbidden: Extra inputs are not permitted",
        # Gemini
        'INVALID_ARGUMENT: Invalid JSON payload received. Unknown name "store": Cannot find field.',
        # Ollama
        "registry.ollama.ai/library/x does not support tools",
    ],
)
def test_a_provider_that_names_what_it_lacks_cannot_serve(error: str) -> None:
    assert shows_incompatibility(make_failed_call("a", 1, 400, error=error), MODEL)


@pytest.mark.parametrize(
    "error",
    [
        None,
        "invalid_request_error: We could not parse the JSON body of your request.",
        "missing_required_parameter: Missing required parameter: 'messages'.",
        "invalid_type: Invalid type for 'messages': expected an array of objects, but got a string instead.",
        "context_length_exceeded: This model's maximum context length is 8192 tokens.",
        "invalid_request_error: messages.1: tool_use ids were found without tool_result blocks",
    ],
)
def test_an_error_that_names_nothing_of_the_kind_proves_nothing(error: str | None) -> None:
    assert not shows_incompatibility(make_failed_call("a", 1, 400, error=error), MODEL)


def test_a_body_that_is_no_json_proves_nothing_whatever_the_answer() -> None:
    assert not shows_incompatibility(make_failed_call("a", 1, 415, error="not supported", request_hash=None), MODEL)


@pytest.mark.parametrize(
    ("asked", "proves"),
    [(MODEL, True), ("small", True), ("openai/vendor/small", True), ("large", False), (None, False)],
)
def test_only_the_cells_own_model_proves_anything(asked: str | None, proves: bool) -> None:
    assert shows_incompatibility(make_failed_call("a", 1, 404, request_model=asked), MODEL) is proves


def test_the_proxys_refusal_proves_something_only_of_the_providers_own_tools() -> None:
    refused = make_failed_call("a", 1, 400, outcome="rejected", error="not supported", provider_tools=["web_search"])
    assert shows_incompatibility(refused, MODEL)
    assert not shows_incompatibility(make_failed_call("a", 1, 408, outcome="rejected", provider_tools=[]), MODEL)
