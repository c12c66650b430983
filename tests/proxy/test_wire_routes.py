"""The dialect of a path, whatever a provider puts before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellmeter_proxy.record import Dialect
from cellmeter_proxy.wire import dialect_of


@pytest.mark.parametrize(
    ("method", "path", "dialect"),
    [
        ("POST", "/v1/chat/completions", "chat.completions"),
        ("post", "/chat/completions/", "chat.completions"),
        ("POST", "/openai/v1/chat/completions?x=/embeddings", "chat.completions"),
        ("POST", "/v1beta/openai/chat/completions", "chat.completions"),
        ("POST", "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", "chat.completions"),
        ("POST", "/api/v1/completions", "completions"),
        ("POST", "/openai/deployments/x/completions", "completions"),
        ("POST", "/v1/embeddings", "embeddings"),
        ("POST", "/v1/responses", "responses"),
        ("POST", "/v1/messages?beta=true", "messages"),
        ("POST", "/anthropic/v1/messages", "messages"),
        ("POST", "/v1/messages/count_tokens", "count_tokens"),
        ("POST", "/v1/chat/%63ompletions", "chat.completions"),
        ("POST", "/v1/chat%2Fcompletions", "chat.completions"),
        ("POST", "//v1//chat//completions//", "chat.completions"),
        ("POST", "/v1/./chat/x/../completions", "chat.completions"),
        ("POST", "/v1/chat/x/%2E%2E/completions", "chat.completions"),
        ("POST", "/v1/threads/../messages", "messages"),
        ("POST", "/../../v1/embeddings", "embeddings"),
        ("GET", "/v1/models", "models"),
        ("GET", "/api/v1/models/mistralai/mistral-small", "models"),
        ("HEAD", "/models", "models"),
        ("GET", "/v1/chat/completions", "unknown"),
        ("GET", "/v1/responses/resp_1", "unknown"),
        ("POST", "/v1/responses/resp_1/cancel", "unknown"),
        ("POST", "/v1/threads/thread_1/messages", "unknown"),
        ("POST", "/v1beta/models/gemini:generateContent", "unknown"),
        ("POST", "/count_tokens", "unknown"),
        ("GET", "/", "unknown"),
        ("HEAD", "/", "unknown"),
        ("POST", "", "unknown"),
    ],
)
def test_a_path_has_the_dialect_of_its_end(method: str, path: str, dialect: Dialect) -> None:
    assert dialect_of(method, path) == dialect


@given(st.text(), st.text())
def test_no_path_makes_it_raise(method: str, path: str) -> None:
    dialect_of(method, path)
