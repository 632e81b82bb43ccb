"""A cluster for rollouts, without root. The control plane is real; this file simulates the nodes and the pods' network."""

import itertools
import json
import os
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError

from performance import REPOSITORY

OBSERVED = REPOSITORY / "deployer/tests/observed"
COMMIT = "request-info.dev/commit"
START_SECONDS = 90
END_SECONDS = 1.0
"""How long a pod takes to end after its deletion."""
KUBELET_PORT = 10250
REQUESTS = 2000
"""How many the controllers and the scheduler may make in a second, and how many are taken at the same time."""
ACCOUNTS = ["admin", "controllers", "scheduler", "kubelet"]
CONTROLLERS = (
    "deployment-controller,replicaset-controller,serviceaccount-controller,"
    "garbage-collector-controller,disruption-controller"
)
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Request", "resources": [{"group": "apps", "resources": ["deployments/status"]}]},
        {"level": "None", "users": ["admin", "controllers", "scheduler", "system:apiserver"]},
        {"level": "Metadata"},
    ],
}
# Ends the program when its standard input is closed. The operating system closes it however this process ends.
SUPERVISED = 'nice -n $NICE "$@" & read -r _; kill -KILL $!; wait'


class Api:
    """The API server, asked as one user."""

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

    def watch(self, path: str) -> Iterator[Any]:
        with self.open("GET", path) as answer:
            yield from map(json.loads, answer)


class ControlPlane:
    """etcd, API server, controllers and scheduler on free ports of the loopback interface, until it is stopped."""

    nice = 0
    """The nice value of its programs."""

    def __init__(self, binaries: Path, directory: Path, users: list[str]) -> None:
        self.binaries, self.directory = binaries, directory
        self.port, self.servers = free_port(), dict[str, subprocess.Popen[bytes]]()
        self.etcd = f"http://127.0.0.1:{free_port()}"
        self.certificate, self.key = directory / "certificate.pem", directory / "key.pem"
        self.write_settings(users)

    def api(self, user: str) -> Api:
        return Api(self.port, user, self.certificate)

    def start(self) -> None:
        peers = f"http://127.0.0.1:{free_port()}"
        self.run(
            f"etcd --data-dir {self.directory}/etcd --unsafe-no-fsync --log-level error"
            f" --listen-client-urls {self.etcd}"
            f" --advertise-client-urls {self.etcd} --listen-peer-urls {peers} --initial-advertise-peer-urls {peers}"
            f" --initial-cluster default={peers}"
        )
        self.start_api_server()

    def start_api_server(self) -> None:
        here = self.directory
        self.run(
            f"kube-apiserver --etcd-servers {self.etcd} --bind-address 127.0.0.1 --secure-port {self.port}"
            " --advertise-address 127.0.0.1 --endpoint-reconciler-type none --service-cluster-ip-range 10.96.0.0/16"
            f" --tls-cert-file {self.certificate} --tls-private-key-file {self.key}"
            " --service-account-issuer https://kubernetes.default.svc"
            f" --service-account-key-file {self.certificate} --service-account-signing-key-file {self.key}"
            f" --authorization-mode RBAC --token-auth-file {here}/tokens.csv --profiling=false"
            f" --audit-policy-file {here}/audit-policy.json --audit-log-path {here}/audit.log --audit-log-maxsize 2000"
            f" --max-requests-inflight {REQUESTS} --max-mutating-requests-inflight {REQUESTS}"
            f" --egress-selector-config-file {here}/egress.json --kubelet-preferred-address-types InternalIP"
        )
        admin, deadline = self.api("admin"), time.monotonic() + START_SECONDS
        while True:
            try:
                admin.open("GET", "/readyz").close()
                return
            except (OSError, HTTPException) as error:
                log = (here / "kube-apiserver.log").read_text()[-2000:]
                if time.monotonic() > deadline or '"command failed"' in log:
                    sys.exit(f"rollout.py: the API server does not start: {error}; it wrote:\n{log}")
                time.sleep(0.1)

    def start_controllers(self) -> None:
        self.run(
            f"kube-controller-manager --kubeconfig {self.kubeconfig('controllers')} --leader-elect=false"
            f" --secure-port 0 --controllers {CONTROLLERS} --kube-api-qps {REQUESTS} --kube-api-burst {2 * REQUESTS}"
        )
        self.run(f"kube-scheduler --config {self.directory}/scheduler.json --secure-port 0")

    def run(self, command: str) -> None:
        name, *arguments = command.split()
        with (self.directory / f"{Path(name).name}.log").open("wb") as log:
            supervised = ["sh", "-c", SUPERVISED, name, str(self.binaries / name), *arguments]
            self.servers[name] = subprocess.Popen(
                supervised,
                env=os.environ | {"NICE": str(self.nice)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, name: str) -> None:
        server = self.servers.pop(name)
        if server.stdin:
            server.stdin.close()
        server.wait()

    def restart_api_server(self) -> float:
        """Restarts the API server. Returns when it was gone; it serves some time before it calls itself ready."""
        self.end("kube-apiserver")
        gone = time.time()
        self.start_api_server()
        # These would ask again after half a minute.
        self.end("kube-controller-manager")
        self.end("kube-scheduler")
        self.start_controllers()
        return gone

    def stop(self) -> None:
        for name in reversed(list(self.servers)):
            self.end(name)

    def kubeconfig(self, user: str, namespace: str = "default", port: int = 0) -> Path:
        """For the given port, or else the API server's."""
        cluster = {"server": f"https://127.0.0.1:{port or self.port}", "certificate-authority": str(self.certificate)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bench", "cluster": cluster}],
            "users": [{"name": "bench", "user": {"token": user}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench", "namespace": namespace}}],
            "current-context": "bench",
        }
        return self.write(f"kubeconfig-{user.replace(':', '-')}-{port or self.port}", content)

    def write(self, name: str, content: Any) -> Path:
        file = self.directory / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    def write_settings(self, users: list[str]) -> None:
        request = "[req]\ndistinguished_name=name\n[name]\n[end]\nbasicConstraints=critical,CA:FALSE\n"
        settings = self.write("openssl.cnf", request + "subjectAltName=IP:127.0.0.1\n")
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bench -days 2"
        command += f" -config {settings} -extensions end -keyout {self.key} -out {self.certificate}"
        subprocess.run(command.split(), check=True, capture_output=True)
        tokens = [f'{user},{user},{user},"{"system:masters" * (":deployer" not in user)}"\n' for user in users]
        self.write("tokens.csv", "".join(tokens))
        self.write("audit-policy.json", AUDIT_POLICY)
        transport = {"uds": {"udsName": str(self.directory / "egress")}}
        egress = {"name": "cluster", "connection": {"proxyProtocol": "HTTPConnect", "transport": transport}}
        kind = {"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration"}
        self.write("egress.json", kind | {"egressSelections": [egress]})
        client = {"kubeconfig": str(self.kubeconfig("scheduler")), "qps": REQUESTS, "burst": 2 * REQUESTS}
        kind = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
        self.write("scheduler.json", kind | {"leaderElection": {"leaderElect": False}, "clientConnection": client})

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

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(str(plane.directory / "egress"), Connection)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(plane.certificate, plane.key)
        self.commits = dict[str, str]()
        Thread(target=self.serve_forever, daemon=True).start()

    def attach(self, commit: str) -> str:
        """Adds a pod that answers with this commit, and returns its address."""
        address = "10.1.{}.{}".format(*divmod(len(self.commits), 256))
        self.commits[address] = commit
        return address


class Connection(socketserver.BaseRequestHandler):
    server: Network

    def handle(self) -> None:
        with suppress(OSError):  # the client may disconnect early
            address, port = target_of(self.request).split(":")
            self.request.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            if int(port) == KUBELET_PORT:
                with self.server.tls.wrap_socket(self.request, server_side=True) as stream:
                    return answer(stream, "text/plain", "the last words of a container\n")
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
    """Passes connections on to the API server, and counts what comes back."""

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


@dataclass(frozen=True)
class Step:
    """This many seconds after the previous step, a kubelet writes what a real one wrote in this situation."""

    seconds: float
    situation: str


class Kubelet:
    """Plays the kubelets of all nodes."""

    pods = "/api/v1/pods?watch=1"
    """Which ones it plays."""

    def __init__(self, api: Api, network: Network) -> None:
        self.api, self.network = api, network
        self.lives = dict[str, list[Step]]()
        """Sets what happens to pods from now on, by namespace."""
        self.workers, self.stopped = ThreadPoolExecutor(32), Event()

    def start(self) -> None:
        Thread(target=self.follow, daemon=True).start()

    def follow(self) -> None:
        seen = set[tuple[str, bool]]()
        while not self.stopped.is_set():
            with suppress(OSError, HTTPException, ValueError):  # the server ends each watch after a while
                for change in self.api.watch(self.pods):
                    pod = change["object"]
                    sight = (pod["metadata"]["uid"], "deletionTimestamp" in pod["metadata"])
                    if "nodeName" in pod["spec"] and sight not in seen:
                        seen.add(sight)
                        self.workers.submit(self.end if sight[1] else self.play, pod)

    def play(self, pod: Any) -> None:
        namespace, uid = pod["metadata"]["namespace"], pod["metadata"]["uid"]
        address = self.network.attach(pod["metadata"]["annotations"][COMMIT])
        for step in self.lives[namespace]:
            if self.stopped.wait(step.seconds):
                return
            status = observed(step.situation, pod["spec"]["containers"][0])
            status |= {"podIP": address, "podIPs": [{"ip": address}]}
            with suppress(HTTPError):  # it is gone
                self.api.merge(f"{path_of(pod)}/status", {"metadata": {"uid": uid}, "status": status})

    def end(self, pod: Any) -> None:
        if not self.stopped.wait(END_SECONDS):
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
            with suppress(HTTPError):
                self.api.ask("DELETE", path_of(pod), options)


def path_of(pod: Any) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def observed(situation: str, container: Any) -> Any:
    """The status that a real kubelet wrote, with this container and the present time."""
    status = json.loads((OBSERVED / f"{situation}.json").read_text())["pods"][0]
    image, now = status["containerStatuses"][0]["image"], datetime.now(UTC)
    text = json.dumps(status).replace(image, container["image"])
    text = text.replace(image.rpartition(":")[0], container["image"].rpartition(":")[0])
    text = re.sub(r'"2\d{3}-\d\d-\d\dT[\d:]+Z"', f'"{now:%Y-%m-%dT%H:%M:%SZ}"', text)
    return json.loads(text.replace('"name": "app"', f'"name": "{container["name"]}"'))


def add_node(api: Api, name: str, room_for: int = 5000) -> None:
    """A ready node with room for this many pods."""
    api.ask("POST", "/api/v1/nodes", {"metadata": {"name": name}})
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


PORTS = itertools.count(os.getpid() * 61)


def free_port() -> int:
    """A free port below those that the kernel gives to connections. One of those could be taken by a connection before the
    program listens on it. The search starts at a different port in each process."""
    while True:
        port = 20_000 + next(PORTS) % 12_000
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
