#!/usr/bin/env python3
"""Measures the deployer beside `kubectl rollout status`, on the same rollouts of a real control plane.

etcd, API server, controllers and scheduler run on loopback. kwok plays the kubelets and writes what real ones wrote, so
that a rollout takes seconds and each deciding moment is one request in the API server's audit log. Lag is counted
from the moment the server received that request to the exit. The template is the shipped one, with the changes that
rollout_bed.EDITS makes to have it over sooner. The table is written to docs/performance.md, unless it is of fewer
rollouts than usual.
"""

import argparse
import math
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import performance
from compare import megabytes
from performance import REPOSITORY
from rollout_bed import DEADLINE_SECONDS, EDITS, PODS, READY_SECONDS, Bed, account
from rollout_cluster import OF_COMMIT, Api, CountingProxy, Step
from rollout_run import Rollout, completion, first_status, last_removal, requests

DEPLOYER = REPOSITORY / "target/x86_64-unknown-linux-gnu/release/deployer"

USUAL = (30, 10)
"""Rollouts that succeed, and that fail in each way."""
OTHERS = 1000
LIMIT_SECONDS = 360
"""The time limit of a run."""

SLOW: list[Step] = [(0, "notready"), (12 * READY_SECONDS, "healthy")]
NAMESPACE = "rollouts"
"""The namespaces of the rollouts that succeed. Each failing rollout has its own."""
FAILURES = {"ImagePullBackOff": "notfound", "CrashLoopBackOff": "crash"}


@dataclass(frozen=True)
class Cost:
    """The cost of one rollout, for the deployer and for kubectl."""

    rollout: Rollout
    received: list[int]
    """Bytes."""

    def memory(self) -> list[int]:
        return [self.rollout.deployer.memory, self.rollout.kubectl.memory]


@dataclass(frozen=True)
class Lags:
    """Lags in seconds, one for each rollout."""

    deployer: list[float]
    """From the removal of the last old pod to the deployer's exit."""
    kubectl: list[float]
    """From the status that kubectl waits for to its exit."""
    between: list[float]
    """From kubectl's exit to the removal of the last old pod."""
    server: list[float]
    """How long the server took for that removal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=USUAL[0], help=f"the number of rollouts for the lag ({USUAL[0]})")
    parser.add_argument("--failures", type=int, default=USUAL[1], help=f"the number of failing rollouts of each kind ({USUAL[1]})")
    parser.add_argument("--deployer", type=Path, default=DEPLOYER, metavar="FILE", help="the release build by default")
    parser.add_argument("--beside", default="", metavar="TEXT", help="what else ran meanwhile, for the record")
    arguments = parser.parse_args()
    if min(arguments.rollouts, arguments.failures) < 1:
        parser.error("--rollouts and --failures are at least 1")
    if not arguments.deployer.exists():
        sys.exit(f"rollout.py: {arguments.deployer} does not exist: make deployer, or name another one with --deployer")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("rollout.py: terminated"))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"rollout.py: gave up after {LIMIT_SECONDS} s"))
    signal.alarm(LIMIT_SECONDS)

    load = os.getloadavg()[0]
    names = [(why, f"{why.lower()}-{number}") for number in range(arguments.failures) for why in FAILURES]
    with bed_of(arguments, [NAMESPACE, *(name for _, name in names)]) as bed:
        # The first update after the creation also migrates the managed fields, so it is not counted.
        first, *others = bed.commits[1 : -len(FAILURES)]
        bad = dict(zip(FAILURES, bed.commits[-len(FAILURES) :], strict=True))
        roll_out_well(bed, first)
        done = [roll_out_well(bed, commit) for commit in others[: arguments.rollouts]]
        costs = measure_costs(bed, others[arguments.rollouts :])
        failed = [(why, roll_out_badly(bed, name, bad[why])) for why, name in names]
        for _, rollout in failed:
            rollout.end_with(1)
        audit = bed.plane.audit()
        sizes = [file.stat().st_size for file in (arguments.deployer, bed.plane.binaries / "kubectl")]

    removals = [last_removal(audit, each) for each in done]
    lags = Lags(
        deployer=[each.deployer.ended - asked for each, (asked, _) in zip(done, removals, strict=True)],
        kubectl=[each.kubectl.ended - completion(audit, each) for each in done],
        between=[asked - each.kubectl.ended for each, (asked, _) in zip(done, removals, strict=True)],
        server=[removed - asked for asked, removed in removals],
    )
    verdicts = {
        why: [
            [getattr(each, program).ended - first_status(audit, each) for reason, each in failed if reason == why]
            for program in ("deployer", "kubectl")
        ]
        for why in FAILURES
    }
    counts = {name: [requests_of(audit, cost.rollout)] for name, cost in costs.items()}
    counts[next(iter(costs))] += [requests_of(audit, each) for each in done]
    report = table(lags, verdicts, counts, costs, sizes)
    text = method(arguments, lags, costs, load)
    print(report, text, sep="\n\n")
    if arguments.rollouts >= USUAL[0] and arguments.failures >= USUAL[1]:
        performance.write_section("deployer", f"{report}\n\n{text}")
        print(f"\nwritten to {performance.DOCUMENT.relative_to(REPOSITORY)}")


@contextmanager
def bed_of(arguments: argparse.Namespace, namespaces: list[str]) -> Iterator[Bed]:
    with tempfile.TemporaryDirectory(prefix="rollout-") as directory:
        bed = Bed(Path(directory), arguments.deployer.resolve(), namespaces, 6 + arguments.rollouts + len(FAILURES))
        # The last commits fail. Of those that succeed, the last but one is slow.
        steps = [SLOW, None, *([(0, situation)] for situation in FAILURES.values())]
        try:
            bed.start({(OF_COMMIT, bed.commits[n - len(steps)]): each for n, each in enumerate(steps) if each})
            yield bed
        finally:
            bed.stop()


def roll_out_well(bed: Bed, commit: str) -> Rollout:
    rollout = bed.roll_out(NAMESPACE, commit).end_with(0)
    print(f"{commit[:12]} replaced the previous commit in {rollout.seconds():.1f} s", flush=True)
    return rollout


def roll_out_badly(bed: Bed, namespace: str, commit: str) -> Rollout:
    """Returns with the deployer's verdict; kubectl waits for the progress deadline, while the next rollouts begin."""
    rollout = bed.roll_out(namespace, commit)
    rollout.deployer.ends_with(1)
    print(f"{namespace}: a verdict after {rollout.seconds():.1f} s", flush=True)
    return rollout


def measure_costs(bed: Bed, commits: list[str]) -> dict[str, Cost]:
    """The costs of rollouts, measured by counting proxies. The first rollout only fills kubectl's discovery cache."""
    proxies = [CountingProxy(bed.plane.port) for _ in range(2)]
    ports = (proxies[0].port, proxies[1].port)
    bed.roll_out(NAMESPACE, commits[0], ports).end_with(0)

    def cost_of(commit: str) -> Cost:
        before = [sum(proxy.sizes) for proxy in proxies]
        rollout = bed.roll_out(NAMESPACE, commit, ports)
        with ThreadPoolExecutor() as workers:
            workers.submit(rollout.deployer.weigh)
            workers.submit(rollout.kubectl.weigh)
        rollout.end_with(0)
        print(f"{commit[:12]} replaced the previous commit in {rollout.seconds():.1f} s, its bytes counted", flush=True)
        return Cost(rollout, [sum(proxy.sizes) - size for proxy, size in zip(proxies, before, strict=True)])

    usual, slow = cost_of(commits[1]), cost_of(commits[2])
    add_others(bed.admin)
    crowded = cost_of(commits[3])
    longer = f"the same, {slow.rollout.seconds() / usual.rollout.seconds():.1f} times as long"
    return {f"one rollout of {PODS} pods": usual, longer: slow, f"the same, {OTHERS:,} other pods beside it": crowded}


def add_others(api: Api) -> None:
    """Pods that have nothing to do with the rollout, and no node."""
    spec = {"schedulerName": "none", "containers": [{"name": "other", "image": "other"}]}
    pods = [
        {"metadata": {"name": f"other-{number}", "labels": {"app": "other"}}, "spec": spec} for number in range(OTHERS)
    ]
    with ThreadPoolExecutor(8) as workers:
        for _ in workers.map(lambda pod: api.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", pod), pods):
            pass


def requests_of(audit: list[Any], rollout: Rollout) -> list[int]:
    """The sizes of the deployer and of kubectl."""
    users = {account(rollout.namespace): rollout.deployer, f"kubectl:{rollout.namespace}": rollout.kubectl}
    return [requests(audit, user, run) for user, run in users.items()]


def table(
    lags: Lags,
    verdicts: dict[str, list[list[float]]],
    counts: dict[str, list[list[int]]],
    costs: dict[str, Cost],
    sizes: list[int],
) -> str:
    """Medians, with the lowest and the highest if there are several."""
    ours, its = lags.deployer, lags.kubectl
    rows = [
        ["deciding event to exit", f"{spread(ours, 1e3)} ms", f"{spread(its, 1e3)} ms", ""],
        [
            "… 95th percentile",
            *(f"{p95(each) * 1e3:.0f} ms" for each in (ours, its)),
            goal(p95(ours) < 0.2, "< 200 ms"),
        ],
    ]
    for why, pair in verdicts.items():
        figures = [f"{spread(each, 1, '.2f')} s" for each in pair]
        rows.append([f"first {why} to exit", *figures, goal(max(pair[0]) < 3, "< 3 s")])
    for name, each in counts.items():
        limit, (mine, others) = 25 + PODS, zip(*each, strict=True)
        rows.append([f"API requests, {name}", spread(mine), spread(others), goal(max(mine) <= limit, f"≤ {limit}")])
    for name, cost in costs.items():
        rows.append([f"received, {name}", *(f"{size / 1e3:,.0f} kB" for size in cost.received), ""])
    memory = [max(each) for each in zip(*(cost.memory() for cost in costs.values()), strict=True)]
    rows += [
        ["memory", *(f"{megabytes(size)} MB" for size in memory), goal(memory[0] < 30e6, "< 30 MB")],
        ["program", *(f"{megabytes(size)} MB" for size in sizes), goal(sizes[0] < 15e6, "< 15 MB")],
    ]
    return performance.table(["", "deployer", "kubectl rollout status", "goal"], rows)


def goal(is_met: bool, text: str) -> str:
    return f"{text}: {'met' if is_met else '**missed**'}"


def p95(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def spread(values: Sequence[float], unit: float = 1, form: str = ".0f") -> str:
    lowest, middle, highest = (f"{choose(values) * unit:{form}}" for choose in (min, median, max))
    return middle if lowest == highest else f"{middle} ({lowest} to {highest})"


def method(arguments: argparse.Namespace, lags: Lags, costs: dict[str, Cost], load: float) -> str:
    beside = f" beside {arguments.beside}," if arguments.beside else ""
    usual = next(iter(costs.values())).rollout.seconds()
    edits = " and ".join(f"`{edit}`" for edit in EDITS.values())
    return (
        f"Measured by `bench/rollout.py`: {performance.circumstances()},{beside} load {load:.1f} at the start and"
        f" {os.getloadavg()[0]:.1f} at the end, the control plane on the same cores. {arguments.rollouts} rollouts that"
        f" succeed, one after the other, and {arguments.failures} that fail in each way, each in a namespace of its own"
        " where the previous commit serves. kubectl is started on the same rollout as soon as the deployer has applied."
        " The control plane is real; kwok plays the kubelet and writes what real ones wrote: a pod is ready after"
        f" {READY_SECONDS} s, and an old one gone {Bed.end_seconds:.0f} s after its deletion, where the shipped preStop"
        f" takes 35 s. The template is the shipped one with {edits}; a rollout of {PODS} pods took {usual:.1f} s from"
        " the deployer's start to its exit. Figures of several rollouts are medians, with the lowest and the highest."
        "\n\n"
        "The two wait for different events. The deployer waits for the removal of the last old pod, and then asks all"
        f" {PODS} new pods, through the API server, which commit they run. kubectl waits for the status in which every"
        " new pod is available. It then says “successfully rolled out” while old pods still serve: its exit came"
        f" {median(lags.between):.2f} s (median) before the last old pod was removed. Both lags are counted from the time"
        " at which the API server received the deciding request, by its audit log. They therefore include the server's"
        f" own time: it took {spread(lags.server, 1e3)} ms to remove that pod. kubectl notices a failure only at the"
        " progress deadline, which counts from the rollout's last"
        f" progress: {DEADLINE_SECONDS} s here, 120 s in the shipped template."
        "\n\n"
        "They also do different work. The deployer checks, judges, applies, follows and proves, under the shipped Role."
        " kubectl only watches the Deployment, and its cache already had the server's API. If the budget's controller"
        " writes at the same moment, the deployer reads and writes again, which takes three more requests."
        " Bytes are those received over TLS. Memory is the highest resident set in the rollouts whose bytes are"
        " counted, read every 10 ms. kubectl is the program that `e2e/cluster.sh binaries` builds."
    )


if __name__ == "__main__":
    main()
