"""The requests of the scripts and of docs/eks.md, sent by the real aws-cli to moto, an AWS on this machine. The upgrade of a
control plane is missing, because moto has no UpdateClusterVersion."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from test_cluster import ROOT, aws  # noqa: F401
from test_scripts import ACTIVE, CLUSTER, JENKINS, ROLE, World

DOCS = (ROOT / "docs/eks.md").read_text()
AWS = Path(sys.executable).parent / "aws"
ONLY_A_VPC = '{"Resources": {"Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}}}}'


@pytest.fixture
def environment(aws, tmp_path):  # noqa: F811
    return {
        "PATH": f"{AWS.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": aws("eks").meta.endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "REGION": "us-east-1",
    }


def command(beginning):
    """The command of docs/eks.md that begins so, with the lines that continue it."""
    (found,) = re.findall(rf"^    {re.escape(beginning)}(?:.*\\\n)*.*$", DOCS, re.MULTILINE)
    return textwrap.dedent(found)


def bash(script, environment):
    return subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, check=True).stdout


def test_the_repository_of_the_docs_refuses_a_second_push_of_every_tag_but_latest_and_its_parts(aws, environment):  # noqa: F811
    bash(command("aws ecr create-repository"), environment)
    (repository,) = aws("ecr").describe_repositories()["repositories"]
    assert repository["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
    filters = repository["imageTagMutabilityExclusionFilters"]
    assert [it["filter"] for it in filters] == ["latest", "*-amd64", "*-arm64"]


def test_the_zones_of_the_docs_are_two_that_eks_accepts(aws, environment):  # noqa: F811
    chosen = bash(command("ZONES=") + '\necho "$ZONES"', environment).strip().split(",")
    offered = {it["ZoneName"]: it["ZoneId"] for it in aws("ec2").describe_availability_zones()["AvailabilityZones"]}
    assert "use1-az3" in offered.values()
    assert len(set(chosen)) == 2 and "use1-az3" not in {offered[it] for it in chosen}


def test_each_kubectl_of_the_docs_names_its_context():
    said = re.findall(r"kubectl (?:-|create|get|label|apply|describe|patch|delete|logs)[^`\n]*", DOCS)
    assert len(said) > 5
    assert [it for it in said if not it.startswith("kubectl --context $CONTEXT ")] == []


def with_real(world, tool, program, calls):
    """This tool of the world is the real one for calls of this pattern."""
    stand_in = world.path / f"stand-in/{tool}"
    stand_in.parent.mkdir(exist_ok=True)
    shutil.move(world.path / tool, stand_in)
    script = f'#!/bin/bash\ncase "$*" in {calls}) exec {program} "$@" ;; esac\nexec {stand_in} "$@"\n'
    (world.path / tool).write_text(script)
    (world.path / tool).chmod(0o755)


@pytest.fixture
def world(tmp_path, environment):
    made = World(tmp_path)
    made.environment = environment | {"PATH": str(made.path), "STATE": str(made.state), "FAILING": "nothing"}
    return made


def test_stacks_without_a_cluster_are_deleted_and_those_of_another_cluster_are_not(aws, world):  # noqa: F811
    cloudformation = aws("cloudformation")
    tag = "alpha.eksctl.io/cluster-name"
    for stack, cluster in [(CLUSTER, "request-info"), (ROLE, "request-info"), ("eksctl-request-info-2-cluster", "request-info-2")]:
        tags = [{"Key": tag, "Value": cluster}]
        cloudformation.create_stack(StackName=stack, TemplateBody=ONLY_A_VPC, Tags=tags)
    with_real(world, "aws", AWS, "*")
    script = ROOT / "infrastructure/deleteCluster.sh"
    done = subprocess.run(["bash", script, "--yes"], env=world.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [it["StackName"] for it in cloudformation.describe_stacks()["Stacks"]] == ["eksctl-request-info-2-cluster"]
    again = subprocess.run(["bash", script, "--yes"], env=world.environment, capture_output=True, text=True)
    assert "nothing to delete" in again.stderr, again.stderr


def test_the_operators_profile_is_not_in_jenkins_kubeconfig(aws, world, tmp_path):  # noqa: F811
    bed = subprocess.run([ROOT / "e2e/cluster.sh", "assets"], capture_output=True, text=True, check=True).stdout.strip()
    kubectl = shutil.which("kubectl", path=f"{bed}:{os.environ['PATH']}")
    if not kubectl and not os.environ.get("CI"):
        pytest.skip("no kubectl: e2e/cluster.sh binaries builds it")
    role = "arn:aws:iam::123456789012:role/eks"
    aws("eks").create_cluster(name="request-info", roleArn=role, resourcesVpcConfig={"subnetIds": []})
    copy = tmp_path / "copy"
    for file in ["infrastructure/createCluster.sh", "infrastructure/common.sh", "infrastructure/cluster.yaml"]:
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, copy / file)
    (copy / "infrastructure/jenkins").mkdir()
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[profile operator]\n")
    world.is_now(cluster=ACTIVE)
    with_real(world, "aws", AWS, "'eks update-kubeconfig'*")
    with_real(world, "kubectl", kubectl, "*' config '*")
    done = subprocess.run(
        ["bash", copy / "infrastructure/createCluster.sh", "--jenkins", JENKINS],
        env=world.environment | {"AWS_PROFILE": "operator"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ours = (tmp_path / ".kube/config").read_text()
    assert "AWS_PROFILE" in ours and "operator" in ours, "aws writes it, and for the operator that is right"
    file = copy / "infrastructure/jenkins/kubeconfig"
    assert "AWS_PROFILE" not in file.read_text() and "operator" not in file.read_text()
    written = yaml.safe_load(file.read_text())
    assert written["current-context"] == "request-info"
    assert written["users"][0]["user"]["exec"]["command"] == "aws"
