"""createCluster.sh and deleteCluster.sh with stand-ins for their tools, which record their calls and play a small AWS."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parents[1]
TOOLS = ["aws", "eksctl", "helm", "kubectl"]
JENKINS = "arn:aws:iam::123456789012:role/jenkins"
CLUSTER, NODES = "eksctl-request-info-cluster", "eksctl-request-info-nodegroup-spin"
ROLE = "eksctl-request-info-podidentityrole-kube-system-aws-load-balancer-controller"
VERSION = yaml.safe_load((HERE / "cluster.yaml").read_text())["metadata"]["version"]
FIRST = ["vpc-cni", "kube-proxy", "eks-pod-identity-agent"]
NOTHING = {"cluster": None, "stacks": {}, "associations": [], "entries": [], "add_ons": [], "services": [], "updated": []}
ACTIVE = {
    "status": "ACTIVE",
    "version": VERSION,
    "upgradePolicy": {"supportType": "STANDARD"},
    "logging": {"clusterLogging": [{"types": ["audit"], "enabled": True}]},
    "resourcesVpcConfig": {"vpcId": "vpc-1"},
}


class World:
    """createCluster.sh and deleteCluster.sh, with stand_ins.py for AWS."""

    def __init__(self, directory: Path):
        self.state = directory / "state"
        self.path = directory / "bin"
        self.state.mkdir()
        self.path.mkdir()
        for tool in TOOLS:
            (self.path / tool).write_text(f"#!{sys.executable}\n" + (HERE / "tests/stand_ins.py").read_text())
            (self.path / tool).chmod(0o755)
        # Nothing else of this machine is on PATH, only the system's own commands.
        for command in ["awk", "basename", "bash", "cat", "cut", "dirname", "head", "mkdir", "mktemp", "rm", "sed", "sha256sum"]:
            (self.path / command).symlink_to(shutil.which(command))
        self.is_now()

    def is_now(self, stacks=None, tag="request-info", **state):
        stacks = {
            name: {"StackName": name, "StackStatus": status, "Tags": [{"Key": "alpha.eksctl.io/cluster-name", "Value": tag}]}
            for name, status in (stacks or {}).items()
        }
        (self.state / "aws").write_text(json.dumps(NOTHING | {"stacks": stacks} | state))

    def now(self):
        return json.loads((self.state / "aws").read_text())

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


VERBS = {
    r"eksctl (create|update) addon .*--name (\S+).*": r"\1 \2",
    r"eksctl ((create|delete|upgrade) \w+|utils update-cluster-logging).*": r"\1",
    r"helm upgrade --install (\S+) .*": r"install \1",
    r"aws cloudformation delete-stack .*--stack-name (\S+)": r"delete stack \1",
    r"aws eks (create-access-entry|update-cluster-config) .*": r"\1",
    r"kubectl --context request-info apply --filename \S+/(\S+)": r"apply \1",
    r"kubectl .* (delete service) .*": r"\1",
}


def changes(calls):
    """The calls that change something, each in a few words."""
    found = [[match.expand(short) for verb, short in VERBS.items() if (match := re.fullmatch(verb, call))] for call in calls]
    return [first for first, *_ in filter(None, found)]


REST = ["install aws-load-balancer-controller", "apply runtimeclass.yaml"]
ADD_ONS = [*(f"create {it}" for it in FIRST), "create coredns"]


def test_the_first_run_makes_the_cluster_then_the_balancer_controller_then_the_runtime_class(world):
    done = world.run("createCluster.sh")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls) == ["create cluster", *REST]
    (balancer,) = [call for call in done.calls if call.startswith("helm")]
    assert "clusterName=request-info,region=us-east-1,vpcId=vpc-1" in balancer and "--wait" in balancer
    assert "eksctl create cluster --config-file - --write-kubeconfig=false" in done.calls
    assert "done: kubectl --context request-info get nodes" in done.stderr


def test_the_cost_is_printed_before_anything_is_made_and_is_that_of_the_docs(world):
    done = world.run("createCluster.sh", failing="eksctl*")
    docs = (HERE.parent / "docs/eks.md").read_text()
    *parts, total = re.findall(r"^\|.*\| \**([\d.]+)\** \|$", docs.split("## Cost")[1], re.MULTILINE)
    parts, total = [float(part) for part in parts], float(total)
    assert sum(parts) == pytest.approx(total)
    assert f"about ${total:.0f} a month, that is ${total / 30.4:.2f} a day" in done.stderr
    assert f"about {total / 30.4:.0f} dollars a day" in docs
    said = re.findall(r"\$(\d+)[,.]", done.stderr.split("control plane", 1)[1])
    assert said == [f"{part:.0f}" for part in parts if part]
    assert done.stderr.index("control plane $") < done.stderr.index("no luck today")


def test_a_second_run_makes_no_second_cluster_and_succeeds(world):
    first = world.run("createCluster.sh", "--jenkins", JENKINS)
    second = world.run("createCluster.sh", "--jenkins", JENKINS)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert "create-access-entry" in changes(first.calls)
    assert changes(second.calls) == [*ADD_ONS, *REST]


# What an interrupted run left, and the first steps of the next run, which finish it.
INTERRUPTED = {
    "between the cluster and its add-ons": (
        {"cluster": ACTIVE, "stacks": {CLUSTER: "CREATE_COMPLETE"}},
        [*ADD_ONS[:3], "create nodegroup", "create coredns", "create podidentityassociation"],
    ),
    "while its nodes were made, and they were rolled back": (
        {"cluster": ACTIVE, "stacks": {CLUSTER: "CREATE_COMPLETE", f"{NODES}-0a1b2c3d": "ROLLBACK_COMPLETE"}},
        [f"delete stack {NODES}-0a1b2c3d", *ADD_ONS[:3], "create nodegroup", "create coredns", "create podidentityassociation"],
    ),
    "between the role and its association": (
        {"cluster": ACTIVE, "stacks": {CLUSTER: "CREATE_COMPLETE", ROLE: "CREATE_COMPLETE"}},
        [*ADD_ONS[:3], "create nodegroup", "create coredns", f"delete stack {ROLE}", "create podidentityassociation"],
    ),
    "while the cluster was made, and it was rolled back": (
        {"stacks": {CLUSTER: "ROLLBACK_COMPLETE", ROLE: "CREATE_COMPLETE"}},
        [f"delete stack {ROLE}", f"delete stack {CLUSTER}", "create cluster"],
    ),
}


@pytest.mark.parametrize("when", INTERRUPTED)
def test_the_next_run_finishes_an_interrupted_one(world, when):
    left, first = INTERRUPTED[when]
    world.is_now(**left)
    done = world.run("createCluster.sh")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls) == [*first, *REST]
    assert {it["StackStatus"] for it in world.now()["stacks"].values()} == {"CREATE_COMPLETE"}
    assert sorted(world.now()["add_ons"]) == sorted([*FIRST, "coredns"])
    assert world.now()["associations"] == ["a-1"]


def test_the_add_ons_that_are_made_by_name_are_those_of_cluster_yaml():
    described = yaml.safe_load((HERE / "cluster.yaml").read_text())["addons"]
    assert sorted(it["name"] for it in described) == sorted([*FIRST, "coredns"])


def test_a_stack_that_is_still_being_made_ends_the_run(world):
    world.is_now(cluster=ACTIVE, stacks={CLUSTER: "CREATE_COMPLETE", f"{NODES}-0a1b2c3d": "CREATE_IN_PROGRESS"})
    done = world.run("createCluster.sh")
    assert (done.returncode, changes(done.calls)) == (1, [])
    assert "nodegroup-spin-0a1b2c3d is CREATE_IN_PROGRESS" in done.stderr


def test_the_stack_of_a_cluster_that_was_deleted_by_hand_is_for_deletecluster_sh(world):
    world.is_now(stacks={CLUSTER: "CREATE_COMPLETE"})
    done = world.run("createCluster.sh")
    assert (done.returncode, changes(done.calls)) == (1, [])
    assert "./deleteCluster.sh deletes what is left" in done.stderr


def test_the_stacks_of_a_cluster_whose_name_begins_alike_are_not_touched(world):
    other = {"eksctl-request-info-2-cluster": "ROLLBACK_COMPLETE"}
    world.is_now(stacks=other, tag="request-info-2")
    assert "nothing to delete" in world.run("deleteCluster.sh", "--yes").stderr
    assert world.run("createCluster.sh").returncode == 0
    assert set(other) < set(world.now()["stacks"])


def older(**cluster):
    minor = int(VERSION.partition(".")[2])
    return {
        "cluster": ACTIVE | {"version": f"1.{minor - 1}", "upgradePolicy": {"supportType": "EXTENDED"}, "logging": {}} | cluster,
        "stacks": {CLUSTER: "CREATE_COMPLETE", NODES: "CREATE_COMPLETE", ROLE: "CREATE_COMPLETE"},
        "associations": ["a-1"],
        "add_ons": [*FIRST, "coredns"],
    }


def test_each_difference_from_cluster_yaml_is_printed_and_the_run_is_not_done(world):
    world.is_now(**older())
    done = world.run("createCluster.sh")
    assert done.returncode == 4 and "done:" not in done.stderr
    assert "create nodegroup" not in changes(done.calls)
    said = done.stderr.partition("the cluster differs from cluster.yaml:\n")[2]
    minor = int(VERSION.partition(".")[2])
    assert re.sub("spin-[0-9a-f]{8}", "spin-SUM", said).splitlines() == [
        f"  Kubernetes 1.{minor - 1} runs, cluster.yaml says {VERSION}",
        "  the support type is EXTENDED, cluster.yaml says STANDARD",
        "  no audit log is written",
        "  the nodes are of group spin, cluster.yaml describes spin-SUM",
        "  ./createCluster.sh --update changes the cluster",
        "  if it was made with cluster.json: `aws cloudformation deploy` as in docs/eks.md changes it",
    ]


def test_an_update_changes_the_control_plane_then_the_add_ons_then_the_nodes(world):
    world.is_now(**older())
    done = world.run("createCluster.sh", "--update")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls)[len(ADD_ONS) :] == [
        "upgrade cluster",
        "update-cluster-config",
        "utils update-cluster-logging",
        *(f"update {it}" for it in ["vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent"]),
        "create nodegroup",
        "delete nodegroup",
        *REST,
    ]
    assert world.now()["cluster"]["version"] == VERSION
    (nodes,) = [it for it in world.now()["stacks"] if "nodegroup" in it]
    assert re.fullmatch(NODES + "-[0-9a-f]{8}", nodes)
    assert [it for it in done.calls if "eksctl delete nodegroup" in it] == [
        "eksctl delete nodegroup --region us-east-1 --cluster request-info --name spin --wait"
    ]
    assert world.run("createCluster.sh").returncode == 0, "after that, nothing differs"


def test_an_update_over_two_minor_versions_ends_with_eksctls_message_and_a_remedy(world):
    minor = int(VERSION.partition(".")[2])
    world.is_now(**older(version=f"1.{minor - 2}"))
    done = world.run("createCluster.sh", "--update")
    assert done.returncode == 1
    assert "upgrading more than one version at a time is not supported" in done.stderr
    assert "set `version` in cluster.yaml to the next one first" in done.stderr
    assert "create nodegroup" not in changes(done.calls)


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        ("v0.23.0", "v9.9.9", True),
        ("instanceType: t3.medium", "instanceType: t3.large", True),
        ("SystemdCgroup = true", "SystemdCgroup = false", True),
        ("    # Two, so that", "    # Two nodes, so that", False),
        ("logRetentionInDays: 30", "logRetentionInDays: 60", False),
    ],
)
def test_the_node_group_differs_if_a_setting_of_the_nodes_does(world, tmp_path, before, after, new):
    world.run("createCluster.sh")
    copy = shutil.copytree(HERE.parent, tmp_path / "copy", ignore=lambda folder, _: set(os.listdir(folder)) - KEPT)
    text = (copy / "infrastructure/cluster.yaml").read_text()
    assert text.count(before) == 1
    (copy / "infrastructure/cluster.yaml").write_text(text.replace(before, after))
    done = world.run(copy / "infrastructure/createCluster.sh")
    assert done.returncode == (4 if new else 0), done.stderr
    assert ("the nodes are of group" in done.stderr) == new


KEPT = {"infrastructure", "kubernetes", "runtimeclass.yaml", "cluster.yaml", "createCluster.sh", "common.sh"}


def test_a_cluster_not_made_by_eksctl_gets_the_rest_but_is_neither_updated_nor_deleted(world):
    world.is_now(cluster=ACTIVE, services=["request-info"])
    done = world.run("createCluster.sh")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls) == REST
    done = world.run("createCluster.sh", "--update")
    assert (done.returncode, changes(done.calls)) == (1, [])
    assert "`aws cloudformation deploy`" in done.stderr
    done = world.run("deleteCluster.sh", "--yes")
    assert done.returncode == 1
    assert changes(done.calls) == ["delete service"]
    assert "aws cloudformation delete-stack --region us-east-1 --stack-name request-info" in done.stderr


@pytest.mark.parametrize("status", ["CREATING", "DELETING", "FAILED"])
def test_a_cluster_that_is_not_ready_is_left_alone(world, status):
    world.is_now(cluster=ACTIVE | {"status": status})
    done = world.run("createCluster.sh")
    assert done.returncode == 1
    assert f"cluster request-info is {status}" in done.stderr
    assert changes(done.calls) == []


@pytest.mark.parametrize("script", ["createCluster.sh", "deleteCluster.sh"])
def test_every_missing_tool_is_named_with_its_source_and_nothing_is_done(world, script):
    (world.path / "eksctl").unlink()
    (world.path / "kubectl").unlink()
    done = world.run(script)
    assert done.returncode == 2
    assert (
        f"{script}: not on PATH:\n  eksctl: https://" in done.stderr
        and f"\n  kubectl {VERSION}: https://" in done.stderr
    )
    assert done.calls == []


STEPS = {
    "aws eks update-kubeconfig*": "see above",
    "eksctl create cluster*": "run this again: it finishes what was begun",
    "helm *eks-charts*": "logs deployment/aws-load-balancer-controller",
    "kubectl *apply*": "see above",
    "aws eks create-access-entry*": "does this role or user exist?",
    "kubectl *set-credentials*": "see above",
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
        ("aws sts*", "there are no valid AWS credentials"),
        ("aws eks describe-cluster*", "cannot look up cluster request-info"),
    ],
)
def test_a_refusal_of_aws_is_not_taken_for_an_absent_cluster(world, script, failing, complaint):
    done = world.run(script, failing=failing)
    assert done.returncode == 3
    assert complaint in done.stderr and "no luck today" in done.stderr
    assert changes(done.calls) == []


def test_save_templates_keeps_the_templates_that_eksctl_made(world, tmp_path):
    assert world.run("createCluster.sh", "--save-templates", tmp_path / "kept").returncode == 0
    assert sorted(os.listdir(tmp_path / "kept")) == sorted(f"{it}.json" for it in world.now()["stacks"])
    assert json.loads((tmp_path / "kept" / f"{CLUSTER}.json").read_text()) == {"Resources": {}}


@pytest.mark.parametrize("arguments", [["--jenkins"], ["--save-templates"], ["--frobnicate"], ["more"]], ids=" ".join)
def test_a_wrong_option_is_refused(world, arguments):
    done = world.run("createCluster.sh", *arguments)
    assert (done.returncode, done.calls) == (2, [])
    assert arguments[0] in done.stderr


@pytest.mark.parametrize("script", ["createCluster.sh", "deleteCluster.sh"])
def test_help_prints_the_comment_at_the_top_and_calls_nothing(world, script):
    done = world.run(script, "--help")
    assert (done.returncode, done.calls) == (0, [])
    assert f"{script} [--" in done.stdout and "set -euo" not in done.stdout and "#" not in done.stdout


def test_balancers_are_deleted_before_the_cluster_whose_network_they_use(world):
    world.run("createCluster.sh")
    world.is_now(**world.now() | {"stacks": {CLUSTER: "CREATE_COMPLETE"}, "services": ["request-info"]})
    done = world.run("deleteCluster.sh", "--yes")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls) == ["delete service", "delete cluster"]
    assert any("--namespace web delete service request-info" in call for call in done.calls)


def test_a_second_deletion_finds_nothing_and_succeeds(world):
    world.run("createCluster.sh")
    world.run("deleteCluster.sh", "--yes")
    done = world.run("deleteCluster.sh", "--yes")
    assert done.returncode == 0
    assert "nothing to delete" in done.stderr and changes(done.calls) == []


def test_stacks_without_a_cluster_are_deleted_and_the_clusters_stack_is_the_last(world):
    world.is_now(stacks={CLUSTER: "ROLLBACK_COMPLETE", ROLE: "DELETE_FAILED"})
    done = world.run("deleteCluster.sh", "--yes")
    assert done.returncode == 0, done.stderr
    assert changes(done.calls) == [f"delete stack {ROLE}", f"delete stack {CLUSTER}"]
    assert world.now()["stacks"] == {}


@pytest.mark.parametrize(
    ("answer", "deleted"),
    [("request-info\n", True), ("yes\n", False), ("", False)],
    ids=["name", "other", "end of input"],
)
def test_without_yes_the_name_must_be_typed(world, answer, deleted):
    world.run("createCluster.sh")
    done = world.run("deleteCluster.sh", answer=answer)
    assert ("delete cluster" in changes(done.calls)) == deleted
    assert done.returncode == (0 if deleted else 2)
