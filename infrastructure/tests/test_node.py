"""The user data of a node. The script is run, the real nodeadm merges the NodeConfig into containerd's configuration, and a
containerd close to that of Amazon Linux 2023 starts with it. As root, in namespaces."""

import functools
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from test_cluster import CONFIG, GROUP, RESOURCES

HERE = Path(__file__).parent
(SCRIPT,) = GROUP["preBootstrapCommands"]
SHIM = "containerd-shim-spin-v2"
URL = re.search(r"https://github.com(/\S+)\$\(uname -m\)(\S+)\"", SCRIPT)
PINNED = dict(re.findall(r"(\w+)\) sha256=(\w+)", SCRIPT))
NODEADM = "github.com/awslabs/amazon-eks-ami/nodeadm", "v0.0.0-20260213141146-147b13ea3f4a"  # eksctl 0.231 requires it
CONTAINERD = "github.com/containerd/containerd/v2", "v2.2.3"  # Amazon Linux 2023 has 2.2.4, which is not a Go module

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@functools.cache
def built(module, version):
    """The program of this name in the module's cmd. It is compiled once, which takes about a minute."""
    name = re.sub(r"/v\d+$", "", module).rpartition("/")[2]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "request-info" / f"{name}-{version}"
    if not (cache / name).exists():
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "go.mod").write_text(f"module of\n\ngo 1.25.1\n\nrequire {module} {version}\n\ntool {module}/cmd/{name}\n")
        subprocess.run(["go", "mod", "tidy"], cwd=cache, check=True, capture_output=True)
        subprocess.run(["go", "build", "tool"], cwd=cache, check=True, env=os.environ | {"CGO_ENABLED": "0", "GOBIN": cache})
    return cache / name


class Node:
    def __init__(self, directory):
        self.directory = directory
        shutil.copytree("/etc", directory / "etc", symlinks=True, ignore=shutil.ignore_patterns("containerd", "ssl"))
        (directory / "etc/hosts").write_text("127.0.0.1 localhost github.com\n")
        for empty in ("bin", "github"):
            (directory / empty).mkdir()
        self.tool("systemctl", f'echo "systemctl $*" >>{directory}/calls\n')
        request = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=github.com -addext subjectAltName=DNS:github.com"
        key, pem = directory / "key", directory / "github.pem"
        subprocess.run(["openssl", *request.split(), "-keyout", key, "-out", pem], check=True, capture_output=True)
        pem.write_text(key.read_text() + pem.read_text())

    def tool(self, name, script):
        (self.directory / "bin" / name).write_text(f"#!/bin/bash\n{script}")
        (self.directory / "bin" / name).chmod(0o755)

    def run(self, *command, **options):
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        return subprocess.run(
            [*unshare, sys.executable, HERE / "node.py", self.directory, *command],
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )

    def first_boot(self, script):
        """The script as cloud-init runs it."""
        (self.directory / "script").write_text("#!/bin/bash\n" + script)
        return self.run("bash", self.directory / "script")


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def archive(content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(SHIM)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


RIGHT = archive(b"the shim")
# The only difference from a real node: the release cannot be downloaded here, so the pinned checksum is that of our archive.
OF_OURS = SCRIPT.replace(PINNED[os.uname().machine], hashlib.sha256(RIGHT).hexdigest())


def offer(node, content):
    file = node.directory / "github" / (URL[1] + os.uname().machine + URL[2]).lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(content)


def joins(node):
    """Whether systemd starts nodeadm-run with the drop-in that the script left."""
    drop_in = node.directory / "etc/systemd/system/nodeadm-run.service.d/shim.conf"
    (node.directory / "etc/systemd/system/nodeadm-run.service").write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    verified = node.run("systemd-analyze", "verify", "nodeadm-run.service")
    assert (verified.returncode, verified.stderr) == (0, ""), "systemd knows each word of it"
    section, condition = drop_in.read_text().splitlines()
    assert section == "[Unit]"
    return node.run("systemd-analyze", "condition", condition).returncode == 0


def test_the_pinned_checksums_are_those_of_the_release():
    assert PINNED == {
        "x86_64": "eec8df96fa3a4fe5dbc57ffb706461692c055299dd6d22dff9444863a2a12281",
        "aarch64": "a923f08d91c110d2cda29fbc380273e6d0a97aa0bab455c55f613c8d5a8bfbe4",
    }
    assert "/releases/download/v0.23.0/" in URL[1]


def test_the_script_installs_the_shim_with_the_pinned_checksum_and_the_node_joins(node):
    offer(node, RIGHT)
    done = node.first_boot(OF_OURS)
    assert done.returncode == 0, done.stderr
    assert (node.directory / "bin" / SHIM).read_bytes() == b"the shim"
    assert (node.directory / "calls").read_text() == "systemctl daemon-reload\n"
    assert joins(node)


@pytest.mark.parametrize(
    ("content", "words"),
    [(archive(b"another"), "sha256sum: WARNING: 1 computed checksum did NOT match"), (None, "The requested URL returned error: 404")],
    ids=["another archive", "no archive"],
)
def test_a_node_without_the_pinned_shim_does_not_join(node, content, words):
    if content:
        offer(node, content)
    done = node.first_boot(OF_OURS)
    assert done.returncode != 0
    assert words in done.stderr
    assert not (node.directory / "bin" / SHIM).exists()
    assert not joins(node)


# --- NodeConfig ---

# EKS adds its own part to a managed node's user data. The feature gate keeps nodeadm from asking EC2.
OF_EKS = """apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  featureGates: {InstanceIdNodeName: true}
  cluster: {name: request-info, apiServerEndpoint: "https://example.org", certificateAuthority: Y2E=, cidr: 10.100.0.0/16}
"""


def by_cluster_json():
    separator, lines = RESOURCES["NodeTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Join"]
    return separator.join(lines)


def by_eksctl():
    """As pkg/nodebootstrap/managed_al2.go of eksctl 0.231 writes it: the NodeConfig is parsed and written again."""
    config = yaml.safe_load(GROUP["overrideBootstrapCommand"])
    config["metadata"] = {}
    config["spec"] |= {"cluster": {}, "instance": {"localStorage": {}, "network": {}}, "kubelet": {}}
    return "\r\n".join(
        [
            "MIME-Version: 1.0",
            "Content-Type: multipart/mixed; boundary=0f1e",
            "",
            "--0f1e",
            "Content-Type: text/x-shellscript",
            'Content-Type: charset="us-ascii"',
            "",
            "#!/bin/bash\n" + SCRIPT,
            "--0f1e",
            "Content-Type: application/node.eks.aws",
            "",
            yaml.safe_dump(config),
            "--0f1e--",
            "",
        ]
    )


# nodeadm-config.service of the image runs this at every boot, for both daemons.
CONFIGURE = "init --skip run --daemon containerd --config-source imds://user-data --config-cache /run/eks/nodeadm/config.json"


@pytest.fixture
def configured(node):
    """A node whose nodeadm has read this user data, after its first boot or a later one."""
    if not shutil.which("go") and not os.environ.get("CI"):
        pytest.skip("nodeadm and containerd are built with go")
    node.tool("kubelet", f"echo Kubernetes v{CONFIG['metadata']['version']}.0\n")
    node.tool("containerd", f'exec {built(*CONTAINERD)} "$@"\n')

    def configure(user_data, then="true"):
        head, boundary, end = re.fullmatch(r"(.*)(--\S+)(--\s*)", user_data, re.DOTALL).groups()
        line = "\r\n" if boundary + "\r\n" in head else "\n"
        part = [boundary, "Content-Type: application/node.eks.aws", "", OF_EKS, boundary + end]
        (node.directory / "user-data").write_bytes((head + line.join(part)).encode())
        done = node.run("bash", "-c", f"{built(*NODEADM)} {CONFIGURE} && {then}")
        assert done.returncode == 0, done.stderr
        return done, tomllib.loads((node.directory / "etc/containerd/config.toml").read_text())

    return configure


def runtimes(config):
    return config["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]


@pytest.mark.parametrize("user_data", [by_cluster_json, by_eksctl])
def test_nodeadm_adds_the_runtime_to_containerds_configuration(configured, user_data):
    _, config = configured(user_data())
    assert runtimes(config)["spin-v2"] == {"runtime_type": "io.containerd.spin.v2", "options": {"SystemdCgroup": True}}
    assert runtimes(config)["runc"]["options"] == {"BinaryName": "/usr/sbin/runc", "SystemdCgroup": True}
    assert config["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["default_runtime_name"] == "runc"


def test_after_a_reboot_the_runtime_is_configured_and_what_was_appended_by_hand_is_gone(configured, node):
    _, before = configured(by_cluster_json())
    with (node.directory / "etc/containerd/config.toml").open("a") as file:
        file.write("[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.appended]\n")
    assert "appended" in (node.directory / "etc/containerd/config.toml").read_text()
    _, after = configured(by_cluster_json())
    assert after == before


START = """
containerd >/run/log 2>&1 &
until grep -q 'containerd successfully booted' /run/log; do kill -0 $! || { cat /run/log >&2; exit 1; }; sleep .1; done
cat /run/log
kill $!
"""


def test_containerd_starts_and_lists_the_runtime(configured):
    done, _ = configured(by_cluster_json(), f"{{ {START} }}")
    (line,) = [it for it in done.stdout.splitlines() if "starting cri plugin" in it]
    assert '\\"spin-v2\\":{\\"runtimeType\\":\\"io.containerd.spin.v2\\"' in line
