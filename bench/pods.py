#!/usr/bin/env python3
"""Compares both images of request-info with go-httpbin, as pods of the test cluster with equal limits.

    e2e/cluster.sh run python3 bench/pods.py            with --rounds 1 for a glance

The bed has no network. `make component host cyclonedx` and `bench/compare.py go-httpbin` fetch before what this needs.

One pod runs at a time, on node-a. It is measured twice: on all cores, which it shares with wrk's 16 connections, as the
goals were set; and on all cores but the last, where wrk's 32 connections come from. The rounds go through all pods, each
round beginning with another one. What is told is the median of the rounds. With five rounds or more, the result is
written to docs/performance.md.
"""

import argparse
import json
import os
import random
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.request import Request, urlopen

import compare
import performance
from performance import REPOSITORY

FEW = 16
MANY = 1000
CREATIONS = 3
MEMORY = "256Mi"
POD = "measured"
LEAST_ROUNDS = 5
SPIN_ENVIRONMENT = {"SPIN_HTTP_LISTEN_ADDR": "0.0.0.0:8080", "SPIN_MAX_INSTANCE_MEMORY": "4194304"}
FIGURES = ("requests", "p99", "requests_apart", "p99_apart", "memory", "ready", "start")
#: What a figure in a unit is divided by. Another goal is a ratio.
UNITS = {"MB": 1e6, "s": 1, "ms": 1e-3}
TIMES = "times go-httpbin's"
GOALS = [
    ("requests", "requests per second", "at least", 1.1, TIMES),
    ("p99", "p99", "at most", 0.7, TIMES),
    ("requests_apart", "requests per second where wrk has a core of its own", "at least", 1.1, TIMES),
    ("p99_apart", "p99 where wrk has a core of its own", "at most", 0.7, TIMES),
    ("memory", "memory at 1,000 connections", "at most", 48, "MB"),
    ("ready", "create to Ready", "at most", 0.8, "s"),
    ("start", "start to first answer", "at most", 50, "ms"),
    ("pulled", "image to pull", "at most", 10, "MB"),
]


@dataclass
class Subject:
    name: str
    image: str
    path: str
    """Answers 200 when the pod is ready."""
    asked: str
    spec: dict
    command: list[str]
    """Starts the same server outside of a pod. {port} stands for the port."""
    pulled: int = 0
    """Bytes of the image's compressed layers."""
    samples: list[dict[str, float]] = field(default_factory=list)

    def median(self, figure: str) -> float:
        return float(self.pulled if figure == "pulled" else median(sample[figure] for sample in self.samples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="how often each pod is measured (5)")
    parser.add_argument("--seconds", type=int, default=5, help="how long each time (5)")
    arguments = parser.parse_args()
    if "RUN" not in os.environ:
        sys.exit("pods.py: this needs the test bed: e2e/cluster.sh run python3 bench/pods.py")
    subjects = [request_info("shim"), request_info("standalone"), go_httpbin()]
    load = os.getloadavg()[0]
    for number in range(arguments.rounds):
        first = number % len(subjects)
        for subject in subjects[first:] + subjects[:first]:
            sample = measure(subject, arguments.seconds)
            subject.samples.append(sample)
            print(f"round {number + 1}: {subject.name:<24}", *(f"{it} {sample[it]:,.3f}" for it in FIGURES), sep="  ", flush=True)
    report = "\n\n".join([figures_table(subjects), goals_table(subjects), method(arguments, load)])
    print(f"\n{report}")
    if arguments.rounds >= LEAST_ROUNDS:
        performance.write_section("pods", report)


def request_info(runtime: str) -> Subject:
    """Its image as the road builds it."""
    name = "request-info" + ("-standalone" if runtime == "standalone" else "")
    repository = f"{os.environ['HOST']}:5000"
    make = ["make", "--silent", "image", f"RUNTIME={runtime}", f"IMAGE={repository}/request-info"]
    tag = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    subprocess.run(make, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    spec = {"runtimeClassName": "wasmtime-spin-v2"} if runtime == "shim" else {}
    root = unpacked(f"{repository}/{name}:{tag}-amd64") if runtime == "standalone" else REPOSITORY
    command = [str(compare.HOST), "--from", f"{root}/spin.toml", "--listen", "127.0.0.1:{port}"]
    if runtime == "standalone":
        image = json.loads(docker("image", "inspect", f"{repository}/{name}:{tag}-amd64"))[0]
        own = [word.replace("/spin.toml", f"{root}/spin.toml") for word in image["Config"]["Entrypoint"]]
        command = [f"{root}{own[0]}", *own[1:], "--listen", "127.0.0.1:{port}"]
    label = f"request-info, {'standalone' if runtime == 'standalone' else 'for the shim'}"
    return Subject(label, f"{repository}/{name}:{tag}-amd64", "/healthz", "/", spec, command)


def unpacked(image: str) -> str:
    """The directory of an image's files."""
    directory = tempfile.mkdtemp(dir=os.environ["TMPDIR"])
    container = docker("create", image)
    export = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
    subprocess.run(["tar", "--extract", "--directory", directory], stdin=export.stdout, check=True)
    return directory


def go_httpbin() -> Subject:
    binary = compare.CACHE / "static/go-httpbin"
    if not binary.exists():
        command = ["go", "install", "-ldflags=-s -w", compare.GO_HTTPBIN]
        compare.run(command, GOBIN=str(binary.parent), CGO_ENABLED="0")  # its image has no library
    image = f"{os.environ['HOST']}:5000/go-httpbin:1"
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(binary, f"{directory}/go-httpbin")
        Path(f"{directory}/Dockerfile").write_text('FROM scratch\nCOPY go-httpbin /\nUSER 65532\nENTRYPOINT ["/go-httpbin"]\n')
        docker("build", "--quiet", "--tag", image, directory)
    return Subject("go-httpbin", image, "/get", "/get", {}, [str(binary), "-host", "127.0.0.1", "-port", "{port}"])


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pods.py: docker {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def measure(subject: Subject, seconds: int) -> dict[str, float]:
    if not subject.pulled:
        docker("push", "--quiet", subject.image)
        manifest = json.loads(docker("manifest", "inspect", subject.image))
        subject.pulled = sum(it["size"] for it in [*manifest["layers"], manifest["config"]])
        Pod(subject).delete()  # the node has pulled it now
    server = compare.Server(subject.name, subject.command, Path(subject.command[0]), path=subject.asked)
    with compare.running(server) as (_, _, start):
        pass
    ready = []
    for _ in range(CREATIONS):
        if ready:
            pod.delete()
        # The kubelet looks at its containers once a second. Creations must not all come at the same moment of that second.
        time.sleep(random.random())
        pod = Pod(subject)
        ready.append(pod.ready)
    shared = load(subject, pod, compare.CORES, compare.CORES, FEW, seconds)
    apart = load(subject, pod, compare.SERVER_CORES, compare.WRK_CORES, compare.CONNECTIONS, seconds)
    compare.load(pod.url, compare.CURL, 3, MANY)  # some of so many connections may fail
    memory = compare.peak_memory(pod.process)
    pod.delete()
    return {
        "requests": shared["requests"] / shared["seconds"],
        "p99": shared["p99"] / 1000,
        "requests_apart": apart["requests"] / apart["seconds"],
        "p99_apart": apart["p99"] / 1000,
        "memory": memory,
        "ready": median(ready),
        "start": start,
    }


def load(subject: Subject, pod: "Pod", cores: list[int], wrk_cores: list[int], connections: int, seconds: int) -> dict[str, float]:
    """What wrk reports of this many seconds, after a warm-up. The pod's processes stay on these cores."""
    command = ["taskset", "--all-tasks", "--pid", "--cpu-list", ",".join(map(str, cores)), str(pod.process)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    compare.load(pod.url, compare.CURL, compare.WARM_UP_SECONDS, connections, wrk_cores)
    outcome = compare.load(pod.url, compare.CURL, seconds, connections, wrk_cores)
    if outcome["errors"]:
        sys.exit(f"pods.py: {outcome['errors']} of {outcome['requests']} requests to {subject.name} failed")
    return outcome


class Pod:
    """Created, and Ready; `ready` says after how many seconds."""

    def __init__(self, subject: Subject):
        environment = [{"name": name, "value": value} for name, value in SPIN_ENVIRONMENT.items()]
        resources = {"memory": MEMORY}
        container = {
            "name": POD,
            "image": subject.image,
            "env": environment,
            "resources": {"requests": resources, "limits": resources},
            "readinessProbe": {"httpGet": {"path": subject.path, "port": 8080}, "periodSeconds": 1},
            "securityContext": {"readOnlyRootFilesystem": True, "runAsUser": 65532},
        }
        spec = {"nodeName": "node-a", "containers": [container], "enableServiceLinks": False} | subject.spec
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}, "spec": spec}
        begun = time.monotonic()
        version = api("POST", "pods", pod)["metadata"]["resourceVersion"]
        for event in watch(version):
            conditions = {it["type"]: it["status"] for it in event["object"]["status"].get("conditions", [])}
            if conditions.get("Ready") == "True":
                break
        else:
            sys.exit(f"pods.py: {subject.image} did not get ready")
        self.ready = time.monotonic() - begun
        self.url = f"http://{event['object']['status']['podIP']}:8080{subject.asked}"
        self.process = process_of(event["object"]["metadata"]["uid"])

    def delete(self) -> None:
        version = api("DELETE", f"pods/{POD}?gracePeriodSeconds=1")["metadata"]["resourceVersion"]
        for event in watch(version):
            if event["type"] == "DELETED":
                return


def process_of(uid: str) -> int:
    """The first process of a pod's container."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if uid in (process / "cgroup").read_text() and (process / "comm").read_text().strip() != "pause":
                found.append(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return min(found)


def request(method: str, path: str, document: object = None):
    """Sends a request to the API server, as the administrator."""
    tls = ssl.create_default_context(cafile=f"{os.environ['RUN']}/certs/apiserver.crt")
    headers = {"Authorization": "Bearer admin", "Content-Type": "application/json"}
    data = None if document is None else json.dumps(document).encode()
    url = f"https://{os.environ['HOST']}:6443/api/v1/namespaces/default/{path}"
    return urlopen(Request(url, data, headers, method=method), timeout=60, context=tls)


def api(method: str, path: str, document: object = None) -> dict:
    with request(method, path, document) as answer:
        return json.load(answer)


def watch(version: str):
    """What happens to the pod from there on, for a minute at most."""
    field = f"fieldSelector=metadata.name%3D{POD}&resourceVersion={version}&timeoutSeconds=60"
    with request("GET", f"pods?watch=1&{field}") as answer:
        for line in answer:
            yield json.loads(line)


def figures_table(subjects: list[Subject]) -> str:
    rows = [
        [
            subject.name,
            f"{subject.median('requests'):,.0f}",
            f"{subject.median('p99'):.2f}",
            f"{subject.median('requests_apart'):,.0f}",
            f"{subject.median('p99_apart'):.2f}",
            f"{subject.median('memory') / 1e6:.0f}",
            f"{subject.median('ready'):.2f}",
            f"{subject.median('start') * 1000:.0f}",
            compare.megabytes(subject.pulled),
        ]
        for subject in subjects
    ]
    *ours, other = subjects
    rows += [
        [f"{subject.name} ÷ {other.name}", *(f"{subject.median(it) / other.median(it):.2f}" for it in [*FIGURES, "pulled"])]
        for subject in ours
    ]
    header = ["", "requests/s", "p99, ms", "… wrk on another core", "p99, ms", "memory at 1,000 connections, MB", "create to Ready, s", "start to first answer, ms"]
    return performance.table([*header, "image to pull, MB"], rows)


def goals_table(subjects: list[Subject]) -> str:
    _, ours, other = subjects
    rows = []
    for figure, what, bound, limit, unit in GOALS:
        reached = ours.median(figure) / (UNITS.get(unit) or other.median(figure))
        met = reached >= limit if bound == "at least" else reached <= limit
        rows.append([f"{what}: {bound} {limit} {unit}", f"{reached:.3g}", "met" if met else "**missed**"])
    return performance.table(["goal for the standalone image", "reached", ""], rows)


def method(arguments: argparse.Namespace, load: float) -> str:
    shim = "Spin's shim" if shutil.which("containerd-shim-spin-v2") else "the bed's handler, which replaces Spin's shim and compiles the component at its start"
    return (
        f"Measured by `e2e/cluster.sh run python3 bench/pods.py`: {performance.circumstances()}, load {load:.2f} before."
        f" Medians of {arguments.rounds} rounds; pods with a limit of {MEMORY}, probed each second. wrk asks for {arguments.seconds} s,"
        f" first with {FEW} connections, where server and wrk share all cores, then with {compare.CONNECTIONS}, the server on"
        f" cores {', '.join(map(str, compare.SERVER_CORES))} and wrk on core {compare.WRK_CORES[0]}, then with {MANY:,}, after"
        f" which memory is the highest that was resident. Each pod is created {CREATIONS} times a round, at random moments,"
        " because the kubelet looks at its containers once a second."
        f" The image for the shim runs under {shim}. The start to the first answer is measured outside of a pod."
    )


if __name__ == "__main__":
    main()
