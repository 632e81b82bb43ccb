"""createCluster.sh and deleteCluster.sh against tools that note how they were called and play a small AWS."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
TOOLS = ["aws", "eksctl", "helm", "kubectl"]
JENKINS = "arn:aws:iam::123456789012:role/jenkins"

# The state of this AWS is files: `cluster` with the cluster's status, `stack-NAME`, `association`, `entry`, `service`.
FAKE = r"""#!/bin/bash
tool=$(basename "$0")
printf '%s %s\n' "$tool" "$*" >>"$STATE/calls"
case "$tool $*" in $FAILING) echo "$tool: no luck today" >&2; exit 42 ;; esac
missing() { echo 'An error occurred (ResourceNotFoundException)' >&2; exit 254; }
case "$tool $*" in
  'aws sts get-caller-identity'*) echo 123456789012 ;;
  'aws eks describe-cluster'*cluster.status*) cat "$STATE/cluster" 2>/dev/null || missing ;;
  'aws eks describe-cluster'*vpcId*) echo vpc-1 ;;
  'aws eks list-pod-identity-associations'*) [ -e "$STATE/association" ] && echo a-1 || echo None ;;
  'aws eks describe-access-entry'*) [ -e "$STATE/entry" ] || missing ;;
  'aws eks create-access-entry'*) touch "$STATE/entry" ;;
  'aws cloudformation describe-stacks'*) for it in "$STATE"/stack-*; do [ ! -e "$it" ] || echo "${it#*/stack-}"; done ;;
  'aws cloudformation get-template'*) echo '{"Resources": {}}' ;;
  'eksctl create cluster'*)
    echo ACTIVE >"$STATE/cluster"; touch "$STATE/stack-eksctl-request-info-cluster" "$STATE/stack-eksctl-request-info-nodegroup-spin" "$STATE/association" ;;
  'eksctl create podidentityassociation'*) touch "$STATE/association" ;;
  'eksctl delete cluster'*) rm -f "$STATE"/cluster "$STATE"/stack-* "$STATE/association" ;;
  'kubectl '*'get services'*) [ ! -e "$STATE/service" ] || echo 'web request-info' ;;
  'kubectl '*'delete service'*) rm "$STATE/service" ;;
esac
"""


class World:
    def __init__(self, directory: Path):
        self.state = directory / "state"
        self.path = directory / "bin"
        self.state.mkdir()
        self.path.mkdir()
        for tool in TOOLS:
            (self.path / tool).write_text(FAKE)
            (self.path / tool).chmod(0o755)
        # And nothing else of this machine's but the system's own commands.
        for command in ["awk", "basename", "bash", "cat", "dirname", "head", "mkdir", "mktemp", "rm", "sed", "touch"]:
            (self.path / command).symlink_to(shutil.which(command))

    def run(self, script, *arguments, failing="nothing", answer=None):
        environment = {"PATH": str(self.path), "STATE": str(self.state), "FAILING": failing, "HOME": str(self.state)}
        (self.state / "calls").write_text("")
        done = subprocess.run(
            ["bash", HERE / script, *map(str, arguments)],
            env=environment,
            input=answer or "",
            capture_output=True,
            text=True,
            timeout=60,
        )
        done.calls = (self.state / "calls").read_text().splitlines()
        return done


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def changes(calls):
    """The calls that change something, by tool and verb."""
    verbs = (
        "eksctl create",
        "eksctl delete",
        "helm upgrade",
        "create-access-entry",
        "kubectl --context request-info apply",
        "delete service",
    )
    return [
        next(verb for verb in verbs if verb in call) + call.partition("eksctl")[2][7:].split(" --")[0]
        for call in calls
        if any(verb in call for verb in verbs)
    ]


def test_the_first_run_makes_the_cluster_then_the_balancer_controller_then_the_runtime_class(world):
    done = world.run("createCluster.sh")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls) == [
        "eksctl create cluster",
        "helm upgrade",
        "helm upgrade",
        "kubectl --context request-info apply",
    ]
    balancer, shim = [call for call in done.calls if call.startswith("helm")]
    assert "clusterName=request-info,region=us-east-1,vpcId=vpc-1" in balancer and "--wait" in balancer
    assert "runtime-class-manager --version 0.2.0" in shim
    assert any(
        "wait node --selector spin=true --for jsonpath={.metadata.labels.spin-v2}=provisioned" in call
        for call in done.calls
    )
    assert f"eksctl create cluster --config-file {HERE}/cluster.yaml" in done.calls


def test_it_says_what_it_will_cost_before_it_makes_anything(world):
    done = world.run("createCluster.sh", failing="eksctl*")
    assert "about $172 a month, that is $5.65 a day" in done.stderr
    assert "control plane $73, 2 nodes $61" in done.stderr
    assert done.stderr.index("about $172") < done.stderr.index("no luck today")


def test_a_second_run_makes_no_second_cluster_and_ends_well(world):
    first = world.run("createCluster.sh", "--jenkins", JENKINS)
    second = world.run("createCluster.sh", "--jenkins", JENKINS)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "create-access-entry" in changes(first.calls) and "create-access-entry" not in changes(second.calls)
    assert changes(second.calls) == [
        "eksctl create nodegroup",
        "eksctl create addon",
        "helm upgrade",
        "helm upgrade",
        "kubectl --context request-info apply",
    ]


def test_a_run_that_was_interrupted_is_finished_by_the_next(world):
    assert world.run("createCluster.sh", failing="eksctl create cluster*").returncode == 42
    (world.state / "cluster").write_text("ACTIVE\n")  # the cluster came up, its nodes and its roles did not
    (world.state / "stack-eksctl-request-info-cluster").touch()
    done = world.run("createCluster.sh")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls)[:3] == [
        "eksctl create nodegroup",
        "eksctl create addon",
        "eksctl create podidentityassociation",
    ]


def test_a_cluster_of_another_maker_gets_the_rest_and_is_not_eksctls_to_delete(world):
    (world.state / "cluster").write_text("ACTIVE\n")
    (world.state / "service").touch()
    done = world.run("createCluster.sh")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls) == ["helm upgrade", "helm upgrade", "kubectl --context request-info apply"]
    done = world.run("deleteCluster.sh", "--yes")
    assert done.returncode == 1
    assert changes(done.calls) == ["delete service"]
    assert "aws cloudformation delete-stack --region us-east-1 --stack-name request-info" in done.stderr


@pytest.mark.parametrize("status", ["CREATING", "DELETING", "FAILED"])
def test_a_cluster_that_is_not_ready_is_left_alone(world, status):
    (world.state / "cluster").write_text(status)
    done = world.run("createCluster.sh")
    assert done.returncode == 1
    assert f"cluster request-info is {status}" in done.stderr
    assert changes(done.calls) == []


@pytest.mark.parametrize("script", ["createCluster.sh", "deleteCluster.sh"])
def test_every_missing_tool_is_named_with_where_it_comes_from_and_nothing_is_done(world, script):
    (world.path / "eksctl").unlink()
    (world.path / "kubectl").unlink()
    done = world.run(script)
    assert done.returncode == 2
    assert (
        f"{script}: not on PATH:\n  eksctl: https://" in done.stderr
        and "\n  kubectl, 1.33 or later: https://" in done.stderr
    )
    assert done.calls == []


STEPS = {
    "aws eks update-kubeconfig*": "see above",
    "eksctl create cluster*": "./deleteCluster.sh removes what it left behind",
    "helm *eks-charts*": "logs deployment/aws-load-balancer-controller",
    "helm *runtime-class-manager*": "get pods,events",
    "kubectl *apply*": "see above",
    "kubectl *wait*": "describe shim spin-v2",
    "kubectl *runtimeclass*": "describe shim spin-v2",
    "aws eks create-access-entry*": "is there such a role or user?",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_ends_the_run_with_its_exit_code_and_a_remedy(world, step):
    done = world.run("createCluster.sh", "--jenkins", JENKINS, failing=step)
    assert done.returncode == 42
    assert "no luck today" in done.stderr
    assert STEPS[step] in done.stderr.splitlines()[-1] + done.stderr.splitlines()[-2]
    assert "done:" not in done.stderr


@pytest.mark.parametrize("script", ["createCluster.sh", "deleteCluster.sh"])
@pytest.mark.parametrize(
    ("failing", "complaint"),
    [
        ("aws sts*", "AWS does not know who is asking"),
        ("aws eks describe-cluster*", "cannot ask for cluster request-info"),
    ],
)
def test_an_aws_that_refuses_is_told_from_a_cluster_that_is_absent(world, script, failing, complaint):
    done = world.run(script, failing=failing)
    assert done.returncode == 3
    assert complaint in done.stderr and "no luck today" in done.stderr
    assert changes(done.calls) == []


def test_the_templates_that_eksctl_made_are_kept_where_asked(world, tmp_path):
    assert world.run("createCluster.sh", "--save-templates", tmp_path / "kept").returncode == 0
    assert sorted(os.listdir(tmp_path / "kept")) == [
        "eksctl-request-info-cluster.json",
        "eksctl-request-info-nodegroup-spin.json",
    ]
    assert (tmp_path / "kept/eksctl-request-info-cluster.json").read_text() == '{"Resources": {}}\n'


@pytest.mark.parametrize("arguments", [["--jenkins"], ["--save-templates"], ["--frobnicate"], ["more"]], ids=" ".join)
def test_a_wrong_option_is_refused(world, arguments):
    done = world.run("createCluster.sh", *arguments)
    assert (done.returncode, done.calls) == (2, [])
    assert arguments[0] in done.stderr


@pytest.mark.parametrize("script", ["createCluster.sh", "deleteCluster.sh"])
def test_help_is_the_comment_at_the_top_and_calls_nothing(world, script):
    done = world.run(script, "--help")
    assert (done.returncode, done.calls) == (0, [])
    assert f"{script} [--" in done.stdout and "set -euo" not in done.stdout and "#" not in done.stdout


def test_balancers_go_before_the_cluster_whose_network_they_hold(world):
    world.run("createCluster.sh")
    (world.state / "service").touch()
    done = world.run("deleteCluster.sh", "--yes")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls) == ["delete service", "eksctl delete cluster"]
    assert any("--namespace web delete service request-info" in call for call in done.calls)


def test_a_second_deletion_finds_nothing_and_ends_well(world):
    world.run("createCluster.sh")
    world.run("deleteCluster.sh", "--yes")
    done = world.run("deleteCluster.sh", "--yes")
    assert done.returncode == 0
    assert "nothing to delete" in done.stderr and changes(done.calls) == []


def test_stacks_without_a_cluster_are_deleted_too(world):
    (world.state / "stack-eksctl-request-info-cluster").touch()
    done = world.run("deleteCluster.sh", "--yes")
    assert changes(done.calls) == ["eksctl delete cluster"]


@pytest.mark.parametrize(
    ("answer", "deleted"),
    [("request-info\n", True), ("yes\n", False), ("", False)],
    ids=["name", "other", "end of input"],
)
def test_without_yes_the_name_has_to_be_typed(world, answer, deleted):
    world.run("createCluster.sh")
    done = world.run("deleteCluster.sh", answer=answer)
    assert ("eksctl delete cluster" in changes(done.calls)) == deleted
    assert done.returncode == (0 if deleted else 2)
