"""What the captured log holds, written once, as types.

One struct is one row of the table it names; a field is a column, and has its name in every JSON output. Times are UTC
microseconds since the epoch (``*_at``), durations milliseconds (``*_ms``). **A number that was not measured is None,
never 0.** No behaviour here, and no import of the project: scoring reads a log without loading the relay.
"""

import os
import time
from typing import Any, Final, Literal

import msgspec

CallState = Literal["open", "closed", "interrupted"]
Via = Literal["endpoint", "intercept", "replay"]
Dialect = Literal[
    "chat.completions", "completions", "embeddings", "responses", "models", "messages", "count_tokens", "unknown"
]
Outcome = Literal[
    "ok", "http_error", "stream_error", "upstream_unreachable", "timeout", "client_gone", "rejected", "interrupted"
]
UsageSource = Literal["provider", "partial", "estimated", "none"]
FailureClass = Literal[
    "none",
    "rate_limited",
    "provider_error",
    "incompatible",
    "no_model_call",
    "agent_error",
    "agent_timeout",
    "budget_exceeded",
    "grader_error",
    "harness_error",
    "cancelled",
]
Isolation = Literal["container", "bubblewrap", "process"]
SpanKind = Literal["task_setup", "tool_call", "container", "adapter_run", "grade", "cleanup"]
PhaseName = Literal["prepare", "run", "collect", "grade", "finalize"]
Axis = Literal["pass_rate", "tokens", "latency", "blast_radius", "refusal", "integrity", "composite"]

ANONYMOUS: Final = "anonymous"
"""The session of calls that came without a name and without a key."""
UNREADABLE: Final = "unreadable"
"""The session of requests that are not HTTP."""
UNNAMED: Final = frozenset({ANONYMOUS, UNREADABLE})
"""Sessions that nobody named: they mean nothing beyond their log."""


def now_us() -> int:
    """The time now in UTC microseconds since the epoch."""
    return time.time_ns() // 1000


def new_id() -> str:
    """A fresh identifier: 32 hex digits, of which the first 12 are the time in milliseconds.

    The layout is that of UUIDv7 (RFC 9562 §5.7) without its version bits, so that identifiers sort by creation.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every row."""


class Usage(Record, frozen=True, kw_only=True):
    """Token counts of one call, normalised to the names and meanings of OpenAI's usage object.

    ``prompt_tokens`` is all input, cached input included; ``completion_tokens`` is all output,
    reasoning included. The three parts are None where the provider did not report them.
    """

    prompt_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None


class Call(Record, frozen=True, kw_only=True):
    """One request of an agent, and what became of it (table ``calls``)."""

    call_id: str
    session: str
    seq: int | None = None
    """Position within the session, from 1, without gaps; given by the log when the row is opened."""
    cell_id: str | None = None
    cell_attempt: int | None = None
    writer: str
    """The process that owns the row while it is open; see ``Log.recover``."""
    state: CallState = "open"
    via: Via = "endpoint"
    method: str = "POST"
    endpoint: str = ""
    """Path as the agent sent it, less the session prefix and less any query."""
    dialect: Dialect = "unknown"
    upstream: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    stream: bool | None = None
    body_hash: str | None = None
    """``sha256:<hex>`` of the exact bytes received from the agent."""
    request_hash: str | None = None
    """``c1:sha256:<hex>`` of the canonical JSON of the body; see ``canonical.request_hash``."""
    sent_hash: str | None = None
    """``sha256:<hex>`` of the bytes sent upstream where they differ from the ones received, else None."""
    prefix_hash: str | None = None
    """Chain over the messages, for telling a resent history from a new one."""
    message_count: int | None = None
    new_messages: int | None = None
    """Of ``message_count``, those that no earlier call of the session had sent."""
    provider_tools: list[str] | None = None
    """What the request asks the provider to run or to fetch by itself: ``web_search``, ``mcp:URL``, ``image_url:URL``.

    None where the request could not be read, or was recorded before version 4 of the log.
    """
    request_bytes: int | None = None
    response_bytes: int | None = None
    request_blob: str | None = None
    response_blob: str | None = None
    timeline_blob: str | None = None
    """Arrival offset (ms, to a tenth) and size of every chunk of the answer, as JSON pairs."""
    request_encoding: str | None = None
    response_encoding: str | None = None
    response_type: str | None = None
    redactions: int | None = None
    status: int | None = None
    outcome: Outcome | None = None
    finish_reason: str | None = None
    tool_calls: int | None = None
    prompt_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: UsageSource = "none"
    usage: str | None = None
    """The provider's usage object, verbatim JSON."""
    estimated_prompt_tokens: int | None = None
    estimated_completion_tokens: int | None = None
    estimate_method: str | None = None
    cost: float | None = None
    """US dollars."""
    price_source: str | None = None
    started_at: int
    """When the request's head had been received."""
    ended_at: int | None = None
    """When the last byte of the answer was ready for release."""
    client_gone_at: int | None = None
    latency_ms: float | None = None
    """From the whole request received to the end of the provider's answer."""
    headers_ms: float | None = None
    ttft_ms: float | None = None
    """To the first token of content, reasoning or a tool call; nothing else counts."""
    max_gap_ms: float | None = None
    frames: int | None = None
    queue_ms: float | None = None
    """How long the proxy held the call back before its first try."""
    attached_to: str | None = None
    """The call, made by the same session before and left by its client, whose answer this one was given.

    The usage stands there; this one was never sent, and has no attempts.
    """
    retry_number: int | None = None
    """The agent's own count of retries, where its SDK sends one."""
    request_id: str | None = None
    """The provider's name for the request (``x-request-id`` and its relatives)."""
    response_id: str | None = None
    user_agent: str | None = None
    client_session: str | None = None
    """A session identifier that the agent itself sent, such as ``x-session-id``."""
    error: str | None = None


class Numbers(Record, frozen=True, kw_only=True):
    """What is worked out about a closed call, after its answer: the columns of ``Call`` of the same names."""

    call_id: str
    cost: float | None = None
    price_source: str | None = None
    estimated_prompt_tokens: int | None = None
    estimated_completion_tokens: int | None = None
    estimate_method: str | None = None


class Attempt(Record, frozen=True, kw_only=True):
    """One try upstream for a call (table ``attempts``)."""

    call_id: str
    n: int
    started_at: int
    status: int | None = None
    retry_after_ms: float | None = None
    ratelimit: str | None = None
    """The rate-limit headers of the answer, as a JSON object."""
    waited_ms: float | None = None
    """How long the proxy waited before this attempt."""
    latency_ms: float | None = None
    request_id: str | None = None
    error: str | None = None


UNCOLLECTABLE: Final = "the workspace cannot be collected"
"""How the ``collect`` phase's error starts where the agent left a workspace that cannot be read."""


class Phase(Record, frozen=True, kw_only=True):
    """One step of a cell's life, with the sentence of what broke it, if anything did."""

    name: PhaseName
    started_at: int
    ended_at: int
    error: str | None = None


class Workspace(Record, frozen=True, kw_only=True):
    """What the run did to the agent's working directory. Paths are relative, ``.git`` is never listed."""

    added: list[str] = []
    removed: list[str] = []
    modified: list[str] = []
    extra_git_dir: bool = False
    """A ``.git`` stood in the workspace when the agent had finished."""


class Grade(Record, frozen=True, kw_only=True):
    """What the grader said."""

    exit_code: int | None = None
    timed_out: bool = False
    stdout_tail: str = ""
    stderr_tail: str = ""
    partial_score: float | None = None
    passed: bool = False
    """Exit code 0 in time, with every line the task requires on the grader's stdout."""
    missing: list[str] = []
    """Lines the task requires on the grader's stdout that were not there."""


class Constraint(Record, frozen=True, kw_only=True):
    """A rule of the task beside its grader, as the seed pages declare them.

    ``file-not-touched`` (``path`` is a glob), ``no-new-dependency``, ``file-pattern-required-in-diff``
    (one of ``paths`` must be among the added files).
    """

    kind: Literal["file-not-touched", "no-new-dependency", "file-pattern-required-in-diff"]
    path: str | None = None
    paths: list[str] = []


class TaskFacts(Record, frozen=True, kw_only=True):
    """What scoring needs to know of the task, copied into the log so that a log is enough."""

    language: str
    description: str
    timeout_s: float
    expected_changes: list[str] = []
    """Globs of the files that a correct solution changes."""
    expected_refusal: bool = False
    refusal_documents: list[str] = []
    constraints: list[Constraint] = []


class Reported(Record, frozen=True, kw_only=True):
    """Totals that the agent itself printed. Never a substitute for the recorded ones."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    source: str = "stdout"


class Cell(Record, frozen=True, kw_only=True):
    """One run of one cell (table ``cells``)."""

    cell_id: str
    """``<sweep>/<agent>/<model>/<category>/<task>#run<N>``"""
    attempt: int = 1
    sweep_id: str
    agent: str
    agent_version: str | None = None
    model: str
    category: str
    task: str
    run: int
    task_digest: str
    image: str | None = None
    image_digest: str | None = None
    isolation: Isolation
    expects_calls: bool = True
    """False for an agent that calls no model by design, such as the controls that do nothing or apply the solution."""
    plugin_stack: list[str] = []
    behavior_mode: str = "factory"
    started_at: int
    ended_at: int | None = None
    phases: list[Phase] = []
    exit_code: int | None = None
    """Of the agent's process; None where it never ran or was killed before it ended."""
    timed_out: bool = False
    failure_class: FailureClass | None = None
    failure_reason: str | None = None
    evidence: list[str] = []
    """The call ids that prove the failure class."""
    task_facts: TaskFacts
    workspace: Workspace | None = None
    grade: Grade | None = None
    reported: Reported | None = None
    state_files: list[str] = []
    """Globs of the agent's own state files, as its manifest declares them."""


class Sweep(Record, frozen=True, kw_only=True):
    """A sweep (table ``sweeps``)."""

    sweep_id: str
    spec: str
    spec_digest: str
    started_at: int
    software_version: str
    host: str
    """Facts of the machine, as a JSON object."""


class Span(Record, frozen=True, kw_only=True):
    """A timed step of a cell (table ``spans``)."""

    span_id: str
    parent_id: str | None = None
    cell_id: str
    cell_attempt: int
    kind: SpanKind
    name: str
    started_at: int
    duration_ms: float
    attrs: dict[str, Any] = {}
    error: str | None = None


class Artifact(Record, frozen=True, kw_only=True):
    """A named file of a cell (table ``artifacts``); the content is a blob."""

    cell_id: str
    cell_attempt: int
    name: Literal["stdout", "stderr", "diff", "grader_stdout", "grader_stderr", "recording"]
    blob: str
    size: int


class Egress(Record, frozen=True, kw_only=True):
    """A connection of a cell that was not a model call (table ``egress``)."""

    cell_id: str | None = None
    cell_attempt: int | None = None
    host: str
    port: int
    allowed: bool
    sent_bytes: int | None = None
    received_bytes: int | None = None
    at: int


class ScoreRow(Record, frozen=True, kw_only=True):
    """One axis of one cell under one methodology (table ``scores``); rows are appended, never changed."""

    cell_id: str
    cell_attempt: int
    methodology: str
    axis: Axis
    value: float | None = None
    unscored: str | None = None
    """Why there is no value; exactly one of ``value`` and ``unscored`` is None."""
    detail: dict[str, Any] = {}
    scorer_version: str
    scored_at: int


class BlobRow(Record, frozen=True, kw_only=True):
    """Content by its digest (table ``blobs``); see ``blobs.strands``. It never changes, in whatever log it stands."""

    digest: str
    """Empty where the content has another row, too, and this one is here only because its strand goes on from it."""
    size: int
    """Bytes before compression."""
    codec: Literal["zstd", "strand"] = "zstd"
    """``zstd`` for content that stands by itself in ``data``, ``strand`` for a body at a place in a strand."""
    base: str | None = None
    """Not used."""
    strand: int | None = None
    """A name that no other strand has, in any log."""
    place: int | None = None
    """Position within the strand, from 0, without gaps, and below 256."""
    data: bytes | None = None
    """The content, or what it added to its strand."""
