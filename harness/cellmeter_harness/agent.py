"""An agent: a manifest that says how a program is started, where it is, and what it reports.

Invariant: an ``Agent`` that exists can be expanded. Every placeholder of its command and environment
is known, its patterns compile, and its own files are there.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

import msgspec

from cellmeter_harness.toml_file import convert_toml, read_toml, wrong
from cellmeter_harness.workspace import content_digest
from cellmeter_proxy.errors import CellmeterError
from cellmeter_proxy.log import digest_of
from cellmeter_proxy.record import Dialect, Reported

PLACEHOLDERS: Final = frozenset(
    {"prompt", "model", "base_url", "api_root", "api_key", "workspace", "home", "python", "agent_dir"}
)
"""What a command, an environment and files may name in braces, beside the agent's own ``[programs]``."""

_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_-]*)\}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SCALE: Final = {"k": 1_000, "M": 1_000_000}


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program that the agent needs, and how it is found: by an environment variable, else on PATH."""

    path: str
    env: str | None = None
    hint: str | None = None


class ReportedTotals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an agent prints its own token totals."""

    stream: Literal["stdout", "stderr"] = "stdout"
    pattern: str
    """A regular expression with the groups ``prompt`` and ``completion``.

    For agents that print parts, as cached input apart from the rest: further groups whose names begin with
    ``prompt_`` or ``completion_`` are added.
    """
    combine: Literal["sum", "last"] = "last"

    def read(self, text: str) -> Reported | None:
        """The totals that the agent printed, or None where it printed none.

        ``1.3k`` is 1,300 and ``2M`` is 2,000,000, as agents round them.
        """
        matches = list(re.finditer(self.pattern, text))
        if not matches:
            return None
        counted = matches if self.combine == "sum" else matches[-1:]
        return Reported(
            prompt_tokens=_total(counted, "prompt"),
            completion_tokens=_total(counted, "completion"),
            source=self.stream,
        )


class _Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    version: str
    description: str
    kind: Literal["command", "null", "oracle"]
    image: str | None = None
    """The container image that the agent runs in; read by nothing as long as there is no container sandbox."""
    command: list[str] = []
    version_command: list[str] = []
    dialect: Dialect = "chat.completions"
    """What the agent speaks, for a reader of the manifest: the recorder sees for itself what each call speaks."""
    home: Literal["private", "workspace"] = "private"
    git: Literal["none", "marker", "repository"] = "none"
    state_files: list[str] = []
    programs: dict[str, Program] = {}
    env: dict[str, str] = {}
    files: dict[str, str] = {}
    """What the agent finds in its private HOME, by path: settings that it takes from nowhere else."""
    reported: ReportedTotals | None = None


class Agent(_Manifest, frozen=True, kw_only=True):
    """An agent that was read from its manifest, with what a sweep adds to it."""

    directory: Annotated[Path | None, "the manifest's own files"] = None
    digest: str
    """Over the manifest, its own files and the sweep's additions."""
    extra_env: dict[str, str] = {}
    extra_args: list[str] = []

    @property
    def expects_calls(self) -> bool:
        """Whether a run of this agent makes model calls at all."""
        return self.kind == "command"


def load_agent(path: Path) -> Agent:
    """Read and check a manifest.

    The agent's own files are those of the directory beside it that has its name (``reference.toml``, ``reference/``).

    Raises:
        CellmeterError: the file cannot be read, or says something that is not allowed.

    """
    manifest = convert_toml(read_toml(path), _Manifest, path)
    directory = path.with_suffix("").absolute()
    own = directory if directory.is_dir() else None
    _check(manifest, path, has_files=own is not None)
    parts = [msgspec.json.encode(manifest, order="sorted"), (content_digest(own) if own else "").encode()]
    values = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    return Agent(**values, directory=own, digest=digest_of(b"\n".join(parts)))


def with_additions(agent: Agent, env: Mapping[str, str], args: list[str]) -> Agent:
    """The agent with variables and arguments that a sweep adds, and the digest that follows from them."""
    if not env and not args:
        return agent
    added = msgspec.json.encode([agent.digest, dict(sorted(env.items())), args])
    return msgspec.structs.replace(agent, extra_env=dict(env), extra_args=list(args), digest=digest_of(added))


def builtin_agents() -> list[Agent]:
    """The agents that ship with cellmeter, ordered by name."""
    return [load_agent(path) for path in sorted((Path(__file__).parent / "agents").glob("*.toml"))]


def find_agent(name_or_path: str, *, base: Path | None = None) -> Agent:
    """The agent of a name, or of the manifest at a path (anything with a slash or the suffix ``.toml``).

    Raises:
        CellmeterError: there is no such agent, or its manifest is wrong.

    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return load_agent((base or Path()) / Path(name_or_path).expanduser())
    known = {agent.name: agent for agent in builtin_agents()}
    if name_or_path not in known:
        raise CellmeterError(
            f"there is no agent named {name_or_path}",
            hint=f"known: {', '.join(known) or 'none'}; a manifest of your own is named by its path",
            exit_code=2,
        )
    return known[name_or_path]


def resolve_programs(agent: Agent, environ: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Where the programs of an agent are on this machine.

    Raises:
        CellmeterError: one of them is not here; the hint is the manifest's.

    """
    environ = os.environ if environ is None else environ
    return {name: _resolved(agent, program, environ) for name, program in agent.programs.items()}


def _resolved(agent: Agent, program: Program, environ: Mapping[str, str]) -> Path:
    named = environ.get(program.env) if program.env else None
    found = shutil.which(named or program.path, path=environ.get("PATH"))
    if found is None:
        where = f"{program.env} names {named}, which is not a program" if named else f"{program.path} is not on PATH"
        raise CellmeterError(f"the agent {agent.name} cannot run here: {where}", hint=program.hint)
    return Path(found).absolute()


def expand(text: str, values: Mapping[str, str]) -> str:
    """The text with each known placeholder replaced, in one pass; braces around anything else are left alone."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def _total(matches: list[re.Match[str]], count: str) -> int | None:
    groups = [name for name in matches[0].re.groupindex if name == count or name.startswith(f"{count}_")]
    printed = [match[group] or "" for match in matches for group in groups]
    numbers = [number for text in printed if (number := _number(text)) is not None]
    return sum(numbers) if numbers else None


def _number(text: str) -> int | None:
    digits = text.rstrip("kM").replace(",", "")
    try:
        return round(float(digits) * _SCALE.get(text[-1], 1))
    except (ValueError, OverflowError):
        return None


def _check(manifest: _Manifest, path: Path, *, has_files: bool) -> None:
    if not _NAME.fullmatch(manifest.name):
        raise wrong(path, "name", "not made of lower-case letters, digits, '.', '_' and '-'")
    if (manifest.kind == "command") != bool(manifest.command):
        needs = "missing" if manifest.kind == "command" else "not allowed"
        raise wrong(path, "command", f'{needs} for kind = "{manifest.kind}"')
    _check_placeholders(manifest, path, has_files=has_files)
    _check_files(manifest, path)
    if manifest.reported:
        _check_pattern(manifest.reported.pattern, path)


def _check_placeholders(manifest: _Manifest, path: Path, *, has_files: bool) -> None:
    known = PLACEHOLDERS | manifest.programs.keys()
    texts = {
        "command": manifest.command,
        "version_command": manifest.version_command,
        "env": manifest.env.values(),
        "files": manifest.files.values(),
    }
    for key, values in texts.items():
        for name in (name for value in values for name in _PLACEHOLDER.findall(value)):
            if name not in known:
                raise wrong(path, key, f"unknown placeholder {{{name}}}", hint=f"known: {', '.join(sorted(known))}")
            if name == "agent_dir" and not has_files:
                raise wrong(path, key, f"{{agent_dir}} is used, but there is no directory {path.with_suffix('')}")


def _check_files(manifest: _Manifest, path: Path) -> None:
    if manifest.files and manifest.home == "workspace":
        raise wrong(path, "files", 'not allowed with home = "workspace", where they would count as the agent\'s work')
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise wrong(path, "files", f"{name!r} is not a path inside HOME")


def _check_pattern(pattern: str, path: Path) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise wrong(path, "reported.pattern", f"not a regular expression: {error}") from None
    if not {"prompt", "completion"} <= groups.keys():
        raise wrong(path, "reported.pattern", "lacks a group named prompt or completion")
