"""What `make push` does with each answer of a registry. The registries are stand-ins, except that of the bed. Docker is real:
`e2e/cluster.sh run pytest e2e/road`.
"""

import json
import os
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass
class Registry:
    """Answers the first request with PINGED and each request for a manifest with STATUS and BODY, and accepts no writes. If
    PINGED is 0, it never answers; if STATUS is 0, it closes the connection."""

    status: int
    body: str
    pinged: int = 200
    #: The attempts to write.
    writes: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self):
        registry = self

        class Handler(BaseHTTPRequestHandler):
            # Answers bytes that are not HTTP, too: that is how Docker learns not to use TLS.
            protocol_version = default_request_version = "HTTP/1.1"

            def answer(self, status: int, body: str):
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if body.startswith("<") else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode() if self.command != "HEAD" else b"")

            def do_GET(self):
                if registry.pinged == 0:
                    registry.closing.wait()
                if self.path == "/v2/":
                    return self.answer(registry.pinged, "{}")
                if "/manifests/" not in self.path:
                    return self.answer(404, error("BLOB_UNKNOWN"))
                if registry.status == 0:
                    self.close_connection = True
                    return None
                return self.answer(registry.status, registry.body)

            do_HEAD = do_GET

            def write(self):
                registry.writes.append(f"{self.command} {self.path}")
                self.answer(403, error("DENIED"))

            do_POST = do_PUT = do_PATCH = do_DELETE = write

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer((self.address, 0), Handler)
        self.wrap()
        self.host = f"{self.address}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    #: Docker trusts registries on the loopback interface, with and without TLS.
    address = "127.0.0.1"

    def wrap(self):
        pass

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


def error(code: str, message: str = "as the registry says") -> str:
    return json.dumps({"errors": [{"code": code, "message": message}]})


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A repository with two commits, the older one tagged `old`."""
    directory = tmp_path_factory.mktemp("clone with a space")
    git = ["git", "-C", directory, "-c", "user.name=Test", "-c", "user.email=test@example.org"]
    run(*git, "init", "--quiet")
    (directory / ".gitignore").write_text("/target/\n")
    run(*git, "add", ".gitignore")
    run(*git, "commit", "--quiet", "--message=Old")
    run(*git, "tag", "old")
    run(*git, "commit", "--quiet", "--allow-empty", "--message=New")
    return directory


def commit(clone: Path, name: str = "HEAD") -> str:
    return run("git", "-C", clone, "rev-parse", name)


def build(clone: Path, image: str, commit: str):
    """Builds an image with the names that `make image` gives."""
    dockerfile = f"FROM scratch\nCOPY .gitignore /\nLABEL org.opencontainers.image.revision={commit}\n"
    for architecture in ["amd64", "arm64"]:
        tag = f"{image}:{commit[:12]}-{architecture}"
        options = ["--quiet", "--no-cache", f"--platform=linux/{architecture}", f"--tag={tag}", "--file=-"]
        run("docker", "build", *options, clone, input=dockerfile)


def push(clone: Path, image: str, revision: str | None = None, **environment: str) -> subprocess.CompletedProcess:
    revision = revision or commit(clone)
    command = [ROOT / "road/push.sh", image, revision[:12], revision]
    environment = {**os.environ, "REGISTRY_USER": "", **environment}
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)


NOT_THERE = {
    "no such tag": Registry(404, error("MANIFEST_UNKNOWN")),
    "no such repository": Registry(404, error("NAME_UNKNOWN")),
}
NOT_KNOWN = {
    "an error of the registry's own": (Registry(500, error("UNKNOWN")), "500 Internal Server Error"),
    "a proxy's 502": (Registry(502, "<html>bad gateway</html>"), "502"),
    "unavailable": (Registry(503, error("UNAVAILABLE")), "503 Service Unavailable"),
    "a proxy's 404": (Registry(404, "<html>no such page</html>"), "404"),
    "unauthorized": (Registry(401, error("UNAUTHORIZED")), "unauthorized"),
    "denied": (Registry(403, error("DENIED")), "denied"),
    "too many requests": (Registry(429, error("TOOMANYREQUESTS")), "toomanyrequests"),
    "no answer": (Registry(0, ""), "EOF"),
    "unavailable from the first request on": (Registry(503, "", pinged=503), "503"),
    # Go's client says "Client.Timeout exceeded" or "context deadline exceeded", whichever it notices first.
    "silence": (Registry(0, "", pinged=0), " exceeded"),
}


@pytest.mark.parametrize("answer", NOT_THERE)
def test_a_tag_is_pushed_if_the_registry_says_that_it_does_not_exist(clone, answer):
    with NOT_THERE[answer] as registry:
        image = f"{registry.host}/request-info"
        build(clone, image, commit(clone))
        assert push(clone, image).returncode != 0
        assert registry.writes


@pytest.mark.parametrize("answer", NOT_KNOWN)
def test_nothing_is_pushed_if_it_is_unknown_whether_the_tag_exists(clone, answer):
    registry, words = NOT_KNOWN[answer]
    with registry:
        image = f"{registry.host}/request-info"
        build(clone, image, commit(clone))
        done = push(clone, image)
    assert done.returncode == 1
    assert "it is not known whether the registry has" in done.stderr and words in done.stderr, done.stderr
    assert registry.writes == []
    assert not (clone / "target/reports/image.json").exists()


#: What `docker pull` says in version 29.7, whose daemon has containerd's image store: moby's daemon/containerd/image_pull.go
#: and registry_errors.go, containerd's core/remotes/docker/resolver.go. Of the bed's Docker, which is older, see above.
SAID = {
    'failed to resolve reference "docker.io/alice/request-info:TAG": docker.io/alice/request-info:TAG: not found': True,
    "pull access denied for alice/request-info, repository does not exist or may require 'docker login'": False,
    "error from registry: unauthorized - authentication required": False,
    'failed to resolve reference "docker.io/alice/request-info:TAG": unexpected status from HEAD request to '
    "https://registry-1.docker.io/v2/alice/request-info/manifests/TAG: 503 Service Unavailable": False,
    'failed to resolve reference "docker.io/alice/request-info:TAG": failed to do request: Head '
    '"https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host': False,
    "no matching manifest for linux/amd64 in the manifest list entries: no match for platform in manifest: not found": False,
}


@pytest.mark.parametrize("words", SAID)
def test_the_answers_of_a_newer_docker_are_understood(clone, tmp_path, words):
    said = f"Error response from daemon: {words}".replace("TAG", commit(clone)[:12])
    (tmp_path / "docker").write_text(f"""#!/bin/sh\necho "$*" >>{tmp_path}/calls\n[ "$1" = pull ] || exit 1
cat >&2 <<'X'\n{said}\nX\nexit 1\n""")
    (tmp_path / "docker").chmod(0o755)
    done = push(clone, "alice/request-info", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    pushes = [call for call in (tmp_path / "calls").read_text().splitlines() if call.startswith("push ")]
    assert bool(pushes) == SAID[words]
    assert (said in done.stderr) != SAID[words]


class Forged(Registry):
    """A registry with an untrusted certificate, at an address that is not on the loopback interface."""

    address = os.environ.get("HOST", "")

    def wrap(self):
        directory = Path(os.environ["TMPDIR"])
        key, certificate = directory / "forged.key", directory / "forged.crt"
        subject = ["-subj", f"/CN={self.address}", "-addext", f"subjectAltName=IP:{self.address}"]
        new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
        run(*new, "-keyout", key, "-out", certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)


class Plain(Registry):
    address = os.environ.get("HOST", "")


@pytest.mark.parametrize("kind, words", [(Forged, "x509"), (Plain, "HTTP response to HTTPS client")])
def test_a_registry_without_a_good_certificate_gets_nothing(clone, kind, words):
    with kind(404, error("MANIFEST_UNKNOWN")) as registry:
        done = push(clone, f"{registry.host}/request-info")
    assert done.returncode == 1
    assert words in done.stderr
    assert registry.writes == []


@pytest.mark.parametrize(
    "image, asked",
    [
        ("alice/request-info", "registry-1.docker.io"),
        ("request-info", "registry-1.docker.io"),
        ("docker.io/alice/request-info", "registry-1.docker.io"),
        ("registry.invalid/request-info", "registry.invalid"),
        ("localhost/request-info", "localhost"),
        ("registry:1/request-info", "registry:1"),
    ],
)
def test_the_login_goes_to_the_registry_that_the_image_names(clone, image, asked):
    """The bed has no network outside, and Docker names the host that it could not reach."""
    done = push(clone, image, REGISTRY_USER="alice", REGISTRY_PASSWORD="a password")
    assert done.returncode == 1
    assert f"://{asked}/v2/" in done.stderr, done.stderr
    assert "so nothing was pushed" in done.stderr


def test_a_refused_login_ends_the_push(clone):
    with Registry(404, error("MANIFEST_UNKNOWN"), pinged=401) as registry:
        done = push(clone, f"{registry.host}/request-info", REGISTRY_USER="alice", REGISTRY_PASSWORD="wrong")
    assert done.returncode == 1
    assert "as alice failed" in done.stderr
    assert registry.writes == []


def test_a_tree_that_differs_from_the_commit_is_not_pushed(clone):
    (clone / ".gitignore").write_text("/target/\n# more\n")
    done = push(clone, "registry.invalid/request-info")
    run("git", "-C", clone, "checkout", "--quiet", ".gitignore")
    assert done.returncode == 1
    assert "commit first" in done.stderr


def digest(repository: str, tag: str) -> str:
    return run("docker", "pull", f"{os.environ['HOST']}:5000/{repository}:{tag}").split("Digest: ")[1].split()[0]


def test_a_commit_is_pushed_once_and_an_older_one_does_not_move_latest(clone):
    """Not even an older one that was never pushed."""
    repository = f"{os.environ['HOST']}:5000/pushed-once"
    new, old = commit(clone), commit(clone, "old")
    build(clone, repository, new)
    assert push(clone, repository).returncode == 0
    pushed = json.loads((clone / "target/reports/image.json").read_text())
    assert pushed == {"image": f"{repository}:{new[:12]}", "digest": digest("pushed-once", new[:12])}
    assert digest("pushed-once", "latest") == pushed["digest"]

    build(clone, repository, new)  # another image of the same commit
    again = push(clone, repository)
    assert again.returncode == 0 and "is in the registry already" in again.stderr
    assert json.loads((clone / "target/reports/image.json").read_text()) == pushed

    run("git", "-C", clone, "checkout", "--quiet", "--detach", "old")
    build(clone, repository, old)
    late = push(clone, repository, old)
    run("git", "-C", clone, "checkout", "--quiet", "-")
    assert late.returncode == 0, late.stderr
    assert f"latest stays at commit {new}" in late.stderr
    assert digest("pushed-once", old[:12]) != pushed["digest"] == digest("pushed-once", "latest")
