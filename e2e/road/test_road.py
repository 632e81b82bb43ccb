"""Commits on the whole road: each is built by the project's own Jenkinsfile, every `sh` of it for real, and deployed to
the cluster that this runs in: `e2e/cluster.sh run pytest e2e/road`. Only trivy is a stand-in; it lies beside this file.
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
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STAGES = [
    "Checkout",
    "Lint Dockerfile",
    "Build docker image",
    "Security Scan",
    "Lint app",
    "Push docker image",
    "Deploy to Kubernetes cluster",
]
USER, PASSWORD = "jenkins", "a password that nobody may read"
# What make, which may have called this, or the cluster's administrator would otherwise hand to the builds.
NOT_OF_JENKINS = {"KUBECONFIG", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "GIT_COMMIT", "COMMIT", "IMAGE", "NAMESPACE", "CONTEXT"}


def run(*command: str | Path, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def get(url: str, **headers: str) -> urllib.request.http.client.HTTPResponse:
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10)


def computed() -> float:
    """Of processors, in seconds, by all commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@dataclass
class Build:
    """What a build came to."""

    succeeded: bool
    log: str
    artifacts: Path
    #: Of processors, in seconds: how long it computed. What it waited for others is not in it.
    computed: float

    @property
    def stages(self) -> dict[str, str]:
        return dict(re.findall(r"^stage (.+): (SUCCESS|FAILURE|ABORTED|SKIPPED|NOT RUN) \(", self.log, re.MULTILINE))

    @property
    def verdict(self) -> dict:
        return json.loads((self.artifacts / "target/reports/deploy.json").read_text())

    def passed(self) -> "Build":
        assert self.succeeded, self.log
        assert self.stages == dict.fromkeys(STAGES, "SUCCESS"), self.log
        return self

    def stopped_at(self, stage: str, *reasons: str) -> "Build":
        """In this stage, for these reasons; nothing after it was begun."""
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
        run("git", "clone", "--quiet", f"file://{ROOT}", self.repository)
        self.git("checkout", "--quiet", "-B", "main")
        self.make_workspace()
        self.token = self.make_namespace()
        self.credentials = directory / "credentials"
        self.credentials.write_text(
            f"registry.username={USER}\nregistry.password={PASSWORD}\nkubeconfig.file={directory}/kubeconfig\n"
        )

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
        run(*config, "set-context", "bed", "--user=deployer")
        return token

    def make_workspace(self):
        """The workspace as an earlier build of the same sources has left it, so that they are not compiled again.

        Cargo goes by the times of files, and so does git. What was compiled here serves the workspace, too, but not the
        other way round: cargo would take the workspace's objects, which are newer, for those of these sources.
        """
        workspace = self.directory / "workspace"
        run("git", "clone", "--quiet", f"file://{self.repository}", workspace)
        for name in run("git", "-C", workspace, "ls-files").splitlines():
            ours, copy = ROOT / name, workspace / name
            if ours.is_file() and filecmp.cmp(ours, copy, shallow=False):
                shutil.copystat(ours, copy)
        run("git", "-C", workspace, "update-index", "--refresh")
        upper, work, target = (self.directory / name for name in ("upper", "work", "workspace@target"))
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
        """On top of what is live, with these replacements in these files."""
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

    def build(self, commit: str, branch: str = "main") -> Build:
        self.builds += 1
        artifacts = self.directory / f"artifacts-{self.builds}"
        command = [ROOT / "e2e/pipeline/run", "--repository", self.repository, "--branch", branch, "--commit", commit]
        command += ["--workspace", self.directory / "workspace", "--artifacts", artifacts, "--credentials", self.credentials]
        command += ["--env", f"IMAGE={self.registry}/request-info", "--env", "NAMESPACE=web", "--env", "CONTEXT=bed"]
        environment = {name: value for name, value in os.environ.items() if name not in NOT_OF_JENKINS}
        environment["PATH"] = f"{HERE}:{environment['PATH']}"
        before = computed()
        done = subprocess.run(
            [str(word) for word in command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        build = Build(done.returncode == 0, done.stdout, artifacts, computed() - before)
        print(build.log)  # pytest shows it where a test fails
        if build.succeeded and branch == "main":
            self.live = commit
        return build

    def tags(self) -> dict[str, str]:
        """What is in the registry, by tag: its digest."""
        repository = f"http://{self.registry}/v2/request-info"
        names = json.load(get(f"{repository}/tags/list"))["tags"]
        kinds = ", ".join(
            f"application/vnd.{kind}+json"
            for kind in ["docker.distribution.manifest.v2", "oci.image.manifest.v1", "oci.image.index.v1"]
        )
        return {tag: get(f"{repository}/manifests/{tag}", Accept=kinds).headers["Docker-Content-Digest"] for tag in names}

    def pods(self) -> list[dict]:
        """All of them, those on their way out, too."""
        selector = "--selector=app.kubernetes.io/name=request-info"
        return json.loads(self.kubectl("get", "pods", selector, "--output=json"))["items"]

    def commits(self) -> list[str]:
        """What each pod that is ready says that it runs."""
        return [
            json.load(get(f"http://{pod['status']['podIP']}:8080/version"))["commit"]
            for pod in self.pods()
            if any(it["type"] == "Ready" and it["status"] == "True" for it in pod["status"].get("conditions", []))
        ]

    def pages(self) -> dict[str, str]:
        """What a visitor is shown by each node."""
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
    """With its first commit, which is this project's HEAD, live."""
    road = Road(tmp_path_factory.mktemp("road"))
    road.first = road.build(road.git("rev-parse", "HEAD")).passed()
    yield road
    run("umount", road.directory / "workspace@target")


@pytest.fixture
def unmoved(road):
    """Whatever the test builds, the registry and what visitors see must be afterwards as they were before."""
    live, tags = road.live, road.tags()
    yield
    assert road.tags() == tags
    assert road.commits() == [live] * 3


def test_findings_of_the_scan_are_reported_and_do_not_stop_the_build(road):
    reports = road.first.artifacts / "target/reports"
    image = f"{road.registry}/request-info:{road.first.verdict['commit'][:12]}"
    assert f"{image} (none)" in (reports / "image-scan.txt").read_text()
    assert "Cargo.lock (cargo)" in (reports / "crates-scan.txt").read_text()
    for report in ["image-scan.txt", "crates-scan.txt"]:
        assert "CVE-0000-00001" in (reports / report).read_text()
    assert road.first.log.count("CVE-0000-00001") == 2
    assert {"name": "spin-sdk", "type": "library"} in json.loads((reports / "sbom.cdx.json").read_text())["components"]
    assert re.search(r"^spin-sdk v", (reports / "component-crates.txt").read_text(), re.MULTILINE)


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
    assert not list(road.directory.glob("workspace@tmp*")), "Jenkins's copy of the kubeconfig"


def test_an_edited_line_of_the_page_goes_live_on_every_pod_and_node(road, capsys):
    before, old_pods = road.live, [f"pod/{pod['metadata']['name']}" for pod in road.pods()]
    old, new = "Nothing shown here is stored or logged.", "Nothing shown here is kept."
    assert all(old in page for page in road.pages().values())
    commit = road.commit({"component/src/page.rs": [(old, new)]})
    build = road.build(commit).passed()

    assert len(road.pages()) == 2
    assert all(new in page and old not in page for page in road.pages().values())
    assert road.commits() == [commit] * 3
    # They serve no more when the deployer says so; a kubelet takes a moment to put away what is left of them.
    road.kubectl("wait", "--for=delete", "--timeout=10s", *old_pods)
    tags = road.tags()
    assert tags["latest"] == tags[commit[:12]] != tags[before[:12]]
    verdict = build.verdict
    assert (verdict["outcome"], verdict["commit"], verdict["previous_commit"]) == ("done", commit, before)
    # What it takes on a machine that does nothing else, though it used one processor alone.
    took = build.computed + verdict["replaced_after_s"]
    with capsys.disabled():
        print(f"\nlive after {took:.0f} s: {build.computed:.0f} s of computing, {verdict['replaced_after_s']:.0f} s of rolling update")
    assert took < 120


def test_the_same_commit_again_pushes_nothing_new_and_is_done(road, unmoved):
    build = road.build(road.live).passed()
    assert f"{road.live[:12]} is in the registry already" in build.log
    assert build.verdict["outcome"] == "done"
    assert not {pod["metadata"]["name"] for pod in road.pods()} ^ {pod["name"] for pod in build.verdict["pods"]}


STOPPED = {
    "a Dockerfile that hadolint refuses": (
        {"Dockerfile": [("COPY spin.toml", "ADD spin.toml")]},
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


def test_a_commit_that_never_gets_ready_fails_its_deploy_with_the_cause_and_the_old_one_serves_on(road):
    live = road.live
    # A misconfiguration of the kind that only a running pod can notice; and shorter times, which matter elsewhere.
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
    assert (verdict["rollback"]["outcome"], verdict["rollback"]["commit"]) == ("done", live)
    assert road.commits() == [live] * 3
    assert len(road.pages()) == 2
