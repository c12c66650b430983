"""What a running proxy counts, for Prometheus to read.

Names are those of OpenTelemetry's GenAI metrics where there is one, written as Prometheus writes them, else
``cellmeter_…``. Invariant: every label has a small, fixed set of values; no model, session, cell, key or address of a
client is among them.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cellmeter_proxy.genai import OPERATIONS, operation_name, provider_name
from cellmeter_proxy.http_message import Reply
from cellmeter_proxy.messages import Family, Sample
from cellmeter_proxy.record import Call, Dialect
from cellmeter_proxy.tallies import Counts, Distribution, Distributions

# The bounds that the conventions ask for, and three more, because agents wait for many minutes.
_DURATION_S: Final = tuple(0.01 * 2**power for power in range(17))
_FIRST_TOKEN_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(30.0, 100.0, 300.0),
)
_COMMIT_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
_TOKENS: Final = tuple(4**power for power in range(14))
_OPEN: Final = "cellmeter_open_calls"
_LEAST: Final = frozenset({"process_start_time_seconds", "process_max_fds"})
_INFO: Final = frozenset({"cellmeter_build_info"})
_KINDS: Final = tuple((kind,) for kind in ("prompt", "cache_read", "cache_write", "completion", "reasoning"))
_token_counts: Final = attrgetter(*(f"{kind}_tokens" for (kind,) in _KINDS))


class _Operation(NamedTuple):
    """What is observed of the calls of one dialect at one provider."""

    duration: Distribution
    prompt: Distribution
    completion: Distribution


class Metrics:
    """The counts of one proxy, from its start."""

    def __init__(self, version: str) -> None:
        registry = self._registry = CollectorRegistry()
        self._operations: dict[tuple[Dialect, str | None], _Operation] = {}
        ProcessCollector(registry=registry)
        Info("cellmeter_build", "The software that counts", registry=registry).info({"version": version})
        self._calls = Counts(
            registry,
            "cellmeter_calls",
            "Requests that were recorded and have ended, by outcome and by the class of the status",
            *("dialect", "outcome", "status_class"),
        )
        self._tokens = Counts(
            registry,
            "cellmeter_tokens",
            "Tokens that providers reported; prompt is all input, completion all output, the others are parts of them",
            "kind",
        )
        self._open = Gauge(_OPEN, "Requests that are being served", registry=registry)
        self._write_failures = Counter(
            "cellmeter_log_write_failures", "Requests refused because the log did not take their row", registry=registry
        )
        self._commit_wait = Distributions(
            registry, "cellmeter_commit_wait_seconds", "How long the end of an answer waited for its row", _COMMIT_S
        ).of()
        self._first_token = Distributions(
            registry,
            "cellmeter_time_to_first_token_seconds",
            "From the whole request to the first token of content, reasoning or a tool call, where it is streamed",
            _FIRST_TOKEN_S,
        ).of()
        self._durations = Distributions(
            registry,
            "gen_ai_client_operation_duration_seconds",
            "From the whole request to the end of the provider's answer",
            _DURATION_S,
            *("gen_ai_operation_name", "gen_ai_provider_name"),
        )
        self._usages = Distributions(
            registry,
            "gen_ai_client_token_usage",
            "Tokens of one call as the provider reported them",
            _TOKENS,
            *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_token_type"),
        )
        self._tokens.of.update(dict.fromkeys(_KINDS, 0))

    def watch_open_calls(self, count: Callable[[], int]) -> None:
        """Ask for the number of open calls there, whenever the counts are shown."""
        self._open.set_function(count)

    def recorded(self, call: Call, commit_wait_s: float) -> None:
        """Count a call whose closing row has been committed."""
        status_class = "none" if call.status is None else f"{call.status // 100}xx"
        self._calls.of[call.dialect, call.outcome or "none", status_class] += 1
        self._commit_wait.observe(commit_wait_s)
        if call.ttft_ms is not None:
            self._first_token.observe(call.ttft_ms / 1000)
        for kind, tokens in zip(_KINDS, _token_counts(call), strict=True):
            if tokens:
                self._tokens.of[kind] += tokens
        if call.dialect in OPERATIONS:
            self._observe_operation(call)

    def write_failed(self) -> None:
        """Count a request that was refused because it could not be recorded."""
        self._write_failures.inc()

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return text_of(self.families())

    def families(self) -> list[Family]:
        """All of them as values, without the ``_created`` series: they mean something in OpenMetrics only."""
        return [
            Family(
                name=metric.name,
                documentation=metric.documentation,
                type=metric.type,
                samples=[
                    Sample(name=sample.name, labels=dict(sample.labels), value=sample.value)
                    for sample in metric.samples
                    if not sample.name.endswith("_created")
                ],
            )
            for metric in self._registry.collect()
        ]

    def _observe_operation(self, call: Call) -> None:
        observed = self._operations.get((call.dialect, call.upstream))
        if observed is None:
            observed = self._operations[call.dialect, call.upstream] = self._operation(call)
        if call.latency_ms is not None:
            observed.duration.observe(call.latency_ms / 1000)
        if call.prompt_tokens is not None:
            observed.prompt.observe(call.prompt_tokens)
        if call.completion_tokens is not None:
            observed.completion.observe(call.completion_tokens)

    def _operation(self, call: Call) -> _Operation:
        names = (operation_name(call.dialect), provider_name(call.upstream) or "unknown")
        return _Operation(
            self._durations.of(*names), self._usages.of(*names, "input"), self._usages.of(*names, "output")
        )


def show_metrics(counts: Callable[[], Awaitable[list[Family]]]) -> Callable[[], Awaitable[Reply]]:
    """The handler of ``/_cellmeter/metrics``."""

    async def handle() -> Reply:
        return Reply(200, text_of(await counts()), CONTENT_TYPE_PLAIN_0_0_4.encode())

    return handle


def text_of(families: Iterable[Family]) -> bytes:
    """Counts in Prometheus' text format 0.0.4.

    https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
    """
    return generate_latest(_Given(families))


def together(parts: Iterable[Sequence[Family]]) -> list[Family]:
    """The counts of several processes as one: sums, but for what is a fact of each (``_LEAST``, ``_INFO``)."""
    totals: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    described: dict[str, Family] = {}
    for family in (family for part in parts for family in part):
        described[family.name] = family
        samples = totals.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, tuple(sample.labels.items()))
            before = samples.get(key)
            samples[key] = sample.value if before is None else _joined(sample.name, before, sample.value)
    return [
        replace(
            described[name],
            samples=[
                Sample(name=sample, labels=dict(labels), value=value) for (sample, labels), value in found.items()
            ],
        )
        for name, found in totals.items()
    ]


def lasting(families: Iterable[Family]) -> list[Family]:
    """Those that stay counted when the process that counted them has ended."""
    return [
        family
        for family in families
        if family.type in {"counter", "histogram"} and not family.name.startswith("process_")
    ]


def open_calls(families: Iterable[Family]) -> int:
    """How many calls are being relayed, by the counts."""
    return sum(int(sample.value) for family in families if family.name == _OPEN for sample in family.samples)


def _joined(name: str, one: float, other: float) -> float:
    if name in _LEAST:
        return min(one, other)
    return max(one, other) if name in _INFO else one + other


class _Given(Collector):
    """Counts as a registry."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.type)
            for sample in family.samples:
                metric.add_sample(sample.name, sample.labels, sample.value)
            yield metric
