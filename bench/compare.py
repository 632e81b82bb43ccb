#!/usr/bin/env python3
"""Compares request-info with what else could answer the same request, in one run on the same cores.

request-info, bench/floor (a constant after the same host calls) and bench/bare (a constant after none) run on the
host, bench/flask under Flask's own server and under gunicorn -w 2, and go-httpbin answers /get. One server runs at a
time; wrk asks it as curl does, and request-info and bench/floor as a browser does, too. The rounds go through all of
them, each round beginning with another one, so that a machine that gets slower or faster does so for all. What is told
is the median of the rounds. Processor time is steadier than requests per second where others use the machine.

Of a comparison of all servers, the result is written to docs/performance.md.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import Request, urlopen

import performance
from performance import REPOSITORY

BENCH = REPOSITORY / "bench"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "request-info" / "bench"
GO_HTTPBIN = "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin@v2.26.0"

HOST = REPOSITORY / "target/x86_64-unknown-linux-gnu/release/request-info-host"
COMPONENTS = REPOSITORY / "target/wasm32-wasip2/component"
BUILD_HOST = "cargo build --locked --release --target x86_64-unknown-linux-gnu --package request-info-host"
BUILD_COMPONENT = "cargo build --locked --target wasm32-wasip2 --profile component --package"
ANSWER = BENCH / "bare/src/answer.txt"

CONNECTIONS = 32
WARM_UP_SECONDS = 1
START_SECONDS = 30
CURL = {"User-Agent": "curl/8.5.0", "Accept": "*/*"}
# As the example of component/examples/core.rs.
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-User": "?1",
    "Priority": "u=0, i",
}
BROWSERS = " by a browser"

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES = CORES[:-1] or CORES
WRK_CORES = CORES[-1:]


@dataclass(frozen=True)
class Server:
    name: str
    command: list[str]
    """{port} stands for the port."""
    artefact: Path
    """The shipped file, or a directory with everything in it."""
    path: str = "/"
    answer: bytes | None = None
    """The expected answer, if the server does the same as request-info."""
    headers: dict[str, str] = field(default_factory=lambda: CURL)
    """The request's headers."""

    def command_on(self, port: int) -> list[str]:
        return [argument.format(port=port) for argument in self.command]


@dataclass(frozen=True)
class Sample:
    """One round of one server."""

    requests: float
    """Per second."""
    p50: float
    """In milliseconds, as p99."""
    p99: float
    memory: int
    """The highest value, in bytes."""
    processor: float
    """In microseconds per request, in user and system mode together."""
    start: float
    """In milliseconds, from the start of the program to its first answer."""


@dataclass(frozen=True)
class Result:
    """All rounds of one server."""

    server: Server
    samples: list[Sample]

    def median(self, figure: str) -> float:
        return float(median(getattr(sample, figure) for sample in self.samples))

    def figures(self) -> list[float]:
        return [*map(self.median, FIGURES), size_of(self.server.artefact)]


FIGURES = ("processor", "requests", "p50", "p99", "memory", "start")


@dataclass(frozen=True)
class Goal:
    """The least number of requests that request-info must answer in the processor time in which another server answers one."""

    limit: float
    server: str
    asked: str = ""


GOALS = [
    Goal(0.97, "floor"),
    Goal(0.85, "floor", BROWSERS),
    Goal(0.68, "bare"),
    Goal(1.5, "gunicorn"),
]


def main() -> None:
    browsers = ["request-info", "floor"]
    names = [*browsers, "bare", "flask", "gunicorn", "go-httpbin"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", nargs="*", help=f"compare these only, of {', '.join(names)}; writes nothing")
    parser.add_argument("--rounds", type=int, default=5, help="how often each server is measured (5)")
    parser.add_argument("--seconds", type=int, default=5, help="how long each time (5)")
    parser.add_argument("--host", type=Path, default=HOST, metavar="FILE", help="the host (the release build)")
    arguments = parser.parse_args()
    if unknown := set(arguments.server) - set(names):
        parser.error(f"unknown server {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    if min(arguments.rounds, arguments.seconds) < 1:
        parser.error("--rounds and --seconds are at least 1")

    if not shutil.which("wrk"):
        sys.exit("compare.py: wrk is missing: apt-get install wrk")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("compare.py: terminated"))
    chosen = [name for name in names if not arguments.server or name in arguments.server]
    servers = [provide(name, arguments.host) for name in chosen]
    servers += [
        replace(server, name=server.name + BROWSERS, headers=BROWSER, answer=None)
        for server in servers
        if server.name in browsers
    ]
    load = os.getloadavg()[0]
    results = measure(servers, arguments.rounds, arguments.seconds)

    report = [figures_table(results)]
    if len(chosen) == len(names):
        report += [ratios_table(results), goals_table(results)]
    print("", *report, sep="\n\n")
    if len(chosen) == len(names):
        report.append(method(arguments.rounds, arguments.seconds, load, arguments.host))
        performance.write_section("service", "\n\n".join(report))
        print(f"\nwritten to {performance.DOCUMENT.relative_to(REPOSITORY)}")


def provide(name: str, host: Path) -> Server:
    """The server, after everything that it needs was built."""
    match name:
        case "request-info":
            return on_host(name, host, REPOSITORY / "spin.toml", "request_info.wasm")
        case "bare" | "floor":
            return on_host(name, host, BENCH / name / "spin.toml", f"{name}.wasm")
        case "flask":
            command = "-m flask --app bench/flask/app.py run --host 127.0.0.1 --port {port}"
            return in_python(name, command)
        case "gunicorn":
            command = "-m gunicorn -w 2 --no-control-socket --chdir bench/flask --bind 127.0.0.1:{port} app:app"
            return in_python(name, command)
        case _:
            binary = go_program(GO_HTTPBIN)
            return Server(name, [str(binary), "-host", "127.0.0.1", "-port", "{port}"], binary, path="/get")


def on_host(name: str, host: Path, manifest: Path, artefact: str) -> Server:
    component = COMPONENTS / artefact
    if not component.exists():
        sys.exit(f"compare.py: {component} does not exist: {BUILD_COMPONENT} {name}")
    if not host.exists():
        sys.exit(f"compare.py: {host} does not exist: {BUILD_HOST}, or name another one with --host")
    command = [str(host), "--from", str(manifest), "--listen", "127.0.0.1:{port}"]
    return Server(name, command, component, answer=ANSWER.read_bytes())


def in_python(name: str, command: str) -> Server:
    environment = python_environment()
    return Server(name, [str(environment / "bin/python"), *command.split()], environment, answer=ANSWER.read_bytes())


def python_environment() -> Path:
    """A virtual environment with only what requirements.txt lists."""
    requirements = BENCH / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    environment = CACHE / f"python{sys.version_info.major}.{sys.version_info.minor}-{digest}"
    complete = environment / "complete"
    if not complete.exists():
        print(f"installing Flask and gunicorn into {environment} (half a minute, once)")
        venv.create(environment, clear=True, with_pip=True)
        pip: list[str | Path] = [environment / "bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        run([*pip, "install", "--no-deps", "--requirement", requirements])
        run([*pip, "uninstall", "--yes", "pip", "setuptools"])
        complete.touch()
    return environment


def go_program(module: str) -> Path:
    """The program that `go install` builds from this package of a module, at the given version."""
    directory = CACHE / module.rpartition("/")[2]
    binary = directory / directory.name.partition("@")[0]
    if not binary.exists():
        if not shutil.which("go"):
            sys.exit(f"go is missing, which builds {binary.name}: apt-get install golang")
        print(f"building {module} into {directory} (a minute or two, once)", flush=True)
        run(["go", "install", "-ldflags=-s -w", module], GOBIN=str(directory))
    return binary


def run(command: list[str | Path], **environment: str) -> None:
    if code := subprocess.run(command, env=os.environ | environment).returncode:
        sys.exit(f"compare.py: `{shlex.join(map(str, command))}` ended with {code}")


def measure(servers: list[Server], rounds: int, seconds: int) -> list[Result]:
    results = [Result(server, []) for server in servers]
    for number in range(rounds):
        first = number % len(results)
        for result in results[first:] + results[:first]:
            sample = sample_of(result.server, seconds)
            result.samples.append(sample)
            print(
                f"round {number + 1} of {rounds}: {result.server.name:<25} {sample.processor:>5.1f} µs,"
                f" {sample.requests:>8,.0f} requests/s, p50 {sample.p50:.2f} ms, p99 {sample.p99:.2f} ms,"
                f" {sample.memory / 1e6:.0f} MB, first answer after {sample.start:.0f} ms",
                flush=True,
            )
    return results


def sample_of(server: Server, seconds: int) -> Sample:
    with running(server) as (process, url, start):
        load(url, server.headers, WARM_UP_SECONDS)
        before = processor_time(process.pid)
        outcome = load(url, server.headers, seconds)
        processor = (processor_time(process.pid) - before) / outcome["requests"]
        memory = peak_memory(process.pid)
    if outcome["errors"]:
        sys.exit(f"compare.py: {outcome['errors']} of {outcome['requests']} requests to {server.name} failed")
    requests = outcome["requests"] / outcome["seconds"]
    return Sample(requests, outcome["p50"] / 1000, outcome["p99"] / 1000, memory, processor * 1e6, start * 1000)


@contextmanager
def running(server: Server) -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """Starts the server on a free port, measures the time to its first answer, and ends it with all its processes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = server.command_on(port)
    url = f"http://127.0.0.1:{port}{server.path}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPIN_")}
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORES),
    )
    try:
        answer = first_answer(process, url, server.headers)
        start = time.monotonic() - begun
        if answer is None:
            sys.exit(f"compare.py: {server.name} does not answer {url}; to see why: {shlex.join(command)}")
        if server.answer not in (None, answer):
            sys.exit(
                f"compare.py: {server.name} answers {answer!r}, which is not what {ANSWER.relative_to(REPOSITORY)} has:"
                " bring that file and bench/flask/app.py in line with request-info, and build bare again:"
                f" {BUILD_COMPONENT} bare"
            )
        yield process, url, start
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def first_answer(process: subprocess.Popen[bytes], url: str, headers: dict[str, str]) -> bytes | None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(Request(url, headers=headers), timeout=START_SECONDS) as response:
                return bytes(response.read())
        except (URLError, ConnectionError):
            time.sleep(0.001)
    return None


def load(
    url: str, headers: dict[str, str], seconds: int, connections: int = CONNECTIONS, cores: list[int] = WRK_CORES
) -> dict[str, float]:
    """The figures that wrk.lua prints for this many seconds."""
    headers = [argument for name, value in headers.items() for argument in ("-H", f"{name}: {value}")]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(BENCH / "wrk.lua"), *headers, url]
    wrk = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    if wrk.returncode:
        sys.exit(f"compare.py: `{shlex.join(command)}` ended with {wrk.returncode}: {wrk.stdout}")
    outcome: dict[str, float] = json.loads(wrk.stdout.splitlines()[-1])
    return outcome


def processor_time(pid: int) -> float:
    """The processor time of a process and its living descendants, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_time(int(child)) for child in children)


def peak_memory(pid: int) -> int:
    """The highest resident memory of a process and its descendants, in bytes. Shared pages are counted once."""
    peak = memory_field(pid, "status", "VmHWM") - memory_field(pid, "smaps_rollup", "Rss")
    # Only a main thread starts processes here. Other threads may end while they are read.
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return peak + memory_field(pid, "smaps_rollup", "Pss") + sum(peak_memory(int(child)) for child in children)


def memory_field(pid: int, file: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    if not found:
        sys.exit(f"compare.py: /proc/{pid}/{file} does not tell {field}")
    return int(found.group(1)) * 1024


def size_of(artefact: Path) -> int:
    files = artefact.rglob("*") if artefact.is_dir() else [artefact]
    return sum(file.lstat().st_size for file in files if file.is_file())


def megabytes(size: float) -> str:
    return f"{size / 1e6:.2f}" if size < 1e6 else f"{size / 1e6:.1f}"


def figures_table(results: list[Result]) -> str:
    rows = []
    for result in results:
        processor, requests, p50, p99, memory, start, size = result.figures()
        lowest, highest = (choose(sample.processor for sample in result.samples) for choose in (min, max))
        spread = f"{processor:.1f} ({lowest:.1f} to {highest:.1f})"
        rows.append(
            [result.server.name, spread, f"{requests:,.0f}", f"{p50:.2f}", f"{p99:.2f}", megabytes(memory)]
            + [f"{start:.0f}", megabytes(size)]
        )
    header = ["", "µs of processor per request (lowest to highest)", "requests/s", "p50, ms", "p99, ms", "memory, MB"]
    return performance.table([*header, "start to first answer, ms", "artefact, MB"], rows)


def ratios_table(results: list[Result]) -> str:
    ours, *others = [result for result in results if BROWSERS not in result.server.name]
    rows = [
        [other.server.name, *(f"{mine / its:.3g}" for mine, its in zip(ours.figures(), other.figures(), strict=True))]
        for other in others
    ]
    header = ["request-info ÷", "processor", "requests/s", "p50", "p99", "memory", "start", "artefact"]
    return performance.table(header, rows)


def goals_table(results: list[Result]) -> str:
    processor = {result.server.name: result.median("processor") for result in results}
    rows = []
    for goal in GOALS:
        ratio = processor[goal.server + goal.asked] / processor["request-info" + goal.asked]
        text = f"at least {goal.limit} requests in the processor time of one of {goal.server}{goal.asked}"
        rows.append([text, f"{ratio:.2f}", "met" if ratio >= goal.limit else "**missed**"])
    return performance.table(["goal", "ratio", ""], rows)


def method(rounds: int, seconds: int, load_before: float, host: Path) -> str:
    separated = len(CORES) > 1
    pinning = (
        f"the servers on core {', '.join(map(str, SERVER_CORES))} and wrk on core {WRK_CORES[0]}"
        if separated
        else "servers and wrk on the one core that there is"
    )
    return (
        f"Measured by `bench/compare.py`: {performance.circumstances()}, {pinning}, load {load_before:.2f} before."
        f" Medians of {rounds} rounds of {seconds} s, each server restarted for each round and warmed up for"
        f" {WARM_UP_SECONDS} s; {CONNECTIONS} connections, one wrk thread, no request failed. Flask's own server and"
        " gunicorn's workers close the connection after every answer, as they do by default."
        " Memory is the highest resident set of all of a server's processes, with shared pages counted once."
        f" The artefact is the component without its host ({megabytes(host.stat().st_size)} MB, here the project's own;"
        " in a cluster, Spin's shim), Flask's and gunicorn's packages without Python, and go-httpbin's whole program,"
        " which answers `/get` with JSON."
    )


if __name__ == "__main__":
    main()
