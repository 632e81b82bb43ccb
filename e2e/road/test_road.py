"""Commits through the whole pipeline. Each is built by the project's own Jenkinsfile, in which every `sh` runs for real, and
deployed to the cluster that this runs in: `e2e/cluster.sh run pytest e2e/road`. Only trivy is a stand-in, beside this file.
The workspace's path has a space in it.
"""

import filecmp
import json
import os
import re
import resource
import shutil
import subprocess
import urllib.request
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# e2e/pipeline/tests check that these are the required seven.
STAGES = re.findall(r"^ *stage\('(.*)'\)", (ROOT / "Jenkinsfile").read_text(), re.MULTILINE)
USER, PASSWORD = "jenkins", "a password that nobody may read"
# Variables of make, which may have called this, and of the cluster's administrator, which the builds must not get.
NOT_OF_JENKINS = {"KUBECONFIG", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "GIT_COMMIT", "COMMIT", "IMAGE", "NAMESPACE", "CONTEXT", "RUNTIME"}


def run(*command: str | Path, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def get(url: str, **headers: str) -> urllib.request.http.client.HTTPResponse:
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10)


MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ["docker.distribution.manifest.list.v2", "docker.distribution.manifest.v2", "oci.image.index.v1", "oci.image.manifest.v1"]
)


@contextmanager
def registry_that_takes_no_index(registry: str):
    """Passes all requests on to REGISTRY, but answers the push of an index with 503. Yields its address, on the loopback
    interface, where Docker does not require TLS."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        default_request_version = "HTTP/1.1"  # `docker manifest` tries TLS first, and decides by the answer

        def pass_on(self):
            body = self.chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else None
            body = body or self.rfile.read(int(self.headers.get("Content-Length", 0)))
            del self.headers["Transfer-Encoding"]
            if self.command == "PUT" and "manifest.list" in self.headers.get("Content-Type", ""):
                return self.answer(503, {}, b"<html>no server is available</html>")
            headers = {name: ", ".join(self.headers.get_all(name)) for name in self.headers if name not in {"Content-Length", "Connection"}}
            onward = HTTPConnection(registry, timeout=10)
            # The Host header stays the requested one, so that the registry's Location leads back here.
            onward.request(self.command, self.path, body, headers)
            answer = onward.getresponse()
            self.answer(answer.status, answer.headers, answer.read())
            onward.close()
            return None

        def chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def answer(self, status, headers, body: bytes):
            self.send_response(status)
            for name, value in headers.items():
                if name not in {"Content-Length", "Connection", "Date", "Transfer-Encoding"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def computed() -> float:
    """Seconds of processor time of all commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@dataclass
class Build:
    """The result of a build."""

    succeeded: bool
    log: str
    artifacts: Path
    #: Seconds of processor time, without the time in which it waited.
    computed: float

    @property
    def stages(self) -> dict[str, str]:
        return dict(re.findall(r"^stage (.+): (SUCCESS|FAILURE|ABORTED|SKIPPED|NOT RUN) \(", self.log, re.MULTILINE))

    def report(self, name: str) -> str:
        return (self.artifacts / "target/reports" / name).read_text()

    @property
    def verdict(self) -> dict:
        return json.loads(self.report("deploy.json"))

    @property
    def digest(self) -> str:
        """The digest of the image that it pushed, or found in the registry."""
        return json.loads(self.report("image.json"))["digest"]

    def passed(self) -> "Build":
        assert self.succeeded, self.log
        assert self.stages == dict.fromkeys(STAGES, "SUCCESS"), self.log
        return self

    def stopped_at(self, stage: str, *reasons: str) -> "Build":
        """Checks that it failed in this stage with these words, and that no later stage began."""
        before, after = STAGES[: STAGES.index(stage)], STAGES[STAGES.index(stage) + 1 :]
        assert not self.succeeded
        assert self.stages == dict.fromkeys(before, "SUCCESS") | {stage: "FAILURE"} | dict.fromkeys(after, "NOT RUN"), self.log
        for reason in reasons:
            assert reason in self.log, self.log
        return self


class Road:
    """A repository with this project's HEAD in it, a Jenkins workspace, and a namespace of the cluster."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.repository = directory / "repository"
        self.builds = 0
        self.live = ""
        self.first: Build | None = None
        self.registry = f"{os.environ['HOST']}:5000"
        self.workspace = directory / "work space"
        self.trivy = directory / "trivy"  # its cache
        (self.trivy / "db").mkdir(parents=True)
        (self.trivy / "db/trivy.db").touch()
        run("git", "clone", "--quiet", f"file://{ROOT}", self.repository)
        self.git("checkout", "--quiet", "-B", "main")
        self.make_workspace()
        self.token = self.make_namespace()
        self.credentials = directory / "credentials"
        self.credentials.write_text(
            f"registry.username={USER}\nregistry.password={PASSWORD}\nkubeconfig.file={directory}/kubeconfig\n"
            f"aws.file={directory}/aws\n"
        )
        (directory / "aws").touch()

    def make_namespace(self) -> str:
        """Makes the namespace, which enforces Pod Security `restricted`; returns the token of the deployer, which may
        do there what the shipped Role says."""
        run("kubectl", "create", "namespace", "web")
        run("kubectl", "label", "namespace", "web", "pod-security.kubernetes.io/enforce=restricted")
        self.kubectl("apply", "-f", ROOT / "kubernetes/deployer-rbac.yaml")
        token = self.kubectl("create", "token", "deployer", "--duration=2h")
        kubeconfig = self.directory / "kubeconfig"
        shutil.copy(os.environ["KUBECONFIG"], kubeconfig)
        config = ["kubectl", f"--kubeconfig={kubeconfig}", "config"]
        run(*config, "set-credentials", "deployer", f"--token={token}")
        run(*config, "set-context", "test", "--user=deployer")
        return token

    def make_workspace(self):
        """The workspace as an earlier build of the same sources has left it, so that they are not compiled again.

        Cargo goes by the times of files, and so does git. What was compiled here serves the workspace, too, but not the
        other way round: cargo would take the workspace's objects, which are newer, for those of these sources.
        """
        workspace = self.workspace
        run("git", "clone", "--quiet", f"file://{self.repository}", workspace)
        for name in run("git", "-C", workspace, "ls-files").splitlines():
            ours, copy = ROOT / name, workspace / name
            if ours.is_file() and filecmp.cmp(ours, copy, shallow=False):
                shutil.copystat(ours, copy)
        run("git", "-C", workspace, "update-index", "--refresh")
        upper, work, target = (self.directory / name for name in ("upper", "work", f"{workspace.name}@target"))
        for directory in (upper, work, target):
            directory.mkdir()
        lower = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", target)

    def kubectl(self, *arguments: str | Path) -> str:
        return run("kubectl", "--namespace", "web", *arguments)

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        return run("git", "-C", self.repository, *identity, *arguments)

    def commit(self, edits: dict[str, list[tuple[str, str]]], branch: str = "main") -> str:
        """Commits these replacements in these files on top of the live commit."""
        self.git("checkout", "--quiet", "-B", branch, self.live)
        for name, replacements in edits.items():
            file = self.repository / name
            text = file.read_text()
            for old, new in replacements:
                assert old in text, f"{name} has no {old!r}"
                text = text.replace(old, new)
            file.write_text(text)
        self.git("commit", "--quiet", "--all", "--message", f"Edit {', '.join(edits)}")
        return self.git("rev-parse", "HEAD")

    def build(self, commit: str, branch: str = "main", registry: str = "", runtime: str = "") -> Build:
        self.builds += 1
        artifacts = self.directory / f"artifacts-{self.builds}"
        command = [ROOT / "e2e/pipeline/run", "--repository", self.repository, "--branch", branch, "--commit", commit]
        command += ["--workspace", self.workspace, "--artifacts", artifacts, "--credentials", self.credentials]
        command += ["--env", f"IMAGE={registry or self.registry}/request-info", "--env", "NAMESPACE=web", "--env", "CONTEXT=test"]
        command += ["--env", f"RUNTIME={runtime}"] if runtime else []
        environment = {name: value for name, value in os.environ.items() if name not in NOT_OF_JENKINS}
        environment |= {"PATH": f"{HERE}:{environment['PATH']}", "TRIVY_CACHE_DIR": str(self.trivy)}
        before = computed()
        done = subprocess.run(
            [str(word) for word in command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        build = Build(done.returncode == 0, done.stdout, artifacts, computed() - before)
        print(build.log)  # pytest shows it if a test fails
        if build.succeeded and branch == "main":
            self.live = commit
        return build

    def tags(self) -> dict[str, str]:
        """The digest of each tag in the registry."""
        names = json.load(get(f"http://{self.registry}/v2/request-info/tags/list"))["tags"]
        return {tag: self.manifest(tag).headers["Docker-Content-Digest"] for tag in names}

    def manifest(self, reference: str, name: str = "request-info") -> urllib.request.http.client.HTTPResponse:
        """The manifest in the registry with this tag or digest."""
        return get(f"http://{self.registry}/v2/{name}/manifests/{reference}", Accept=MANIFESTS)

    def put(self, tag: str, kind: str, manifest: bytes):
        request = urllib.request.Request(f"http://{self.registry}/v2/request-info/manifests/{tag}", manifest, method="PUT")
        request.add_header("Content-Type", kind)
        urllib.request.urlopen(request, timeout=10).close()

    def pods(self) -> list[dict]:
        """All pods, including terminating ones."""
        selector = "--selector=app.kubernetes.io/name=request-info"
        return json.loads(self.kubectl("get", "pods", selector, "--output=json"))["items"]

    def commits(self) -> list[str]:
        """The answer of each ready pod to the question of what it runs."""
        return [
            json.load(get(f"http://{pod['status']['podIP']}:8080/version"))["commit"]
            for pod in self.pods()
            if any(it["type"] == "Ready" and it["status"] == "True" for it in pod["status"].get("conditions", []))
        ]

    def pages(self) -> dict[str, str]:
        """The page that a visitor gets from each node."""
        service = json.loads(self.kubectl("get", "service", "request-info", "--output=json"))
        port = service["spec"]["ports"][0]["nodePort"]
        nodes = json.loads(run("kubectl", "get", "nodes", "--output=json"))["items"]
        return {
            address["address"]: get(f"http://{address['address']}:{port}/", Accept="text/html").read().decode()
            for node in nodes
            for address in node["status"]["addresses"]
            if address["type"] == "InternalIP"
        }


@pytest.fixture(scope="session")
def road(tmp_path_factory):
    """The road with its first commit, this project's HEAD, live."""
    road = Road(tmp_path_factory.mktemp("road"))
    road.first = road.build(road.git("rev-parse", "HEAD")).passed()
    yield road
    run("umount", f"{road.workspace}@target")


@pytest.fixture
def unmoved(road):
    """After the test, the registry and the page must be as before it."""
    live, tags = road.live, road.tags()
    yield
    assert road.tags() == tags
    assert road.commits() == [live] * 3


def test_findings_of_the_scan_are_reported_and_do_not_stop_the_build(road):
    found = {
        "image-scan.txt": ["request-info.cdx.json (cargo)", "spin-sdk"],
        "programs-scan.txt": ["host.cdx.json (cargo)", "deployer.cdx.json (cargo)", "clap"],
    }
    for report, words in found.items():
        text = road.first.report(report)
        assert "CVE-0000-00001" in text and text in road.first.log
        for word in words:
            assert word in text
    assert "scan: scanned: the image, the host, the deployer. Reports: target/reports" in road.first.log


def test_the_report_names_what_was_not_scanned_and_no_old_report_stays(road):
    """Without network, trivy has no database."""
    stale = road.workspace / "target/reports/crates-scan.txt"
    stale.touch()
    environment = {name: value for name, value in os.environ.items() if name not in NOT_OF_JENKINS}
    environment |= {"PATH": f"{HERE}:{environment['PATH']}", "TRIVY_CACHE_DIR": str(road.directory / "empty")}
    environment |= {"CARGO_TARGET_DIR": f"{road.workspace}@target"}
    log = run("make", "scan", f"IMAGE={road.registry}/request-info", cwd=road.workspace, env=environment)
    last = log.splitlines()[-1]
    assert last.startswith("scan: Not scanned: the image, the host, the deployer, because trivy says: ")
    assert "failed to download vulnerability DB" in last
    for report in ["image-scan.txt", "programs-scan.txt"]:
        text = (road.workspace / "target/reports" / report).read_text()
        assert "was not scanned, because trivy says: " in text and "CVE" not in text
    assert not stale.exists()


def test_the_image_has_the_exact_sbom_of_its_component(road):
    tree = ["cargo", "tree", "--quiet", "--package", "request-info", "--target", "wasm32-wasip2"]
    tree += ["--edges", "normal", "--prefix", "none", "--no-dedupe", "--format", "{p}"]
    crates = {" ".join(line.split()[:2]) for line in run(*tree, cwd=road.workspace).splitlines()}
    document = road.first.report("component.cdx.json")
    described = json.loads(document)
    components = [described["metadata"]["component"], *described["components"]]
    assert {f"{it['name']} v{it['version']}" for it in components} == crates
    assert len(components) == len(crates)
    assert str(road.workspace) not in document

    container = run("docker", "create", f"{road.registry}/request-info:{road.first.verdict['commit'][:12]}-amd64")
    files = road.directory / "files"
    files.mkdir()
    run("sh", "-c", 'docker export "$0" | tar --extract --directory "$1"', container, files)
    run("docker", "rm", container)
    assert (files / "request-info.cdx.json").read_text() == document


def test_the_commits_tag_is_one_image_of_the_same_layers_for_amd64_and_arm64(road):
    tag = road.first.verdict["commit"][:12]
    assert road.tags()[tag] == road.first.digest
    index = json.load(road.manifest(tag))
    platforms = {it["platform"]["architecture"]: it["digest"] for it in index["manifests"]}
    assert platforms.keys() == {"amd64", "arm64"}
    amd64, arm64 = (json.load(road.manifest(digest)) for digest in platforms.values())
    assert amd64["layers"] == arm64["layers"]
    assert sum(it["size"] for it in [*amd64["layers"], amd64["config"]]) <= 200_000, "what a node pulls"

    # A node's containerd accepts each.
    reference = f"{road.registry}/request-info:{tag}@{road.first.digest}"
    for architecture, digest in platforms.items():
        ctr = ["ctr", "--address", f"{os.environ['RUN']}/node-a/containerd.sock", "--namespace", architecture]
        run(*ctr, "images", "pull", "--plain-http", f"--platform=linux/{architecture}", reference)
        pulled = run(*ctr, "content", "ls", "--quiet").split()
        assert {digest, *(it["digest"] for it in amd64["layers"])} <= set(pulled)
        config = json.loads(run(*ctr, "content", "get", json.load(road.manifest(digest))["config"]["digest"]))
        assert config["architecture"] == architecture


def test_no_secret_is_in_a_log_or_an_artifact_or_stays_behind(road):
    assert "Login Succeeded" in road.first.log, "else the password was of no use"
    artifacts = [file.read_text() for file in road.first.artifacts.rglob("*") if file.is_file()]
    assert artifacts
    for secret in [PASSWORD, road.token]:
        for form in [secret, b64encode(secret.encode()).decode()]:
            assert not any(form in text for text in [road.first.log, *artifacts])
    kept = [Path.home() / ".docker/config.json", *Path(os.environ["TMPDIR"]).glob("tmp.*/config.json")]
    login = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert not any(login in file.read_text() for file in kept if file.exists())
    assert not list(road.directory.glob("*@tmp*")), "Jenkins's copy of the kubeconfig"


def test_an_edited_line_of_the_page_goes_live_on_every_pod_and_node(road, capsys):
    before, old_pods = road.live, [f"pod/{pod['metadata']['name']}" for pod in road.pods()]
    old, new = "Nothing shown here is stored or logged.", "Nothing shown here is kept."
    assert all(old in page for page in road.pages().values())
    commit = road.commit({"component/src/page.rs": [(old, new)]})
    build = road.build(commit).passed()

    assert len(road.pages()) == 2
    assert all(new in page and old not in page for page in road.pages().values())
    assert road.commits() == [commit] * 3
    # When the deployer is done, they no longer serve, but a kubelet needs a moment to remove their objects.
    road.kubectl("wait", "--for=delete", "--timeout=10s", *old_pods)
    tags = road.tags()
    assert tags["latest"] == tags[commit[:12]] == build.digest != tags[before[:12]]
    assert {pod["status"]["containerStatuses"][0]["imageID"].partition("@")[2] for pod in road.pods()} == {build.digest}
    verdict = build.verdict
    assert (verdict["outcome"], verdict["commit"], verdict["previous_commit"]) == ("done", commit, before)
    assert f"Description: done: {verdict['cause']}\n" in build.log
    # The time on an idle machine, even if it used only one processor.
    took = build.computed + verdict["replaced_after_s"]
    with capsys.disabled():
        print(f"\nlive after {took:.0f} s: {build.computed:.0f} s of computing, {verdict['replaced_after_s']:.0f} s of rolling update")
    assert took < 120


def test_a_second_build_of_the_same_commit_pushes_nothing_and_succeeds(road, unmoved):
    build = road.build(road.live).passed()
    assert f"{road.live[:12]} is in the registry already" in build.log
    assert build.verdict["outcome"] == "done"
    assert not {pod["metadata"]["name"] for pod in road.pods()} ^ {pod["name"] for pod in build.verdict["pods"]}


def test_a_second_build_of_an_older_commit_does_not_move_latest(road, unmoved):
    older = road.git("rev-parse", f"{road.live}~1")
    build = road.build(older).stopped_at("Deploy to Kubernetes cluster", "--ignore-order")
    assert f"latest stays at commit {road.live}" in build.log


def test_a_registry_that_fails_during_the_push_stops_it_and_the_next_build_succeeds(road):
    live, tags = road.live, road.tags()
    commit = road.commit({"README.md": [("# request-info", "# request-info, pushed twice")]})
    with registry_that_takes_no_index(road.registry) as registry:
        build = road.build(commit, registry=registry).stopped_at("Push docker image", "503")
    assert not (build.artifacts / "target/reports/image.json").exists()
    left = road.tags()
    assert left.items() >= tags.items() and commit[:12] not in left
    assert road.commits() == [live] * 3

    assert road.build(commit).passed().digest == road.tags()[commit[:12]] == road.tags()["latest"]
    assert road.commits() == [commit] * 3


def test_a_tag_that_is_pushed_again_changes_nothing_in_the_cluster(road):
    live, other = road.live, road.git("rev-parse", f"{road.live}~1")
    ours, theirs = (road.manifest(commit[:12]) for commit in (live, other))
    kind, ours, theirs = ours.headers["Content-Type"], ours.read(), theirs.read()
    road.put(live[:12], kind, theirs)
    try:
        assert road.tags()[live[:12]] == road.tags()[other[:12]]
        road.kubectl("delete", "pod", road.pods()[0]["metadata"]["name"])
        road.kubectl("wait", "--for=condition=Available", "--timeout=60s", "deployment/request-info")
        road.kubectl("rollout", "status", "--timeout=60s", "deployment/request-info")
        assert road.commits() == [live] * 3
    finally:
        road.put(live[:12], kind, ours)


STOPPED = {
    "a Dockerfile that hadolint refuses": (
        {"Dockerfile": [("COPY target/image/ /", "ADD target/image/ /")]},
        ("Lint Dockerfile", "DL3020"),
    ),
    "a test of the component that fails": (
        {"component/tests/artefact.rs": [("size <= MOST", "size > MOST")]},
        ("Build docker image", "test result: FAILED"),
    ),
    "code that clippy refuses": (
        {
            "component/src/lib.rs": [
                (
                    "pub use settings::Settings;\n",
                    "pub use settings::Settings;\n\n/// One more.\npub fn next(n: u32) -> u32 {\n    return n + 1;\n}\n",
                )
            ]
        },
        ("Lint app", "unneeded `return` statement"),
    ),
}


@pytest.mark.parametrize("what", STOPPED)
def test_a_commit_stops_at_the_stage_that_refuses_it_and_nothing_is_pushed(road, unmoved, what):
    edits, (stage, reason) = STOPPED[what]
    road.build(road.commit(edits)).stopped_at(stage, reason)


def test_a_branch_stops_after_lint_app(road, unmoved):
    commit = road.commit({"README.md": [("# request-info", "# request-info, on a branch")]}, branch="feature")
    build = road.build(commit, branch="feature")
    assert build.succeeded, build.log
    assert build.stages == dict.fromkeys(STAGES[:5], "SUCCESS") | dict.fromkeys(STAGES[5:], "SKIPPED")


def test_a_commit_that_never_becomes_ready_fails_its_deploy_with_the_cause_and_the_old_one_still_serves(road):
    live = road.live
    # A misconfiguration that only a running pod can notice, and shorter times.
    commit = road.commit(
        {
            "spin.toml": [('trusted_proxies = { default = "" }', 'trusted_proxies = { default = "10.0.0.0/33" }')],
            "kubernetes/deployment.yaml.tmp": [
                ("progressDeadlineSeconds: 120", "progressDeadlineSeconds: 20"),
                ("seconds: 35", "seconds: 2"),
            ],
        }
    )
    build = road.build(commit).stopped_at("Deploy to Kubernetes cluster", "trusted_proxies", "10.0.0.0/33")
    verdict = build.verdict
    assert (verdict["outcome"], verdict["exit_code"]) == ("failed", 1)
    assert f"Description: failed: {verdict['cause']}\n" in build.log
    assert (verdict["rollback"]["outcome"], verdict["rollback"]["commit"]) == ("done", live)
    assert road.commits() == [live] * 3
    assert len(road.pages()) == 2


@contextmanager
def emulated(files: Path):
    """The host of an arm64 image, started by its entrypoint. Yields its address and its log file."""
    said = files / "said"
    command = ["qemu-aarch64", files / "request-info-host", "--from", files / "spin.toml", "--precompiled"]
    command += ["--max-connections", "10", "--listen", "127.0.0.1:0"]
    with said.open("w") as log:
        host = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield host.stdout.readline().removeprefix("Serving ").strip(), said
    finally:
        host.kill()
        host.wait()


@pytest.fixture
def without_runtime_class():
    """A cluster whose nodes have no shim."""
    run("kubectl", "delete", "runtimeclass", "--all")
    yield
    run("kubectl", "create", "--filename", ROOT / "kubernetes/runtimeclass.yaml")


def test_one_variable_deploys_the_same_commit_without_the_shim(road, without_runtime_class):
    build = road.build(road.live, runtime="standalone").passed()
    repository = f"{road.registry}/request-info-standalone"
    pushed = json.loads(build.report("image.json"))
    assert (pushed["image"], build.verdict["outcome"]) == (f"{repository}:{road.live[:12]}", "done")
    assert road.commits() == [road.live] * 3
    pods = [pod["spec"] for pod in road.pods() if "deletionTimestamp" not in pod["metadata"]]
    assert {pod["containers"][0]["image"] for pod in pods} == {f"{pushed['image']}@{pushed['digest']}"}
    assert not any("runtimeClassName" in pod for pod in pods)

    # The image for each processor has that processor's host and its SBOM.
    machines = {"amd64": 62, "arm64": 183}  # ELF's e_machine
    for architecture, machine in machines.items():
        container = run("docker", "create", f"{repository}:{road.live[:12]}-{architecture}")
        files = road.directory / architecture
        files.mkdir()
        run("sh", "-c", 'docker export "$0" | tar --extract --directory "$1"', container, files)
        run("docker", "rm", container)
        host = files / "request-info-host"
        assert int.from_bytes(host.read_bytes()[18:20], "little") == machine
        components = json.loads((files / "request-info-host.cdx.json").read_text())["components"]
        assert "wasmtime" in {it["name"] for it in components}
        (compiled,) = files.glob("target/wasm32-wasip2/component/*.cwasm")
        assert compiled.stat().st_mtime == host.stat().st_mtime, "the commit's"
    with emulated(road.directory / "arm64") as (url, said):
        assert json.load(get(f"{url}/version"))["commit"] == road.live
    assert "is compiled now" not in said.read_text(), "the code made ahead of time is not of this host"
    index = json.load(road.manifest(pushed["digest"], "request-info-standalone"))
    for part in index["manifests"]:
        manifest = json.load(road.manifest(part["digest"], "request-info-standalone"))
        assert sum(it["size"] for it in [*manifest["layers"], manifest["config"]]) <= 10_000_000, "what a node pulls"
