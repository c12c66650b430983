"""What a recorded call costs, beside peers and the limit, each alone on the same load in one run.

    python benchmarks/overhead [--loads json,burst,paced] [--targets direct,nginx,aiohttp,…] [--scale 1.0]

CPU per call is user and system time of the proxy's whole process tree over the calls it completed: it holds under
noise where throughput does not. Memory is what the process tree grew by at most under the load, over its connections:
what an open stream costs, its bytes included. nginx comes from Debian (``apt-get install nginx-light``). The peers are
used where their programs are on PATH, each from an environment of its own (``pip install mitmproxy``,
``pip install claude-tap``, ``pip install 'litellm[proxy]'``). What is not installed is named and left out.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """One load: what the provider answers, and how it is asked."""

    name: str
    mode: str
    connections: int
    calls: int
    body: int


LOADS = (
    Load("json", "json", 32, 6000, 5700),
    Load("burst", "burst", 32, 2000, 5700),
    Load("paced", "paced", 100, 500, 5700),
    Load("paced-1000", "paced", 1000, 2000, 5700),
    Load("1MB-prompt", "json", 8, 300, 1_000_000),
)


def nginx(upstream: int, directory: Path) -> tuple[list[str], int]:
    """One worker, unbuffered, with a JSON access log."""
    port = free_port()
    (directory / "nginx.conf").write_text(
        f"""
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 8192; }}
http {{
  log_format j escape=json '{{"t":"$time_iso8601","s":$status,"b":$body_bytes_sent,"rt":$request_time}}';
  access_log {directory}/access.log j;
  client_max_body_size 0; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  upstream u {{ server 127.0.0.1:{upstream}; keepalive 1024; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{
    proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_buffering off; proxy_request_buffering off; }} }}
}}
"""
    )
    return ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")], port


def aiohttp_passthrough(upstream: int, _: Path) -> tuple[list[str], int]:
    """The bare pass-through on aiohttp."""
    return [sys.executable, str(HERE / "passthrough.py"), f"http://127.0.0.1:{upstream}"], 0


def cellmeter(durability: str, workers: int = 1) -> Callable[[int, Path], tuple[list[str], int]]:
    """cellmeter, recording full bodies."""

    def start(upstream: int, directory: Path) -> tuple[list[str], int]:
        arguments = ["--upstream", f"http://127.0.0.1:{upstream}/v1", "--listen", "127.0.0.1:0"]
        log = ["--log", str(directory / "bench.db"), "--durability", durability, "--workers", str(workers)]
        return [sys.executable, "-m", "cellmeter_harness", "proxy", *arguments, *log], 0

    return start


def mitmproxy(upstream: int, _: Path) -> tuple[list[str], int]:
    """mitmproxy in reverse mode, streaming."""
    port = free_port()
    reverse = ["--mode", f"reverse:http://127.0.0.1:{upstream}", "--listen-host", "127.0.0.1", "-p", str(port)]
    return ["mitmdump", "-q", *reverse, "--set", "stream_large_bodies=1"], port


def claude_tap(upstream: int, directory: Path) -> tuple[list[str], int]:
    """claude-tap as a reverse proxy, recording at the end of each call."""
    port = free_port()
    where = ["--tap-port", str(port), "--tap-host", "127.0.0.1", "--tap-output-dir", str(directory / "traces")]
    target = ["--tap-client", "codex", "--tap-target", f"http://127.0.0.1:{upstream}/v1"]
    allowed = ["--tap-allow-path", "/v1/chat/completions"]
    return ["claude-tap", "--tap-no-launch", "--tap-no-live", "--tap-no-open", *where, *target, *allowed], port


def litellm(upstream: int, directory: Path) -> tuple[list[str], int]:
    """LiteLLM's proxy, one worker, recording nothing."""
    port = free_port()
    (directory / "litellm.yaml").write_text(
        f"""
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
litellm_settings: {{num_retries: 0, telemetry: false}}
"""
    )
    return ["litellm", "--config", str(directory / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)], port


TARGETS: dict[str, Callable[[int, Path], tuple[list[str], int]] | None] = {
    "direct": None,
    "nginx": nginx,
    "aiohttp": aiohttp_passthrough,
    "cellmeter-process": cellmeter("process"),
    "cellmeter-full": cellmeter("full"),
    "cellmeter-full-2": cellmeter("full", workers=2),
    "mitmproxy": mitmproxy,
    "claude-tap": claude_tap,
    "litellm": litellm,
}
HEADINGS = (
    "target",
    "calls/s",
    "CPU µs/call",
    "× nginx",
    "× aiohttp",
    "added p50 ms",
    "added p99 ms",
    "frame late p99 ms",
    "KiB/stream",
    "errors",
)
NEEDS = {"nginx": "nginx", "mitmproxy": "mitmdump", "claude-tap": "claude-tap", "litellm": "litellm"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def started(command: list[str], home: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process that listens; it says where on its first line, unless its port is given."""
    environment = {**os.environ, "HOME": str(home)}  # where some peers leave things
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True, env=environment)
    try:
        assert process.stdout is not None
        if not port:
            port = int(process.stdout.readline().strip().removesuffix("/v1").rpartition(":")[2])
        _await_listening(port)
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _await_listening(port: int) -> None:
    for _ in range(1200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in tree(int(child)))]


def cpu_s(pid: int) -> float:
    """User and system time of a process tree so far, in seconds."""
    total = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def peak_kib(pid: int) -> int:
    """The most memory that a process tree had at once, in KiB (VmHWM, summed)."""
    total = 0
    for one in tree(pid):
        status = Path(f"/proc/{one}/status").read_text()
        total += int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    return total


def settle(pid: int, quiet_s: float = 1.0) -> None:
    """Wait until the process tree rests: what it loads after its first call, once, is no cost of a call."""
    before = -1.0
    while (now := cpu_s(pid)) > before:
        before = now
        time.sleep(quiet_s)


def measure(load: Load, target: str, scale: float) -> dict[str, float | None]:
    """One target alone under one load."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as directory, contextlib.ExitStack() as stack:
        provider = [sys.executable, str(HERE / "provider.py"), load.mode]
        _, upstream = stack.enter_context(started(provider, Path(directory)))
        builder = TARGETS[target]
        pid, port = None, upstream
        if builder is not None:
            command, port = builder(upstream, Path(directory))
            process, port = stack.enter_context(started(command, Path(directory), port))
            pid = process.pid
        calls = max(int(load.calls * scale), load.connections)
        run(port, replace(load, connections=4), 8)  # warm: imports, caches
        if pid:
            settle(pid)
        idle = peak_kib(pid) if pid else 0
        run(port, load, load.connections)  # warm: connections
        before = cpu_s(pid) if pid else 0.0
        said = run(port, load, calls)
        after, peak = (cpu_s(pid), peak_kib(pid)) if pid else (0.0, 0)
        said["cpu_us"] = (after - before) / calls * 1e6 if pid else None
        said["grew_kib"] = (peak - idle) / load.connections if pid and load.mode == "paced" else None
        return said


def run(port: int, load: Load, calls: int) -> dict[str, float | None]:
    """The load generator's word on so many calls."""
    command = [sys.executable, str(HERE / "load.py"), str(port), str(load.connections), str(calls), str(load.body)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    result: dict[str, float | None] = json.loads(done.stdout)
    return result


def text(value: float | None, digits: int = 2) -> str:
    """A number for the table."""
    return "–" if value is None else f"{value:,.{digits}f}"


def show(load: Load, results: dict[str, dict[str, float | None]]) -> None:
    """One table per load, with ratios to nginx and to the bare pass-through of the same run."""
    table = Table(title=f"{load.name}: {load.connections} connections", title_justify="left")
    for heading in HEADINGS:
        is_name = heading == "target"
        table.add_column(heading, justify="left" if is_name else "right", no_wrap=is_name)
    for target, result in results.items():
        direct = results.get("direct", {})
        table.add_row(
            target,
            text((result["calls"] or 0) / (result["seconds"] or 1), 0),
            text(result["cpu_us"], 0),
            text(_ratio(result, results.get("nginx"))),
            text(_ratio(result, results.get("aiohttp"))),
            text(_less(result, direct, "p50")),
            text(_less(result, direct, "p99")),
            text(result["late_p99"], 1),
            text(result["grew_kib"], 0),
            text(result["errors"], 0),
        )
    Console(width=140).print(table)


def _ratio(result: dict[str, float | None], other: dict[str, float | None] | None) -> float | None:
    mine, its = result.get("cpu_us"), other.get("cpu_us") if other else None
    return mine / its if mine is not None and its else None


def _less(result: dict[str, float | None], direct: dict[str, float | None], name: str) -> float | None:
    mine, its = result.get(name), direct.get(name)
    return mine - its if mine is not None and its is not None else None


def measured(load: Load, targets: list[str], scale: float) -> dict[str, dict[str, float | None]]:
    """Each target alone; one that does not get through the load is named, and costs the others nothing."""
    results = {}
    for target in targets:
        try:
            results[target] = measure(load, target, scale)
        except subprocess.CalledProcessError:
            print(f"{target} is left out of {load.name}: it did not end the load in time", file=sys.stderr)
    return results


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", default=",".join(load.name for load in LOADS))
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    targets = []
    for target in options.targets.split(","):
        if target in NEEDS and shutil.which(NEEDS[target]) is None:
            print(f"{target} is left out: {NEEDS[target]} is not on PATH", file=sys.stderr)
        else:
            targets.append(target)
    for load in LOADS:
        if load.name in options.loads.split(","):
            show(load, measured(load, targets, options.scale))


if __name__ == "__main__":
    main()
