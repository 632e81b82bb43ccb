"""A cluster for rollouts, without root: a real control plane, kwok's nodes, and a pods' network that is played here."""

import json
import os
import re
import shlex
import socket
import socketserver
import ssl
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

from compare import go_program
from performance import REPOSITORY

LAUNCHER = REPOSITORY / "e2e/control-plane.sh"
KWOK = "sigs.k8s.io/kwok/cmd/kwok@v0.8.0"
OBSERVED = REPOSITORY / "deployer/tests/observed"
COMMIT = "request-info.dev/commit"
OF_COMMIT = f'.metadata.annotations["{COMMIT}"]'
START_SECONDS = 90
KUBELET_PORT = 10250
CONTROLLER = "system:serviceaccount:kube-system:deployment-controller"
AUDIT = [
    {"level": "Request", "resources": [{"group": "apps", "resources": ["deployments/status"]}]},
    {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
    {
        "level": "None",
        "users": ["admin", "system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"],
    },
    {"level": "Metadata"},
]


class Api:
    """A client of the API server, as one user."""

    def __init__(self, port: int, user: str, certificate: Path) -> None:
        self.url, self.user = f"https://127.0.0.1:{port}", user
        https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(certificate)))
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), https)

    def open(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        headers = {"Authorization": f"Bearer {self.user}", "Content-Type": kind}
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        return self.opener.open(request, timeout=START_SECONDS)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        with self.open(method, path, body, kind) as answer:
            return json.load(answer)

    def merge(self, path: str, body: Any) -> None:
        self.ask("PATCH", path, body, "application/merge-patch+json")


class ControlPlane:
    """etcd, API server, controllers and scheduler on free ports of the loopback interface, until it is stopped."""

    def __init__(self, directory: Path, users: list[str], nice: int) -> None:
        """`nice` is the nice value of its programs."""
        self.directory, self.binaries = directory, directory / "bin"
        tokens = [f'{user},{user},{user},"{"system:masters" * (":deployer" not in user)}"' for user in users]
        self.launcher = subprocess.Popen(
            ["nice", "-n", str(nice), LAUNCHER, directory],
            env=os.environ | {"AUDIT": json.dumps(AUDIT), "TOKENS": "\n".join(tokens)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.answer("start")
        self.admin_kubeconfig = json.loads((directory / "admin.kubeconfig").read_text())
        self.port = int(self.admin_kubeconfig["clusters"][0]["cluster"]["server"].rpartition(":")[2])

    def ask(self, command: str) -> None:
        """Lets the launcher run one of its functions, and waits for its end."""
        print(command, file=self.launcher.stdin, flush=True)
        self.answer(command)

    def answer(self, command: str) -> None:
        said = ""
        for line in self.launcher.stdout or []:
            if line == "done\n":
                return
            said += line
        sys.exit(f"{Path(sys.argv[0]).name}: {LAUNCHER} ended at `{command}`:\n{said}")

    def restart_api_server(self) -> float:
        """Restarts the API server. Returns the time at which it was gone. It serves requests some time before it reports that it is ready."""
        self.ask("end apiserver")
        gone = time.time()
        self.ask("resume")
        return gone

    def stop(self) -> None:
        if self.launcher.stdin:
            self.launcher.stdin.close()
        self.answer("end")
        self.launcher.wait()

    def api(self, user: str) -> Api:
        return Api(self.port, user, self.directory / "certs/apiserver.crt")

    def kubeconfig(self, user: str, namespace: str = "default", port: int = 0) -> Path:
        """A kubeconfig for the given port, else for the API server's."""
        content = json.loads(json.dumps(self.admin_kubeconfig))
        content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port or self.port}"
        content["users"][0]["user"]["token"] = user
        content["contexts"][0]["context"]["namespace"] = namespace
        return self.write(f"kubeconfig-{user.replace(':', '-')}-{port or self.port}", json.dumps(content))

    def write(self, name: str, text: str) -> Path:
        file = self.directory / name
        file.write_text(text)
        return file

    def audit(self) -> list[dict[str, Any]]:
        """All requests to the API server so far, each once, with the times of request and answer."""
        requests: dict[str, dict[str, Any]] = {}
        for line in (self.directory / "audit.log").read_text().splitlines():
            with suppress(ValueError):  # the last line may be incomplete
                event = json.loads(line)
                for name, source in {"received": "requestReceivedTimestamp", "answered": "stageTimestamp"}.items():
                    event[name] = datetime.fromisoformat(event[source]).timestamp()
                requests.setdefault(event["auditID"], event)
        return list(requests.values())


class Network(socketserver.ThreadingUnixStreamServer):
    """The proxy through which the API server connects to pods and kubelets."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, plane: ControlPlane, commits: dict[str, str]) -> None:
        """`commits` are what pods answer, by address."""
        super().__init__(str(plane.directory / "egress"), Connection)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(*(plane.directory / f"certs/apiserver.{kind}" for kind in ("crt", "key")))
        self.commits = commits
        Thread(target=self.serve_forever, daemon=True).start()


class Connection(socketserver.BaseRequestHandler):
    server: Network

    def handle(self) -> None:
        with suppress(OSError):  # the client may disconnect early
            address, port = target_of(self.request).split(":")
            self.request.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            if int(port) == KUBELET_PORT:
                with self.server.tls.wrap_socket(self.request, server_side=True) as stream:
                    return answer(stream, "text/plain", "the last line of a container\n")
            return answer(self.request, "application/json", json.dumps({"commit": self.server.commits[address]}))


def target_of(stream: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = stream.recv(4096)
        if not received:
            raise ConnectionResetError
        head += received
    return head.decode().split()[1]


def answer(stream: socket.socket, kind: str, body: str) -> None:
    target_of(stream)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    stream.sendall(head.encode() + body.encode())


class CountingProxy(socketserver.ThreadingTCPServer):
    """Passes connections on to the API server, and counts the bytes that come back."""

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), Passage)
        self.target, self.port, self.sizes = target, self.server_address[1], list[int]()
        self.open, self.is_cut = set[socket.socket](), False
        Thread(target=self.serve_forever, daemon=True).start()

    def cut(self, seconds: float) -> float:
        """Ends every connection, and accepts none for this long. Returns the time of its end."""
        self.is_cut = True
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        time.sleep(seconds)
        self.is_cut = False
        return time.time()


class Passage(socketserver.BaseRequestHandler):
    server: CountingProxy

    def handle(self) -> None:
        if self.server.is_cut:
            return
        with socket.create_connection(("127.0.0.1", self.server.target)) as upstream, suppress(OSError):
            self.server.open.update((self.request, upstream))
            Thread(target=send_on, args=(self.request, upstream), daemon=True).start()
            while received := upstream.recv(1 << 16):
                self.server.sizes.append(len(received))
                self.request.sendall(received)


def send_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while sent := source.recv(1 << 16):
            target.sendall(sent)
        target.shutdown(socket.SHUT_WR)


Step = tuple[float, str]
"""So many seconds after the previous step, a pod's kubelet writes what a real one wrote in this situation."""
Condition = tuple[str, str, *tuple[str, ...]]
"""A field, an operator, and values: `In` and `NotIn` have some, `Exists` and `DoesNotExist` none."""
DELETED = ".metadata.deletionTimestamp"
READY = '.status.conditions[] | select(.type == "Ready") | .status'


def life(name: str, where: list[Condition], steps: list[tuple[float, str]]) -> list[dict[str, Any]]:
    """Lets kwok write these statuses of the pods that meet these conditions, each this many seconds after the previous one.
    A second status is for a pod that is not ready yet."""
    begun: list[list[Condition]] = [[(".status.podIP", "DoesNotExist")], [(READY, "In", "False")]]
    return [
        stage(f"{name}-{number}", "Pod", [(DELETED, "DoesNotExist"), *begun[number], *where], seconds, status)
        for number, (seconds, status) in enumerate(steps)
    ]


def stage(name: str, kind: str, where: list[Condition], seconds: float, status: str | None) -> dict[str, Any]:
    """Lets kwok write this status (None: delete) this many seconds after an object meets these conditions."""
    conditions = [
        {"key": key, "operator": operator} | ({"values": values} if values else {}) for key, operator, *values in where
    ]
    spec = {
        "resourceRef": {"apiGroup": "v1", "kind": kind},
        "selector": {"matchExpressions": conditions},
        "delay": {"durationMilliseconds": int(seconds * 1000)},
        "next": {"statusTemplate": status} if status else {"delete": True},
    }
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}


def observed(situation: str, address: str) -> str:
    """A template for kwok: the status that a real kubelet wrote, with this pod's container, the present time, and an
    address from another template."""
    status = json.loads((OBSERVED / f"{situation}.json").read_text())["pods"][0]
    image = status["containerStatuses"][0]["image"]
    status |= {"podIP": "ADDRESS", "podIPs": [{"ip": "ADDRESS"}]}
    text = json.dumps(status).replace(image, "{{ $app.image }}")
    text = text.replace(image.rpartition(":")[0], '{{ regexReplaceAll ":[^:/]*$" $app.image "" }}')
    text = re.sub(r'"2\d{3}-\d\d-\d\dT[\d:]+Z"', '"{{ Now }}"', text).replace("ADDRESS", address)
    return "{{ $app := index .spec.containers 0 }}" + text.replace('"name": "app"', '"name": "{{ $app.name }}"')


def start_kwok(plane: ControlPlane, stages: list[dict[str, Any]]) -> None:
    """Starts kwok, which plays the kubelets of all nodes that `add_node` adds."""
    # This stage never matches: add_node writes the status of nodes. Without a stage for nodes, kwok plays no pod.
    ready = stage("node-ready", "Node", [(".status.phase", "In", "Unknown")], 0, "phase: Running")
    options = {"podPlayStageParallelism": 16, "nodePlayStageParallelism": 1, "podsOnNodeSyncParallelism": 1}
    configuration = {"apiVersion": "config.kwok.x-k8s.io/v1alpha1", "kind": "KwokConfiguration", "options": options}
    file = plane.write("kwok.yaml", "\n---\n".join(map(json.dumps, [configuration, *stages, ready])))
    command = [go_program(KWOK), "--kubeconfig", plane.kubeconfig("kubelet"), "--config", file, "--v", "WARN"]
    plane.ask(f"start kwok {shlex.join([*map(str, command), '--manage-nodes-with-label-selector', 'kwok=yes'])}")


def add_node(api: Api, name: str, room_for: int = 5000) -> None:
    """A ready node with room for this many pods."""
    api.ask("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"kwok": "yes"}}})
    room, now = {"cpu": "1000", "memory": "1000Gi", "pods": str(room_for)}, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
    status = {
        "capacity": room,
        "allocatable": room,
        "conditions": [ready | {"reason": "KubeletReady"}],
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
    }
    api.merge(f"/api/v1/nodes/{name}/status", {"status": status})
    # Admission adds the taint of a node that is not ready yet, and the controller that removes it does not run here.
    api.merge(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})
