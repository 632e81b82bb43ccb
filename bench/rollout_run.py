"""One rollout with the deployer and kubectl, and the times of the deciding events, by the API server's audit log."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rollout_cluster import COMMIT, CONTROLLER


class Run:
    """A running program. Its output is kept with the times, as are its end and its processor time in seconds."""

    def __init__(self, command: list[str], kubeconfig: Path, directory: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.command, self.started, self.ended, self.memory, self.processor = command, time.time(), 0.0, 0, 0.0
        self.lines, self.times, self.has_applied = list[str](), list[float](), Event()
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment | {"KUBECONFIG": str(kubeconfig)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        for line in self.process.stdout or []:
            self.times.append(time.time())
            self.lines.append(line)
            if "  applied; " in line:
                self.has_applied.set()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.ended = time.time()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.processor = usage.ru_utime + usage.ru_stime
        self.has_applied.set()

    def weigh(self) -> None:
        """Measures its highest resident memory, in bytes, until it ends."""
        status = Path(f"/proc/{self.process.pid}/status")
        with suppress(OSError):
            while found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text()):
                self.memory = int(found.group(1)) * 1024
                time.sleep(0.01)

    def ends_with(self, code: int) -> None:
        self.reader.join()
        if self.process.returncode != code:
            said = f"`{' '.join(self.command)}` ended with {self.process.returncode}:\n{''.join(self.lines)}"
            sys.exit(f"rollout.py: {said}")


@dataclass(frozen=True)
class Rollout:
    namespace: str
    commit: str
    deployer: Run
    kubectl: Run

    def end_with(self, code: int) -> "Rollout":
        self.deployer.ends_with(code)
        self.kubectl.ends_with(code)
        return self

    def seconds(self) -> float:
        return self.deployer.ended - self.deployer.started


def of_rollout(audit: list[Any], rollout: Rollout, user: str, verb: str, resource: str) -> Iterator[Any]:
    for event in audit:
        target = event.get("objectRef", {})
        if (
            rollout.deployer.started < event["received"] < rollout.deployer.ended
            and (event["user"]["username"], event["verb"]) == (user, verb)
            and target.get("namespace") == rollout.namespace
            and "/".join(filter(None, [target.get("resource"), target.get("subresource")])) == resource
        ):
            yield event


def last_removal(audit: list[Any], rollout: Rollout) -> tuple[float, float]:
    """When the server got the request to remove the last old pod, which the deployer waits for, and when it had removed it."""
    removals = of_rollout(audit, rollout, "kubelet", "delete", "pods")
    return max((event["received"], event["answered"]) for event in removals)


def first_status(audit: list[Any], rollout: Rollout) -> float:
    """When the kubelet first wrote the status of a new pod."""
    return float(min(event["received"] for event in of_rollout(audit, rollout, "kubelet", "patch", "pods/status")))


def completion(audit: list[Any], rollout: Rollout) -> float:
    """When the Deployment's controller first wrote the status that kubectl considers complete."""
    updates = of_rollout(audit, rollout, CONTROLLER, "update", "deployments/status")
    return float(min(event["received"] for event in updates if is_complete(event["requestObject"], rollout.commit)))


def is_complete(deployment: Any, commit: str) -> bool:
    status, metadata = deployment["status"], deployment["metadata"]
    updated = status.get("updatedReplicas", 0)
    return bool(
        metadata["annotations"][COMMIT] == commit
        and status.get("observedGeneration", 0) >= metadata["generation"]
        and updated >= deployment["spec"]["replicas"]
        and status.get("replicas", 0) <= updated <= status.get("availableReplicas", 0)
    )


def requests(audit: list[Any], user: str, run: Run) -> int:
    return sum(event["user"]["username"] == user and run.started < event["received"] < run.ended for event in audit)
