#!/usr/bin/env python3
"""Measures the deployer on Deployments of 3 to 5,000 pods, beside `kubectl rollout status`, on a real control plane.

The nodes and their pods are kwok's. A rolling update replaces 25 % at a time, minReadySeconds is 0, and every pod
answers the deployer's question which commit it runs. The table is written to docs/performance.md where all of the usual
sizes are measured.

  scale.py                    the usual sizes, which takes about ten minutes
  scale.py 3 100 1000         these
  scale.py --scenario NAME    a rollout that does not go well, optionally with the number of pods
"""

import argparse
import math
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import performance
from performance import REPOSITORY
from rollout_bed import Bed, account
from rollout_cluster import COMMIT, KWOK, CountingProxy
from rollout_run import Rollout, Run, is_complete
from scale_scenarios import BROKEN, PULL_SECONDS, SCENARIOS

DEPLOYER = Path(os.environ.get("DEPLOYER") or REPOSITORY / "target/x86_64-unknown-linux-gnu/release/deployer")
USUAL = [3, 100, 300, 1000, 3000, 5000]
NAMESPACE = "rollouts"
ROUNDS = {3: 5, 100: 3, 300: 3, 1000: 3, 3000: 2}
"""The number of measured rollouts at some sizes; one at the others."""
PODS_ON_A_NODE = 100

STATUS = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
conditions:
{{ range $type := (list "PodScheduled" "Initialized" "ContainersReady" "Ready") }}
- {type: {{ $type }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
podIP: ADDRESS
podIPs: [{ip: ADDRESS}]
"""
"""kwok's template of a ready pod's status."""


class Crowd(Bed):
    """A cluster with one Deployment of this many pods, which are ready at once and gone at once."""

    nice, usual, end_seconds = 5, [(0, "healthy")], 0

    def __init__(self, directory: Path, deployer: Path, pods: int) -> None:
        self.pods, self.patience_seconds = pods, 90 + pods // 5
        self.nodes = [f"node-{number}" for number in range(max(2, pods * 5 // 4 // PODS_ON_A_NODE))]
        self.edits = {
            "replicas: 3": f"replicas: {pods}",
            "maxUnavailable: 0": "maxUnavailable: 25%",
            "maxSurge: 1": "maxSurge: 25%",
            "minReadySeconds: 5": "minReadySeconds: 0",
        }
        super().__init__(directory, deployer, [NAMESPACE], 10)

    def status(self, situation: str) -> str:
        return STATUS.replace("ADDRESS", self.address()) if situation == "healthy" else super().status(situation)


@dataclass(frozen=True)
class Figures:
    """The figures of one rollout."""

    processor: float
    memory: int
    requests: int
    proofs: int
    received: int
    available: list[float]
    """The lag of each line, in seconds."""
    replaced: float
    kubectl_processor: float
    kubectl_lag: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", metavar="PODS", help=f"{', '.join(map(str, USUAL))} by default")
    parser.add_argument("--scenario", choices=list(SCENARIOS), help="instead of measuring")
    parser.add_argument("--deployer", type=Path, default=DEPLOYER, metavar="FILE", help="$DEPLOYER, else the release")
    arguments = parser.parse_args()
    if not arguments.deployer.exists():
        sys.exit(f"scale.py: {arguments.deployer} does not exist: make deployer, or name another one with --deployer")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("scale.py: terminated"))
    if arguments.scenario:
        play, usual = SCENARIOS[arguments.scenario]
        for pods in arguments.sizes or [usual]:
            with crowd_of(arguments.deployer, pods) as crowd:
                if not play(crowd, Witness):
                    sys.exit(f"scale.py: {arguments.scenario} misses its goal")
        return
    load = os.getloadavg()[0]
    # The longest comes first, so that its failure shows early.
    measurements = {pods: measured(arguments.deployer, pods) for pods in sorted(arguments.sizes or USUAL, reverse=True)}
    sizes = dict(sorted(measurements.items()))
    report = f"{table(sizes)}\n\n{method(load)}\n\n{law(sizes)}"
    print(report)
    if set(USUAL) <= set(sizes):
        performance.write_section("scale", report)
        print(f"\nwritten to {performance.DOCUMENT.relative_to(REPOSITORY)}")


@contextmanager
def crowd_of(deployer: Path, pods: int) -> Iterator[Crowd]:
    with tempfile.TemporaryDirectory(prefix="scale-") as directory:
        crowd = Crowd(Path(directory), deployer.resolve(), pods)
        try:
            started = time.monotonic()
            crowd.start({(".spec.nodeName", BROKEN): [(PULL_SECONDS, "notfound")]})
            print(f"{pods:,} pods run after {time.monotonic() - started:.0f} s", flush=True)
            yield crowd
        finally:
            crowd.stop()


class Witness:
    """The times of the events that the deployer and kubectl report: when the API server had answered, by its audit log."""

    def __init__(self, crowd: Crowd, commit: str) -> None:
        self.crowd, self.commit, self.since = crowd, commit, time.time()
        self.ready, self.removals, self.completion = dict[str, float](), dict[str, float](), list[float]()
        """The times of new and old pods, by name, and of the status that kubectl waits for."""
        self.observed = math.inf
        """When the Deployment's controller had seen the commit. The deployer counts no pod until then."""

    def end(self) -> None:
        """The times of a finished rollout."""
        for event in self.crowd.plane.audit():
            target, code = event.get("objectRef", {}), event.get("responseStatus", {}).get("code")
            if event["received"] < self.since or code != 200:
                continue
            who = event["user"]["username"], event["verb"], target.get("resource"), target.get("subresource")
            if who == ("kubelet", "patch", "pods", "status"):
                self.ready.setdefault(target["name"], event["answered"])
            elif who == ("kubelet", "delete", "pods", None):
                self.removals.setdefault(target["name"], event["answered"])
            elif who[2:] == ("deployments", "status") and is_observed(event["requestObject"], self.commit):
                self.observed = min(self.observed, event["answered"])
                if is_complete(event["requestObject"], self.commit):
                    self.completion.append(event["answered"])
        for name in self.removals:
            self.ready.pop(name, None)

    def lags(self, run: Run) -> Iterator[tuple[str, float]]:
        """The lags of the lines by their word, in seconds, from the event or from the time at which it could be reported."""
        ready = sorted(self.ready.values())
        applied = next(said for said, line in zip(run.times, run.lines, strict=True) if "  applied; " in line)
        for said, line in zip(run.times, run.lines, strict=True):
            if found := re.search(r" available \((\d+) of ", line):
                yield "available", said - max(applied, self.observed, ready[int(found.group(1)) - 1])
            elif "  replaced: " in line:
                yield "replaced", said - max(self.removals.values())


def is_observed(deployment: Any, commit: str) -> bool:
    metadata = deployment["metadata"]
    is_current = deployment["status"].get("observedGeneration", 0) >= metadata["generation"]
    return bool(is_current and metadata["annotations"][COMMIT] == commit)


def measured(deployer: Path, pods: int) -> list[Figures]:
    rounds = ROUNDS.get(pods, 1)
    # The first update after the creation also migrates the managed fields. Of several rollouts, it is not counted.
    first = 1 if rounds == 1 else 2
    with crowd_of(deployer, pods) as crowd:
        return [measured_once(crowd, commit) for commit in crowd.commits[1 : first + rounds]][first - 1 :]


def measured_once(crowd: Crowd, commit: str) -> Figures:
    proxies = [CountingProxy(crowd.plane.port) for _ in range(2)]
    witness = Witness(crowd, commit)
    rollout = crowd.roll_out(NAMESPACE, commit, (proxies[0].port, proxies[1].port))
    with ThreadPoolExecutor() as workers:
        workers.submit(rollout.deployer.weigh)
    rollout.end_with(0)
    witness.end()
    one = figures_of(crowd.plane.audit(), rollout, witness, sum(proxies[0].sizes))
    print(
        f"{crowd.pods:,} pods replaced in {rollout.seconds():.1f} s: {one.processor:.2f} s of processor,"
        f" {one.memory / 1e6:.0f} MB, 95 % of the lines within {p95(one.available + [one.replaced]) * 1e3:.0f} ms,"
        f" replaced {one.replaced * 1e3:.0f} ms late",
        flush=True,
    )
    return one


def figures_of(audit: list[Any], rollout: Rollout, witness: Witness, received: int) -> Figures:
    run = rollout.deployer
    asked = [
        event["requestURI"]
        for event in audit
        if event["user"]["username"] == account(NAMESPACE) and run.started < event["received"] < run.ended
    ]
    lags = list(witness.lags(run))
    return Figures(
        run.processor,
        run.memory,
        len(asked),
        sum("/proxy/" in uri for uri in asked),
        received,
        [late for word, late in lags if word == "available"],
        next(late for word, late in lags if word == "replaced"),
        rollout.kubectl.processor,
        rollout.kubectl.ended - min(witness.completion),
    )


def table(sizes: dict[int, list[Figures]]) -> str:
    header = ["pods", "CPU, s", "memory, MB", "requests (proofs in them)", "received, MB", "lag of the lines, p95, ms"]
    header += ["lag of “replaced”, ms", "kubectl: CPU, s", "kubectl: lag, ms", "goals"]
    rows = []
    for pods, rounds in sizes.items():
        late = p95([late for one in rounds for late in [*one.available, one.replaced]])

        def middle(name: str, of: list[Figures] = rounds) -> float:
            return median(getattr(one, name) for one in of)

        row = [f"{middle('processor'):.2f}", f"{middle('memory') / 1e6:.0f}"]
        row += [f"{middle('requests'):,.0f} ({middle('proofs'):,.0f})", f"{middle('received') / 1e6:.1f}"]
        row += [f"{late * 1e3:.0f}", f"{middle('replaced') * 1e3:.0f}"]
        row += [f"{middle('kubectl_processor'):.2f}", f"{middle('kubectl_lag') * 1e3:.0f}"]
        rows.append([f"{pods:,}", *row, goals(pods, middle("processor"), middle("memory"), late)])
    return performance.table(header, rows)


def goals(pods: int, processor: float, memory: float, late: float) -> str:
    seconds = {1000: 3, 3000: 10}.get(pods, math.inf)
    missed = {"CPU": processor > seconds, "memory": memory > 12e6 + 30e3 * pods, "lag": late > 0.3}
    words = [f"**{name} missed**" for name, is_missed in missed.items() if is_missed]
    return ", ".join(words) or "met"


def law(sizes: dict[int, list[Figures]]) -> str:
    """The growth of the processor time, by a straight line through the logarithms."""
    points = [(pods, median(one.processor for one in rounds)) for pods, rounds in sizes.items() if pods >= 100]
    if len(points) < 2:
        return "Two sizes of 100 pods and more show how the processor time grows."
    slope, _ = linear_regression(*zip(*((math.log(pods), math.log(seconds)) for pods, seconds in points), strict=True))
    each = [f"{seconds / pods * 1e3:.2f} ms at {pods:,}" for pods, seconds in points]
    return (
        f"From {points[0][0]:,} to {points[-1][0]:,} pods the deployer's processor time grows with the number of pods"
        f" to the power of {slope:.2f} (1 is linear, 2 is quadratic): a pod costs {', '.join(each)}."
    )


def method(load: float) -> str:
    rounds = ", ".join(f"{count} at {pods:,}" for pods, count in ROUNDS.items())
    return (
        f"Measured by `bench/scale.py`: {performance.circumstances()}, load {load:.1f} at the start and"
        f" {os.getloadavg()[0]:.1f} at the end, the control plane on the same cores at a lower priority (nice 5). There is a"
        " control plane for each size, whose controllers and scheduler may send 2,000 requests a second, and whose server"
        " handles as many at the same time. Nodes"
        f" and pods are played by kwok {KWOK.rpartition('@')[2]}:"
        " a pod is ready as soon as it has a node, and gone as soon as it is deleted, so everything happens as fast as"
        " the control plane allows. `maxSurge` and `maxUnavailable` are 25 %, `minReadySeconds` is 0, and each"
        f" pod answers which commit it runs. Medians of {rounds} rollouts, else one. The lag of a line (this many pods"
        " are available, the last old pod is gone) is counted from the time at which the API server had answered the"
        " deciding request, by its audit log. If that was earlier, it is counted from the time at which the deployer had"
        " applied all documents and the Deployment's status was of the new generation."
        " kubectl's lag is counted from the complete status to its exit. The bytes of both pass through a proxy that counts"
        " them. Memory is the highest resident set. Goals: at most 3 s of processor time at 1,000 pods and 10 s at 3,000,"
        " 12 MB and 30 kB a pod, a lag under 300 ms."
    )


def p95(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


if __name__ == "__main__":
    main()
