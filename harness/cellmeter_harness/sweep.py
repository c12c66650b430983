"""A sweep: a TOML file that says which cells are to be run, and the cells that follow from it.

Invariant: the cells of a sweep and their order are a pure function of its file, its tasks and its agents.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from cellmeter_harness.agent import Agent, find_agent, with_additions
from cellmeter_harness.task import Seconds, Task, find_tasks
from cellmeter_harness.toml_file import convert_toml, read_toml, wrong
from cellmeter_proxy.absorb import On429, Patience
from cellmeter_proxy.budget import Budget
from cellmeter_proxy.errors import CellmeterError

IsolationChoice = Literal["auto", "bubblewrap", "process"]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MODEL: Final = re.compile(r"[^\s/#]+(/[^\s/#]+)*")
_KEY_HINT: Final = "put the key into an environment variable and name that variable in upstream.key_env"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET: Final = re.compile(r"\b(sk-|gsk_|AIza|ghp_|github_pat_|xai-|nvapi-|hf_|cm-)[A-Za-z0-9_-]{16,}")


class AgentChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent with what this sweep adds to its environment and its command."""

    name: str
    env: dict[str, str] = {}
    args: list[str] = []


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who answers the model calls: a provider by URL, or the built-in scripted one."""

    url: str | None = None
    key_env: str | None = None
    """The environment variable that holds the provider's key."""
    scripted: bool = False
    on_429: On429 = "observe"
    """What becomes of its 429s and failures; see ``cellmeter_proxy.absorb.On429``."""
    patience_s: Seconds | None = None
    """How long one call is tried again for under ``absorb`` and ``pace``; None is ten minutes."""

    @property
    def patience(self) -> Patience:
        return Patience() if self.patience_s is None else Patience(budget_s=self.patience_s)


class _Spending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    calls: _Count | None = None
    tokens: _Count | None = None
    """Input and output together."""
    cost_usd: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Where the price is known."""
    timeout_s: Seconds | None = None


class WholeLimits(_Spending, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on all cells together, earlier runs of the sweep included; ``timeout_s`` is of one run."""

    def budget(self) -> Budget | None:
        return _budget(Budget(calls=self.calls, tokens=self.tokens, cost_usd=self.cost_usd, seconds=self.timeout_s))


class Limits(_Spending, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on every cell. Its agent is stopped after the smaller of ``timeout_s`` and the task's own timeout."""

    sweep: WholeLimits = WholeLimits()

    def budget(self) -> Budget | None:
        """What one cell may spend; its time is the agent's."""
        return _budget(Budget(calls=self.calls, tokens=self.tokens, cost_usd=self.cost_usd))


def _budget(budget: Budget) -> Budget | None:
    return None if budget == Budget() else budget


class Grants(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What agents may do beyond asking a model."""

    provider_tools: list[str] | Literal["all"] = []
    """What the provider may run or fetch by itself: ``web_search``, ``mcp:https://example.com/*``, …"""

    @property
    def tools(self) -> list[str]:
        return ["all"] if self.provider_tools == "all" else sorted(self.provider_tools)


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a cell is tried again."""

    infrastructure: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Further attempts of a cell that failed for the infrastructure's reasons; no other cell is tried again."""


class _SweepFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    agents: Annotated[list[str | AgentChoice], msgspec.Meta(min_length=1)]
    models: Annotated[list[str], msgspec.Meta(min_length=1)]
    tasks: Annotated[list[str], msgspec.Meta(min_length=1)]
    repeats: _Count = 1
    log: str = "cellmeter.db"
    prices: str | None = None
    isolation: IsolationChoice = "auto"
    concurrency: _Count = 1
    upstream: Upstream
    limits: Limits = Limits()
    grants: Grants = Grants()
    retry: Retry = Retry()


class SweepSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep whose agents and tasks were found."""

    name: str
    agents: list[Agent]
    models: list[str]
    tasks: list[Task]
    repeats: int = 1
    log: Path
    prices: Path | None = None
    """The user's own prices; see ``cellmeter_proxy.prices.load_overrides``."""
    isolation: IsolationChoice = "auto"
    concurrency: int = 1
    upstream: Upstream
    limits: Limits = Limits()
    grants: Grants = Grants()
    retry: Retry = Retry()
    retry_failed: bool = False
    """Whether cells that are out of attempts get one more in this run: the caller's word, never the file's."""


class CellPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One cell that a sweep asks for."""

    sweep_id: str
    agent: Agent
    model: str
    task: Task
    run: int
    """From 1."""
    timeout_s: float
    budget: Budget | None = None
    """What the cell may spend besides its time."""

    @property
    def cell_id(self) -> str:
        """``<sweep>/<agent>/<model>/<category>/<task>#run<N>``"""
        return f"{self.sweep_id}/{self.agent.name}/{self.model}/{self.task.id}#run{self.run}"


class SweepDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep is, for its row in the log: enough to tell whether another file means the same cells."""

    agents: dict[str, str]
    """Digest by name."""
    tasks: dict[str, str]
    """Digest by id."""
    models: list[str]
    repeats: int
    isolation: str
    concurrency: int
    upstream: str
    """The provider's URL, or ``scripted``."""
    timeout_s: float | None
    retry_infrastructure: int
    budget: Budget | None = None
    """Of every cell."""
    granted_tools: list[str] = []
    on_429: On429 = "observe"
    patience_s: float | None = None


def load_sweep(path: Path) -> SweepSpec:
    """Read and check a sweep's file, and find its agents and tasks. Relative paths start at the file.

    Raises:
        CellmeterError: the file cannot be read or says something that is not allowed, or an agent or a task
            that it names is not there.

    """
    tables = read_toml(path)
    _refuse_secrets(tables, path, "")
    file = convert_toml(tables, _SweepFile, path)
    _check(file, path)
    base = path.absolute().parent
    agents = [_chosen(choice, base) for choice in file.agents]
    names = [agent.name for agent in agents]
    for name in names:
        if names.count(name) > 1:
            raise wrong(path, "agents", f"{name} is named twice", hint="copy its manifest under another name")
    values: dict[str, Any] = {name: getattr(file, name) for name in file.__struct_fields__}
    values |= {"agents": agents, "tasks": find_tasks(file.tasks, base=base), "log": base / Path(file.log).expanduser()}
    if file.prices is not None:
        values["prices"] = base / Path(file.prices).expanduser()
    return SweepSpec(**values)


def plan_cells(spec: SweepSpec) -> list[CellPlan]:
    """The cells of a sweep in the order in which they are run.

    Repeats are outermost, then tasks, models and agents: a sweep that was cut short holds about as many runs of
    one cell as of another, and the agents meet a task at about the same time of day.
    """
    limit = spec.limits.timeout_s
    return [
        CellPlan(
            sweep_id=spec.name,
            agent=agent,
            model=model,
            task=task,
            run=run,
            timeout_s=min(task.timeout_s, limit) if limit else task.timeout_s,
            budget=spec.limits.budget(),
        )
        for run in range(1, spec.repeats + 1)
        for task in spec.tasks
        for model in spec.models
        for agent in spec.agents
    ]


def describe(spec: SweepSpec) -> SweepDocument:
    """What a sweep is, in the form that its row in the log keeps."""
    return SweepDocument(
        agents={agent.name: agent.digest for agent in spec.agents},
        tasks={task.id: task.digest for task in spec.tasks},
        models=spec.models,
        repeats=spec.repeats,
        isolation=spec.isolation,
        concurrency=spec.concurrency,
        upstream=spec.upstream.url or "scripted",
        timeout_s=spec.limits.timeout_s,
        retry_infrastructure=spec.retry.infrastructure,
        budget=spec.limits.budget(),
        granted_tools=spec.grants.tools,
        on_429=spec.upstream.on_429,
        patience_s=spec.upstream.patience_s,
    )


def _chosen(choice: str | AgentChoice, base: Path) -> Agent:
    if isinstance(choice, str):
        return find_agent(choice, base=base)
    return with_additions(find_agent(choice.name, base=base), choice.env, choice.args)


def _check(file: _SweepFile, path: Path) -> None:
    if not _NAME.fullmatch(file.name):
        raise wrong(
            path, "name", "not made of letters, digits, '.', '_' and '-'; it is the first part of every cell's id"
        )
    for model in file.models:
        if not _MODEL.fullmatch(model):
            raise wrong(
                path, "models", f"{model!r} is not a model's name: no spaces, no '#', no empty part between '/'"
            )
    if len(set(file.models)) < len(file.models):
        raise wrong(path, "models", "one model is named twice")
    _check_upstream(file.upstream, path)


def _check_upstream(upstream: Upstream, path: Path) -> None:
    if upstream.scripted == (upstream.url is not None):
        raise wrong(path, "upstream", "needs either url or scripted = true, and not both")
    if upstream.url is not None:
        parts = urlsplit(upstream.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise wrong(path, "upstream.url", "not a URL such as https://api.example.com/v1")
        if parts.username or parts.password or parts.query:
            raise wrong(path, "upstream.url", "carries more than an address", hint=_KEY_HINT)
    if upstream.key_env is not None and not _VARIABLE.fullmatch(upstream.key_env):
        raise wrong(path, "upstream.key_env", "not the name of an environment variable", hint=_KEY_HINT)
    if upstream.patience_s is not None and upstream.on_429 == "observe":
        raise wrong(path, "upstream.patience_s", 'nothing is tried again without on_429 = "absorb" or "pace"')


def _refuse_secrets(value: Any, path: Path, key: str) -> None:
    if key in {"upstream.key", "upstream.api_key"} or (isinstance(value, str) and _SECRET.search(value)):
        raise wrong(path, key, "holds a key", hint=_KEY_HINT)
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_secrets(inner, path, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_secrets(inner, path, f"{key}[{index}]")


def spec_json(document: SweepDocument) -> bytes:
    """The document as canonical JSON: the same sweep gives the same bytes."""
    return msgspec.json.encode(document, order="sorted")


def read_document(text: str) -> SweepDocument:
    """The document of an earlier run, from its row.

    Raises:
        CellmeterError: it was not written by this program.

    """
    try:
        return msgspec.json.decode(text, type=SweepDocument)
    except msgspec.DecodeError as error:
        raise CellmeterError(f"the log's own description of the sweep cannot be read: {error}") from None
