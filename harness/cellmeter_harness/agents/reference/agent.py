"""The reference agent: a small, real agent loop over chat completions.

One file, Python's standard library only, because it is copied into sandboxes that hold nothing else.
It asks the model, runs the tools that the model calls, sends the results back, and stops when the model
answers in words alone. Address and key come from ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``.

An answer without a finish reason is a broken one and is asked for again; it is never taken for the whole.
"""

import argparse
import email.utils
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSION = "1"
RUN_TIMEOUT_S = 120

SYSTEM = """You are a coding agent. You work in the current directory with the tools you are given.
Read README.md first: it says what is asked. Keep to what is asked and change nothing else.
When you have finished, answer with one short sentence and call no tool."""

REQUEST = """{task}

The current directory is the workspace; its README.md tells the task in full."""


def _tool(name: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    _tool("read_file", "Read a text file.", path="Path relative to the workspace"),
    _tool("write_file", "Write a whole text file.", path="Path relative to the workspace", content="All of the file"),
    _tool("run", "Run a shell command; answers its exit code and output.", command="The command"),
]


class AgentError(Exception):
    """The run cannot go on; the message is for the person who started it."""


@dataclass
class Answer:
    """What the model said in one call."""

    content: str = ""
    tool_calls: dict[int, dict[str, str]] = field(default_factory=dict)
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None

    def message(self) -> dict[str, Any]:
        """The answer as it goes back into the conversation."""
        calls = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for _, call in sorted(self.tool_calls.items())
        ]
        return {"role": "assistant", "content": self.content or None} | ({"tool_calls": calls} if calls else {})

    def take(self, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        """Add a streamed delta, or a whole message."""
        self.content += delta.get("content") or ""
        for position, part in enumerate(delta.get("tool_calls") or []):
            call = self.tool_calls.setdefault(part.get("index", position), {"id": "", "name": "", "arguments": ""})
            function = part.get("function") or {}
            call["id"] = part.get("id") or call["id"]
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""
        self.finish_reason = choice.get("finish_reason") or self.finish_reason


@dataclass
class Totals:
    """The agent's own count, from the usage that the provider reported."""

    prompt: int = 0
    completion: int = 0
    complete: bool = True
    """Whether every call reported usage; a sum with a hole in it is not a total."""

    def add(self, usage: dict[str, Any] | None) -> None:
        if usage is None:
            self.complete = False
            return
        self.prompt += usage["prompt_tokens"]
        self.completion += usage["completion_tokens"]

    def __str__(self) -> str:
        if not self.complete:
            return "tokens: prompt=unknown completion=unknown"
        return f"tokens: prompt={self.prompt} completion={self.completion}"


@dataclass(frozen=True)
class Model:
    """The model behind an OpenAI-compatible address."""

    base_url: str
    api_key: str
    name: str
    stream: bool
    retries: int
    timeout_s: float

    def ask(self, messages: list[dict[str, Any]]) -> Answer:
        """One answer, retried on 408, 409, 429, 5xx and broken connections."""
        reason = ""
        for retry in range(self.retries + 1):
            try:
                return self._ask_once(messages, retry)
            except urllib.error.HTTPError as error:
                reason, wait = _http_reason(error), _wait_s(error.headers, retry)
                if not (error.code in {408, 409, 429} or error.code >= 500):
                    raise AgentError(reason) from None
            except (OSError, http.client.HTTPException, BrokenAnswerError) as error:
                reason, wait = f"{type(error).__name__}: {error}", _wait_s({}, retry)
            if retry < self.retries:
                print(f"retry {retry + 1} of {self.retries} in {wait:.1f} s: {reason}", file=sys.stderr)
                time.sleep(wait)
        raise AgentError(f"the model did not answer in {self.retries + 1} tries: {reason}")

    def _ask_once(self, messages: list[dict[str, Any]], retry: int) -> Answer:
        body: dict[str, Any] = {"model": self.name, "messages": messages, "tools": TOOLS}
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {
            "Authorization": f"Bearer {self.api_key}",
            "Content-Type": "application/json",
            "User-Agent": f"cellmeter-reference-agent/{VERSION}",
            "x-stainless-retry-count": str(retry),
        }
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
            answer = _read_stream(response) if self.stream else _read_unary(response.read())
        if answer.finish_reason is None:
            raise BrokenAnswerError("the answer ended without a finish reason")
        return answer


class BrokenAnswerError(Exception):
    """The provider began an answer and did not finish it."""


def _read_unary(body: bytes) -> Answer:
    answer = Answer()
    document = _object(body)
    for choice in document.get("choices") or []:
        answer.take(choice, choice.get("message") or {})
    answer.usage = document.get("usage")
    return answer


def _read_stream(lines: Iterator[bytes]) -> Answer:
    answer = Answer()
    for line in lines:
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        chunk = _object(line[5:])
        for choice in chunk.get("choices") or []:
            answer.take(choice, choice.get("delta") or {})
        answer.usage = chunk.get("usage") or answer.usage
    return answer


def _object(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        raise BrokenAnswerError("the answer is not JSON") from None
    if not isinstance(document, dict) or document.get("error"):
        raise BrokenAnswerError(f"the provider reports an error: {document}")
    return document


def _http_reason(error: urllib.error.HTTPError) -> str:
    return f"the provider answered {error.code}: {error.read(300).decode(errors='replace')}"


def _wait_s(headers: Any, retry: int) -> float:
    """What Retry-After asks for (RFC 9110 §10.2.3: seconds or a date), up to a minute; else 0.5 s, doubling to 8 s."""
    asked = headers.get("retry-after-ms")
    if asked and asked.replace(".", "", 1).isdigit():
        return min(float(asked) / 1000, 60)
    asked = headers.get("retry-after") or ""
    if asked.replace(".", "", 1).isdigit():
        return min(float(asked), 60)
    date = email.utils.parsedate_to_datetime(asked).timestamp() if _is_date(asked) else None
    return max(0, min(date - time.time(), 60)) if date is not None else min(0.5 * 2**retry, 8)


def _is_date(text: str) -> bool:
    return email.utils.parsedate(text) is not None


def read_file(path: str) -> str:
    """A file's text."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def write_file(path: str, content: str) -> str:
    """Write a file, making the directories it needs."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content, encoding="utf-8")
    return f"wrote {len(content)} characters to {path}"


def run(command: str) -> str:
    """Run a shell command for at most two minutes; the last 20,000 characters of its output are kept."""
    # A file, not a pipe: a child that outlives the command would hold a pipe open.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(command, check=False, shell=True, stdout=output, stderr=output, timeout=RUN_TIMEOUT_S)
            verdict = f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            verdict = f"timed out after {RUN_TIMEOUT_S} s"
        output.seek(0)
        return f"{verdict}\n{output.read().decode(errors='replace')[-20_000:]}"


FUNCTIONS: dict[str, Callable[..., str]] = {"read_file": read_file, "write_file": write_file, "run": run}


def call_tool(name: str, arguments: str) -> str:
    """Run one tool; whatever goes wrong is told to the model, which may do better."""
    print(f"{name} {arguments[:200]}")
    try:
        return FUNCTIONS[name](**json.loads(arguments or "{}"))
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"


def work(model: Model, task: str, *, max_turns: int, totals: Totals) -> str:
    """The loop: ask, run the tools, ask again. Returns the model's last words."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": REQUEST.format(task=task)},
    ]
    for _ in range(max_turns):
        answer = model.ask(messages)
        totals.add(answer.usage)
        messages.append(answer.message())
        if not answer.tool_calls:
            return answer.content
        for _, call in sorted(answer.tool_calls.items()):
            result = call_tool(call["name"], call["arguments"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    raise AgentError(f"the model was not done after {max_turns} turns")


def main() -> int:
    parser = argparse.ArgumentParser(description="A small agent loop over chat completions.")
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("--base-url", default=os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--no-stream", action="store_true", help="ask for whole answers")
    parser.add_argument("--max-turns", type=int, default=30)
    parser.add_argument("--max-retries", type=int, default=5, help="per answer")
    parser.add_argument("--timeout", type=float, default=600, help="seconds without a byte")
    parser.add_argument("task", help="what to do, in a sentence")
    given = parser.parse_args()
    model = Model(
        base_url=given.base_url,
        api_key=os.environ.get("OPENAI_API_KEY", ""),
        name=given.model,
        stream=not given.no_stream,
        retries=given.max_retries,
        timeout_s=given.timeout,
    )
    totals = Totals()
    try:
        print(work(model, given.task, max_turns=given.max_turns, totals=totals))
    except AgentError as error:
        print(f"reference agent: {error}", file=sys.stderr)
        return 1
    finally:
        print(totals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
