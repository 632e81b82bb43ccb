"""The cluster before a rollout: the first commit serves in every namespace, by the shipped template."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from performance import REPOSITORY
from rollout_cluster import (
    COMMIT,
    DELETED,
    START_SECONDS,
    Condition,
    ControlPlane,
    Network,
    Step,
    add_node,
    life,
    observed,
    stage,
    start_kwok,
)
from rollout_run import Rollout, Run

DEADLINE_SECONDS = 20
EDITS = {
    "progressDeadlineSeconds: 120": f"progressDeadlineSeconds: {DEADLINE_SECONDS}",
    "minReadySeconds: 5": "minReadySeconds: 0",
}
PODS = 3
READY_SECONDS = 0.5


class Bed:
    """The cluster, its kubelets, and a clone with commits to deploy."""

    pods, edits, patience_seconds, nice = PODS, EDITS, START_SECONDS, 0
    nodes = ["node-a"]
    usual: list[Step] = [(0, "notready"), (READY_SECONDS, "healthy")]
    """What happens to a pod."""
    end_seconds = 1.0
    """How long a pod takes to end after its deletion."""

    def __init__(self, directory: Path, deployer: Path, namespaces: list[str], commits: int) -> None:
        users = [user for name in namespaces for user in (account(name), f"kubectl:{name}")]
        os.environ["KUBECACHEDIR"] = str(directory / "kubectl")  # instead of one in the home directory
        self.plane = ControlPlane(directory / "plane", ["kubelet", *users], self.nice)
        self.deployer, self.namespaces, self.runs = deployer, namespaces, list[Run]()
        self.clone = directory / "clone"
        self.commits = make_commits(self.clone, commits)
        # The pods of a commit share an address, from which the network knows what to answer.
        self.addresses = {commit: f"10.1.{n // 256}.{n % 256}" for n, commit in enumerate(self.commits)}
        text = (REPOSITORY / "kubernetes/deployment.yaml.tmp").read_text()
        for shipped, ours in self.edits.items():
            if shipped not in text:
                sys.exit(f"rollout.py: kubernetes/deployment.yaml.tmp no longer has `{shipped}`: correct EDITS")
            text = text.replace(shipped, ours)
        self.template = self.plane.write("template.yaml", text)
        self.network = Network(self.plane, {address: commit for commit, address in self.addresses.items()})
        self.admin = self.plane.api("admin")

    def start(self, unusual: dict[tuple[str, str], list[Step]]) -> None:
        """Returns when the first commit runs in every namespace. `unusual` is, by field and value, what happens to pods
        whose field has that value."""
        for name in self.nodes:
            add_node(self.admin, name)
        start_kwok(self.plane, self.stages(unusual))
        runtime = {"metadata": {"name": "wasmtime-spin-v2"}, "handler": "spin"}
        self.admin.ask("POST", "/apis/node.k8s.io/v1/runtimeclasses", runtime)
        for name in self.namespaces:
            self.admin.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        with ThreadPoolExecutor(4) as workers:
            for _ in workers.map(self.settle, self.namespaces):
                pass

    def stages(self, unusual: dict[tuple[str, str], list[Step]]) -> list[dict[str, Any]]:
        others: list[Condition] = [(field, "NotIn", value) for field, value in unusual]
        lives: list[tuple[list[Condition], list[Step]]] = [(others, self.usual)]
        lives += [([(field, "In", value)], steps) for (field, value), steps in unusual.items()]
        stages = [stage("gone", "Pod", [(DELETED, "Exists")], self.end_seconds, None)]
        for number, (where, steps) in enumerate(lives):
            stages += life(f"life-{number}", where, [(seconds, self.status(situation)) for seconds, situation in steps])
        return stages

    def status(self, situation: str) -> str:
        """A template for kwok."""
        return observed(situation, self.address())

    def address(self) -> str:
        pairs = " ".join(f'"{commit}" "{address}"' for commit, address in self.addresses.items())
        return f"{{{{ get (dict {pairs}) (index .metadata.annotations {json.dumps(COMMIT)}) }}}}"

    def settle(self, namespace: str) -> None:
        self.wait_for(lambda: self.admin.ask("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts")["items"])
        rendering = [str(self.deployer), "render", *self.arguments(self.commits[0])]
        documents = subprocess.run(rendering, capture_output=True, text=True, check=True).stdout
        role = (REPOSITORY / "kubernetes/deployer-rbac.yaml").read_text()
        applying = [str(self.plane.binaries / "kubectl"), "apply", "--server-side", "--field-manager=deployer"]
        applying += ["-f", "-", "-n", namespace, "--kubeconfig", str(self.plane.kubeconfig(f"kubectl:{namespace}"))]
        applied = subprocess.run(applying, input=f"{documents}\n---\n{role}", capture_output=True, text=True)
        if applied.returncode:
            sys.exit(f"rollout.py: `{' '.join(applying)}` ended with {applied.returncode}: {applied.stderr}")
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/request-info"
        self.wait_for(lambda: self.admin.ask("GET", path).get("status", {}).get("availableReplicas") == self.pods)

    def arguments(self, commit: str) -> list[str]:
        image = f"registry.example/request-info:{commit[:12]}"
        return ["--image", image, "--commit", commit, "--template", str(self.template)]

    def roll_out(self, namespace: str, commit: str, ports: tuple[int, int] = (0, 0)) -> Rollout:
        """Starts the deployer and, once it has applied, kubectl. They use the given ports, if any."""
        command = [str(self.deployer), "deploy", *self.arguments(commit), "-n", namespace]
        command += ["--timeout", f"{2 * self.patience_seconds}s"]
        deployer = self.run(command, self.plane.kubeconfig(account(namespace), namespace, ports[0]))
        deployer.has_applied.wait()
        command = [str(self.plane.binaries / "kubectl"), "rollout", "status", "deployment/request-info"]
        command += ["-n", namespace]
        kubectl = self.run(command, self.plane.kubeconfig(f"kubectl:{namespace}", namespace, ports[1]))
        return Rollout(namespace, commit, deployer, kubectl)

    def run(self, command: list[str], kubeconfig: Path) -> Run:
        self.runs.append(Run(command, kubeconfig, self.clone))
        return self.runs[-1]

    def wait_for(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + self.patience_seconds
        while not condition():
            if time.monotonic() > deadline:
                tool = Path(sys.argv[0]).name
                sys.exit(f"{tool}: the cluster did not reach the expected state within {self.patience_seconds} s")
            time.sleep(0.1)

    def stop(self) -> None:
        for run in self.runs:
            if run.process.poll() is None:
                run.process.kill()
        self.plane.stop()


def account(namespace: str) -> str:
    """The deployer's user, which has only the permissions of the shipped Role."""
    return f"system:serviceaccount:{namespace}:deployer"


def make_commits(clone: Path, count: int) -> list[str]:
    git = ["git", "-C", str(clone), "-c", "user.name=bench", "-c", "user.email=bench@example.com"]
    subprocess.run(["git", "init", "--quiet", str(clone)], check=True)
    for number in range(count):
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", f"commit {number}"], check=True)
    listing = subprocess.run([*git, "rev-list", "--reverse", "HEAD"], check=True, capture_output=True, text=True)
    return listing.stdout.split()
