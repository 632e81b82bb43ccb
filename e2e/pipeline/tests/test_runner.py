"""The runner on small Jenkinsfiles, and on the project's Jenkinsfile with a `make` that only records its targets."""

import os
import re
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "run"
JENKINSFILE = Path(__file__).parents[3] / "Jenkinsfile"
# The stages that the project was asked for. Everything else that names stages reads them from the Jenkinsfile.
STAGES = [
    "Checkout",
    "Lint Dockerfile",
    "Build docker image",
    "Security Scan",
    "Lint app",
    "Push docker image",
    "Deploy to Kubernetes cluster",
]


def git(repository: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", "-C", str(repository), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


class Job:
    """A repository with one Jenkinsfile on two branches, and the results of a build of it."""

    def __init__(self, directory: Path, jenkinsfile: str):
        self.directory = directory
        self.repository = directory / "repository"
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.repository)], check=True)
        git(self.repository, "commit", "-q", "--allow-empty", "-m", "first")
        (self.repository / "Jenkinsfile").write_text(textwrap.dedent(jenkinsfile))
        git(self.repository, "add", ".")
        git(self.repository, "commit", "-q", "-m", "second")
        git(self.repository, "branch", "feature")
        self.commit = git(self.repository, "rev-parse", "HEAD")
        self.artifacts = directory / "artifacts"
        self.credentials = directory / "credentials"
        self.credentials.write_text("")

    def command(self, branch: str = "main", *options: str) -> list[str]:
        where = [
            "--repository",
            self.repository,
            "--workspace",
            self.directory / "workspace",
            "--artifacts",
            self.artifacts,
        ]
        what = ["--branch", branch, "--commit", self.commit, "--credentials", self.credentials]
        return [str(word) for word in [RUN, *where, *what, *options]]

    def build(self, branch: str = "main", *options: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(branch, *options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )


@pytest.fixture
def job(tmp_path):
    return lambda jenkinsfile: Job(tmp_path, jenkinsfile)


def outcomes(log: str) -> dict[str, str]:
    return dict(re.findall(r"^stage (.+): (SUCCESS|FAILURE|ABORTED|SKIPPED|NOT RUN) \(", log, re.MULTILINE))


def pipeline(stages: str, post: str = "", options: str = "") -> str:
    return f"pipeline {{\n agent any\n {options}\n stages {{\n {stages}\n }}\n {post}\n}}\n"


def ended(pid: str) -> bool:
    """Whether the process is gone, or a zombie whose parent has not waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


CHECKOUT = "stage('Checkout') { steps { checkout scm } }\n"


# --- the runner -------------------------------------------------------------------------------------------------------


def test_stages_run_in_the_order_of_the_file_in_a_fresh_clone_of_the_commit(job):
    it = job(
        pipeline(
            CHECKOUT
            + "stage('B') { steps { sh 'git rev-parse HEAD; git status --short' } }\nstage('A') { steps { sh 'pwd' } }"
        )
    )
    built = it.build()
    assert built.returncode == 0, built.stdout
    assert list(outcomes(built.stdout).items()) == [("Checkout", "SUCCESS"), ("B", "SUCCESS"), ("A", "SUCCESS")]
    assert f"+ git rev-parse HEAD\n{it.commit}\n+ git status --short\n===" in built.stdout
    assert str(it.directory / "workspace") in built.stdout


def test_a_failing_command_ends_its_script_its_stage_and_the_build(job):
    built = job(
        pipeline(
            CHECKOUT
            + "stage('A') { steps { sh '''echo one\nexit 7\necho two'''\n sh 'echo three' } }\nstage('B') { steps { sh 'echo four' } }"
        )
    ).build()
    assert built.returncode == 1
    assert outcomes(built.stdout) == {"Checkout": "SUCCESS", "A": "FAILURE", "B": "NOT RUN"}
    assert "script returned exit code 7 (Jenkinsfile:6)" in built.stdout
    assert not {"two", "three", "four"} & set(built.stdout.split())
    assert built.stdout.endswith("Finished: FAILURE\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [("true", ["always", "success", "cleanup"]), ("false", ["always", "failure", "unsuccessful", "cleanup"])],
    ids=["success", "failure"],
)
def test_post_runs_the_conditions_of_the_result_and_always(job, command, said):
    post = (
        "post {\n"
        + "".join(
            f"{condition} {{ echo 'post-{condition}' }}\n"
            for condition in ["cleanup", "unsuccessful", "failure", "success", "always"]
        )
        + "}"
    )
    built = job(pipeline(CHECKOUT + f"stage('A') {{ steps {{ sh '{command}' }} }}", post)).build()
    assert re.findall(r"^post-(\w+)$", built.stdout, re.MULTILINE) == said


def test_a_failure_in_post_fails_the_build(job):
    built = job(pipeline(CHECKOUT, "post { always { archiveArtifacts 'nothing/*' } }")).build()
    assert built.returncode == 1
    assert "no file matches nothing/*" in built.stdout


def test_secrets_are_bound_inside_their_block_only_and_never_printed(job):
    it = job(
        pipeline(
            CHECKOUT
            + """
        stage('A') { steps {
          withCredentials([
            usernamePassword(credentialsId: 'registry', usernameVariable: 'U', passwordVariable: 'P'),
            string(credentialsId: 'token', variable: 'T'), file(credentialsId: 'kubeconfig', variable: 'K')
          ]) {
            sh 'echo "user $U"; echo "$P"; echo "$T" >&2; printf %s "$P" | base64; cat "$K"; env'
            sh "echo interpolated ${P}"
            sh 'false'
          }
        } }""",
            "post { always { sh 'echo \"after: ${P-unset} ${K-unset}\"' } }",
        )
    )
    (it.directory / "kube").write_text("the file's content\n")
    it.credentials.write_text(
        f"registry.username=jenkins\nregistry.password=hunter2hunter2\ntoken.secret=tok-123\nkubeconfig.file={it.directory}/kube\n"
    )
    built = it.build()
    assert "user jenkins" in built.stdout
    assert "the file's content" in built.stdout
    assert "K=****\n" in built.stdout and "P=****\n" in built.stdout and "T=****\n" in built.stdout
    assert "a secret was put into this script by Groovy" in built.stdout
    assert "after: unset unset" in built.stdout
    for secret in ["hunter2", "tok-123", "aHVudGVyMmh1bnRlcjI=", "secretFiles"]:
        assert secret not in built.stdout
    assert not list(it.directory.glob("workspace@tmp*")), "the secret file's copy is gone"


def test_a_missing_credential_fails_the_stage_and_names_the_line_to_add(job):
    built = job(
        pipeline(
            CHECKOUT
            + "stage('A') { steps { withCredentials([string(credentialsId: 'token', variable: 'T')]) { sh 'true' } } }"
        )
    ).build()
    assert built.returncode == 1
    assert "no credential `token` with a secret: the credentials file has no line token.secret=…" in built.stdout


def test_commands_get_the_environment_and_later_values_may_use_earlier_ones(job):
    stages = (
        CHECKOUT
        + "stage('A') { environment { C = \"${B}c\" }\n steps { sh 'echo \"<$A $B $C $GIVEN $BRANCH_NAME>\"' } }"
    )
    built = job(pipeline(stages, options="environment { A = 'a'\n B = \"${A}b\" }")).build("main", "--env", "GIVEN=x=y")
    assert "<a ab abc x=y main>" in built.stdout


def test_when_matches_a_branch_by_ants_patterns(job):
    stages = "".join(
        f"stage('{it}') {{ when {{ branch '{it}' }}\n steps {{ sh 'true' }} }}\n"
        for it in ["feat*", "*/feature", "main"]
    )
    built = job(pipeline(CHECKOUT + stages)).build("feature")
    assert outcomes(built.stdout) == {
        "Checkout": "SUCCESS",
        "feat*": "SUCCESS",
        "*/feature": "SKIPPED",
        "main": "SKIPPED",
    }


@pytest.mark.parametrize("where", ["options", "step"])
def test_a_timeout_ends_the_command_and_all_its_children_and_aborts_the_build(job, where):
    pid = "sh -c 'echo child=$$; exec sleep 60' & wait"
    steps = f'sh """{pid}"""'.replace("$", "\\$")
    limit = "timeout(time: 1, unit: 'SECONDS')"
    stage = (
        f"options {{ {limit} }}\n steps {{ {steps} }}" if where == "options" else f"steps {{ {limit} {{ {steps} }} }}"
    )
    built = job(pipeline(CHECKOUT + f"stage('A') {{ {stage} }}", "post { always { sh 'echo tidied' } }")).build()
    assert built.returncode == 1
    assert "A: timeout exceeded" in built.stdout and "tidied" in built.stdout and "Finished: ABORTED" in built.stdout
    assert ended(re.search(r"^child=(\d+)", built.stdout, re.MULTILINE).group(1))


def test_a_runner_that_is_ended_ends_its_commands(job):
    it = job(pipeline(CHECKOUT + "stage('A') { steps { sh 'echo pid=$$; exec sleep 60' } }"))
    runner = subprocess.Popen(it.command(), stdout=subprocess.PIPE, text=True)
    child = next(match.group(1) for line in runner.stdout if (match := re.fullmatch(r"pid=(\d+)\n", line)))
    runner.send_signal(signal.SIGTERM)
    runner.wait(timeout=30)
    deadline = time.monotonic() + 10
    while not ended(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended(child)


@pytest.mark.parametrize(
    ("pattern", "archived"),
    [
        ("out/*.txt", ["out/a.txt"]),
        ("out/**", ["out/a.txt", "out/deep/b.txt", "out/deep/c.json"]),
        ("**/*.json, out/?.txt", ["out/a.txt", "out/deep/c.json"]),
    ],
)
def test_artifacts_are_copied_by_ants_patterns(job, pattern, archived):
    it = job(
        pipeline(
            CHECKOUT
            + "stage('A') { steps { sh 'mkdir -p out/deep; touch out/a.txt out/deep/b.txt out/deep/c.json' } }",
            f"post {{ always {{ archiveArtifacts '{pattern}' }} }}",
        )
    )
    assert it.build().returncode == 0
    assert sorted(str(file.relative_to(it.artifacts)) for file in it.artifacts.rglob("*") if file.is_file()) == archived


@pytest.mark.parametrize(
    ("extensions", "commits"),
    [("cloneOption(shallow: false)", 2), ("cloneOption(shallow: true, depth: 1)", 1)],
    ids=["full", "shallow"],
)
def test_a_checkout_has_the_requested_depth(job, extensions, commits):
    checkout = (
        f"checkout scmGit(branches: scm.branches, userRemoteConfigs: scm.userRemoteConfigs, extensions: [{extensions}])"
    )
    built = job(pipeline(f"stage('A') {{ steps {{ {checkout}\n sh 'git rev-list --count HEAD' }} }}")).build()
    assert f"+ git rev-list --count HEAD\n{commits}\n" in built.stdout


@pytest.mark.parametrize(
    ("extensions", "found"),
    [("", "Jenkinsfile left new"), ("cleanBeforeCheckout()", "Jenkinsfile new")],
    ids=["as it was", "cleaned"],
)
def test_the_next_build_keeps_its_workspace_and_updates_only_what_has_changed(job, extensions, found):
    checkout = (
        f"checkout scmGit(branches: scm.branches, userRemoteConfigs: scm.userRemoteConfigs, extensions: [{extensions}])"
    )
    it = job(pipeline(f"stage('A') {{ steps {{ {checkout}\n sh 'git rev-parse HEAD; echo *; touch left' }} }}"))
    assert it.build().returncode == 0
    unchanged = it.directory / "workspace/Jenkinsfile"
    before = unchanged.stat().st_mtime_ns
    (it.repository / "new").touch()
    git(it.repository, "add", ".")
    git(it.repository, "commit", "-q", "--amend", "-m", "in place of the second")
    it.commit = git(it.repository, "rev-parse", "HEAD")
    built = it.build()
    assert built.returncode == 0, built.stdout
    assert f"{it.commit}\n" in built.stdout and f"\n{found}\n" in built.stdout
    assert unchanged.stat().st_mtime_ns == before


def test_the_first_clone_has_no_tags_and_a_later_fetch_brings_them(job):
    checkout = "checkout scmGit(branches: scm.branches, userRemoteConfigs: scm.userRemoteConfigs, extensions: [{}])"
    clone = checkout.format("cloneOption(shallow: false, noTags: false, reference: '')")
    it = job(pipeline(f"stage('A') {{ steps {{ {clone}\n sh 'echo \"<$(git tag)>\"' }} }}"))
    git(it.repository, "tag", "v1")
    assert "<>" in it.build().stdout
    assert "<v1>" in it.build().stdout


# What the runner does not know, and what Jenkins refuses. The latter was seen in a Jenkins 2.568.2 in November 2026 or, for cases
# of the same kind, read in the validator of pipeline-model-definition 2.2277.v00573e73ddf1.
REFUSED = {
    "an unknown section": (
        pipeline(CHECKOUT).replace("agent any", "agent any\n tools { maven 'x' }"),
        "Jenkinsfile:3: unknown directive or step `tools` in pipeline",
    ),
    "an unknown step late in the file": (
        pipeline("stage('A') { steps { sh 'touch ran' } }", "post {\n always {\n input 'x'\n } }"),
        "Jenkinsfile:9: unknown directive or step `input` in always",
    ),
    "an unknown condition": (
        pipeline("stage('A') {\n when { tag 'x' }\n steps { sh 'touch ran' } }"),
        "Jenkinsfile:6: unknown directive or step `tag` in when",
    ),
    "an unknown option": (
        pipeline(CHECKOUT, options="options { retry(3) }"),
        "Jenkinsfile:3: unknown directive or step `retry` in options",
    ),
    "an unknown argument": (
        pipeline("stage('A') { steps { sh(script: 'x', returnStatus: true) } }"),
        "Jenkinsfile:5: unknown argument `returnStatus` of `sh`",
    ),
    "an unknown binding": (
        pipeline("stage('A') { steps { withCredentials([sshUserPrivateKey(credentialsId: 'x')]) { sh 'x' } } }"),
        "Jenkinsfile:5: unknown `sshUserPrivateKey`",
    ),
    "an unknown checkout extension": (
        pipeline("stage('A') { steps { checkout(scmGit(extensions: [lfs()])) } }"),
        "Jenkinsfile:5: unknown `lfs`",
    ),
    "code outside a step": (
        pipeline("stage('A') { steps {\n def x = 1\n sh 'x' } }"),
        "Jenkinsfile:6: only directives and steps are allowed in steps",
    ),
    "a computed environment": (
        pipeline(CHECKOUT, options="environment { A = env.HOME }"),
        "Jenkinsfile:3: a value in environment is a quoted string",
    ),
    "no agent": (pipeline(CHECKOUT).replace("agent any", ""), "Jenkinsfile:1: pipeline has no `agent`"),
    "a stage without steps": (pipeline("stage('A') { when { branch 'main' } }"), "Jenkinsfile:5: stage has no `steps`"),
    "a section twice": (
        pipeline(CHECKOUT).replace("agent any", "agent any\n agent any"),
        "Jenkinsfile:3: `agent` appears twice in pipeline",
    ),
    "not Groovy": ("pipeline {", "Jenkinsfile: 1: Unexpected input"),
    "a number as text": (
        pipeline(CHECKOUT, options="options { timeout(time: '90') }"),
        "Jenkinsfile:3: `time` of `timeout` must be of type Integer, and `90` is not",
    ),
    "text as a number": (
        pipeline(CHECKOUT, options="options { buildDiscarder(logRotator(numToKeepStr: 50)) }"),
        "Jenkinsfile:3: `numToKeepStr` of `logRotator` must be of type String, and `50` is not",
    ),
    "an unknown unit": (
        pipeline(CHECKOUT, options="options { timeout(time: 90, unit: 'MINUTE') }"),
        "Jenkinsfile:3: `unit` of `timeout` must be of type TimeUnit, and `MINUTE` is not",
    ),
    "a step without arguments": (pipeline("stage('A') { steps { sh() } }"), "Jenkinsfile:5: `sh` has no `script`"),
    "a step with only a label": (
        pipeline("stage('A') { steps { sh(label: 'x') } }"),
        "Jenkinsfile:5: `sh` has no `script`",
    ),
    "arguments without names": (
        pipeline("stage('A') { steps { sh('a', 'b') } }"),
        "Jenkinsfile:5: the arguments of `sh` need names: script, label, returnStdout",
    ),
    "an argument of an option that takes none": (
        pipeline(CHECKOUT, options="options { timestamps(5) }"),
        "Jenkinsfile:3: `timestamps` takes no arguments",
    ),
    "an option with a block": (
        pipeline(CHECKOUT, options="options { timeout(5) { echo 'x' } }"),
        "Jenkinsfile:3: `timeout` takes no block",
    ),
    "an empty environment": (pipeline(CHECKOUT, options="environment { }"), "Jenkinsfile:3: environment is empty"),
    "empty options": (pipeline(CHECKOUT, options="options { }"), "Jenkinsfile:3: options is empty"),
    "empty options of a stage": (
        pipeline("stage('A') { options { }\n steps { sh 'x' } }"),
        "Jenkinsfile:5: options of a stage is empty",
    ),
    "an empty post": (pipeline(CHECKOUT, "post { }"), "Jenkinsfile:8: post is empty"),
    "an empty condition": (pipeline(CHECKOUT, "post { always { } }"), "Jenkinsfile:8: always is empty"),
    "empty steps": (pipeline("stage('A') { steps { } }"), "Jenkinsfile:5: steps is empty"),
    "an empty when": (pipeline("stage('A') { when { }\n steps { sh 'x' } }"), "Jenkinsfile:5: when is empty"),
    "no stages": (pipeline(""), "Jenkinsfile:4: stages is empty"),
    "two stages of one name": (
        pipeline("stage('A') { steps { sh 'x' } }\n" * 2),
        "Jenkinsfile:6: the stage `A` appears twice in stages",
    ),
    "a computed name": (
        pipeline("stage(\"A ${X}\") { steps { sh 'x' } }", options="environment { X = 'x' }"),
        "Jenkinsfile:5: the name of a stage is a literal string",
    ),
    "a stage without a name": (pipeline("stage { steps { sh 'x' } }"), "Jenkinsfile:5: `stage` has no `name`"),
    "a variable twice": (
        pipeline(CHECKOUT, options="environment { A = 'a'\n A = 'b' }"),
        "Jenkinsfile:4: the variable `A` appears twice in environment",
    ),
    "an invalid name of a variable": (
        pipeline(CHECKOUT, options="environment { A$B = 'a' }"),
        "Jenkinsfile:3: `A$B` is not a valid name of a variable",
    ),
    "a method in a string": (
        pipeline("stage('A') { steps { sh \"echo ${System.getenv('HOME')}\" } }"),
        "Jenkinsfile:5: `System.getenv(HOME)` is unknown here, and Jenkins's sandbox refuses",
    ),
    "a method in environment": (
        pipeline(CHECKOUT, options="environment { A = \"${System.getenv('HOME')}\" }"),
        "Jenkinsfile:3: `System.getenv(HOME)` is unknown here",
    ),
    "a property of a class": (
        pipeline("stage('A') { steps { echo \"${System.out}\" } }"),
        "Jenkinsfile:5: `System.out` is unknown here",
    ),
    "a constructor": (
        pipeline("stage('A') { steps { echo \"${new Date()}\" } }"),
        "Jenkinsfile:5: `new Date()` is unknown here",
    ),
    "other code in script": (
        pipeline("stage('A') { steps { script { currentBuild.result = 'SUCCESS' } } }"),
        "Jenkinsfile:5: only currentBuild.description = value is allowed in script",
    ),
} | {
    f"{option} in a stage": (
        pipeline(f"stage('A') {{ options {{ {option} }}\n steps {{ sh 'x' }} }}"),
        f"Jenkinsfile:5: unknown directive or step `{option.partition('(')[0]}` in options of a stage",
    )
    for option in ["disableConcurrentBuilds()", "buildDiscarder(logRotator(numToKeepStr: '5'))"]
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_unknown_is_refused_with_its_line_before_anything_runs(job, case):
    jenkinsfile, complaint = REFUSED[case]
    it = job(jenkinsfile)
    built = it.build()
    assert built.returncode == 2
    assert complaint in built.stdout
    assert not (it.directory / "workspace").exists()


TAKEN = {
    "a timeout without names": "options { timeout(90) }\n steps { timeout(5) { echo 'here' } }",
    "a timeout with a unit": "steps { timeout(time: 5, unit: 'HOURS') { echo 'here' } }",
    "a script with a label": "steps { sh(script: 'echo here', label: 'says where') }",
    "a message by its name": "steps { echo(message: 'here') }",
    "variables by their name": "steps { withEnv(overrides: ['A=here']) { sh 'echo $A' } }",
    "a block without steps": "steps { timeout(5) { }\n withEnv(['A=b']) { }\n echo 'here' }",
    "a pattern by its name": "when { branch(pattern: 'main') }\n steps { echo 'here' }",
    "options of a stage": "options { skipDefaultCheckout()\n timestamps() }\n steps { echo 'here' }",
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_jenkins_accepts_is_accepted(job, case):
    built = job(pipeline(CHECKOUT + f"stage('A') {{ {TAKEN[case]} }}")).build()
    assert built.returncode == 0, built.stdout
    assert "\nhere\n" in built.stdout


def test_an_empty_variable_does_not_exist_as_in_jenkins(job):
    it = job(
        pipeline(
            CHECKOUT
            + """stage('A') { steps {
          withCredentials([usernamePassword(credentialsId: 'r', usernameVariable: 'U', passwordVariable: 'P')]) {
            withEnv(['A=', 'B=b']) { sh 'echo "<${P-none} ${A-none} $B ${C-none} ${D-none}>"' }
            echo "${P}"
          } } }""",
            options="environment { C = '' }",
        )
    )
    it.credentials.write_text("r.username=jenkins\nr.password=\n")
    built = it.build("main", "--env", "D=")
    assert "<none none b none none>" in built.stdout
    assert built.returncode == 1 and "ERROR: A: no variable `P`" in built.stdout


def test_with_an_explicit_checkout_the_variable_git_commit_is_missing(job, monkeypatch):
    monkeypatch.setenv("GIT_COMMIT", "of the build that runs these tests")
    built = job(pipeline(CHECKOUT + "stage('A') { steps { sh 'echo \"<${GIT_COMMIT-none}>\"' } }")).build()
    assert "<none>" in built.stdout


def test_a_misspelt_variable_is_an_error_although_jenkins_writes_null(job):
    built = job(pipeline(CHECKOUT, options='environment { TARGET = "${WORKSPACES}@target" }')).build()
    assert built.returncode == 2
    assert "no variable `WORKSPACES`; Jenkins would write `null`" in built.stdout


def test_a_script_sets_the_builds_description_and_the_log_ends_with_it(job):
    command = "sh(script: 'echo to the log >&2; printf done', returnStdout: true)"
    stage = f"stage('A') {{ steps {{ script {{ currentBuild.description = {command} }} }} }}"
    built = job(pipeline(CHECKOUT + stage)).build()
    assert built.returncode == 0, built.stdout
    assert "\nto the log\n" in built.stdout
    assert built.stdout.endswith("\nDescription: done\nFinished: SUCCESS\n")


def test_a_command_gets_sigterm_five_seconds_after_its_children(job):
    child = "sh -c 'trap \"\" TERM; echo deaf=$(date +%s); exec sleep 60'"
    script = f"trap 'echo told=$(date +%s)' TERM; {child} & wait; wait"
    steps = f"timeout(time: 1, unit: 'SECONDS') {{ sh '''{script}''' }}"
    built = job(pipeline(CHECKOUT + f"stage('A') {{ steps {{ {steps} }} }}")).build()
    deaf, told = (int(re.search(rf"^{word}=(\d+)", built.stdout, re.MULTILINE).group(1)) for word in ["deaf", "told"])
    assert 5 <= told - deaf <= 8, built.stdout


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda it: it.credentials.unlink(), "--credentials {0}/credentials cannot be read"),
        (lambda it: (it.directory / "workspace/old").mkdir(parents=True), "--workspace {0}/workspace is neither empty nor a clone"),
        (lambda it: setattr(it, "commit", "f" * 40), "no Jenkinsfile in commit ffffffff"),
    ],
    ids=["credentials", "workspace", "commit"],
)
def test_a_wrong_command_line_is_refused_with_the_mistake(job, spoil, complaint):
    it = job(pipeline(CHECKOUT))
    spoil(it)
    built = it.build()
    assert built.returncode == 2
    assert complaint.format(it.directory) in built.stdout


# --- the project's Jenkinsfile ----------------------------------------------------------------------------------------

MAKE = """#!/bin/sh
echo "make $*" >>"$NOTES"
[ "$*" != "--silent verdict" ] || { printf 'done: it serves'; exit; }
[ -z "$KUBECONFIG" ] || cat "$KUBECONFIG"
[ -z "$AWS_SHARED_CREDENTIALS_FILE" ] || cat "$AWS_SHARED_CREDENTIALS_FILE"
case " $FAILING " in *" $1 "*) exit 2;; esac
mkdir -p target/reports && echo '{}' >"target/reports/$1.json"
"""


@pytest.fixture
def road(job, tmp_path, monkeypatch):
    """Builds the project's Jenkinsfile; returns the log, the calls of make and the archived files."""
    make = tmp_path / "bin/make"
    make.parent.mkdir()
    make.write_text(MAKE)
    make.chmod(0o755)
    notes = tmp_path / "notes"
    notes.write_text("")
    monkeypatch.setenv("PATH", f"{make.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(notes))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    it = job(JENKINSFILE.read_text())
    (tmp_path / "kube").write_text("kubeconfig was there\n")
    (tmp_path / "aws").write_text("access key was there\n")
    it.credentials.write_text(
        f"registry.username=jenkins\nregistry.password=hunter2\nkubeconfig.file={tmp_path}/kube\naws.file={tmp_path}/aws\n"
    )

    def build(branch="main", failing=""):
        built = it.build(branch, "--env", f"FAILING={failing}")
        return built, notes.read_text().splitlines(), sorted(file.name for file in it.artifacts.rglob("*.json"))

    return build


def test_a_commit_on_main_passes_the_seven_stages_each_with_one_call_of_make(road):
    built, calls, archived = road()
    assert built.returncode == 0, built.stdout
    assert list(outcomes(built.stdout).items()) == [(stage, "SUCCESS") for stage in STAGES]
    assert calls == [
        "make lint-dockerfile",
        "make test-component image",
        "make scan",
        "make lint-app",
        "make push",
        "make deploy",
        "make --silent verdict",
    ]
    assert archived == [
        "deploy.json",
        "lint-app.json",
        "lint-dockerfile.json",
        "push.json",
        "scan.json",
        "test-component.json",
    ]
    assert built.stdout.count("kubeconfig was there") == 1, "bound for the deploy alone"
    assert built.stdout.count("access key was there") == 2, "bound for the push and the deploy"
    assert "\nDescription: done: it serves\n" in built.stdout
    assert "hunter2" not in built.stdout


def test_a_branch_stops_after_lint_app(road):
    built, calls, _ = road("feature")
    assert built.returncode == 0, built.stdout
    assert outcomes(built.stdout) == {stage: "SUCCESS" for stage in STAGES[:5]} | {
        stage: "SKIPPED" for stage in STAGES[5:]
    }
    assert calls[-1] == "make lint-app"


@pytest.mark.parametrize(
    ("target", "stage"),
    [("lint-dockerfile", 1), ("test-component", 2), ("scan", 3), ("lint-app", 4), ("push", 5), ("deploy", 6)],
)
def test_a_failure_stops_the_pipeline_at_its_stage_and_what_exists_is_archived(road, target, stage):
    built, calls, archived = road(failing=target)
    assert built.returncode == 1
    assert list(outcomes(built.stdout).values()) == ["SUCCESS"] * stage + ["FAILURE"] + ["NOT RUN"] * (6 - stage)
    assert [it.split()[1] for it in calls if it != "make --silent verdict"][-1] == target
    assert ("Description: " in built.stdout) == (target == "deploy"), "however the deploy ended"
    assert len(archived) == stage - 1
