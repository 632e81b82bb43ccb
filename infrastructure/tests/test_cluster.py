"""cluster.json, a CloudFormation template, and cluster.yaml, which eksctl reads: each by itself, and their agreement."""

import email
import json
import re
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import boto3
import eks_in_moto
import pytest
import yaml
from moto.server import ThreadedMotoServer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TEMPLATE = (HERE.parent / "cluster.json").read_text()
CONFIG = yaml.safe_load((HERE.parent / "cluster.yaml").read_text())
(GROUP,) = CONFIG["managedNodeGroups"]
RESOURCES = json.loads(TEMPLATE)["Resources"]
PARAMETERS = json.loads(TEMPLATE)["Parameters"]
CLASS = yaml.safe_load((ROOT / "kubernetes/runtimeclass.yaml").read_text())
JENKINS = "arn:aws:iam::123456789012:role/jenkins"

eks_in_moto.teach()


@pytest.fixture
def aws():
    """Clients of moto, which listens on a free port of the loopback interface."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    session = boto3.Session(
        aws_access_key_id="test", aws_secret_access_key="test", region_name=CONFIG["metadata"]["region"]
    )
    yield lambda service: session.client(service, endpoint_url=f"http://{host}:{port}")
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    server.stop()


ZONES = {"Zones": "us-east-1a,us-east-1f"}


def create(aws, template=TEMPLATE, **parameters):
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in (ZONES | parameters).items()]
    aws("cloudformation").create_stack(
        StackName="request-info", TemplateBody=template, Parameters=given, Capabilities=["CAPABILITY_IAM"]
    )
    resources = aws("cloudformation").describe_stack_resources(StackName="request-info")["StackResources"]
    # moto lists an empty element for a resource whose condition is false.
    return {it["LogicalResourceId"]: it for it in resources if "LogicalResourceId" in it}


def test_cfn_lint_finds_nothing_in_the_template():
    lint = subprocess.run(
        [Path(sys.executable).parent / "cfn-lint", HERE.parent / "cluster.json"], capture_output=True, text=True
    )
    assert lint.returncode == 0, lint.stdout


def test_the_version_of_kubernetes_is_what_cluster_yaml_says_everywhere():
    version = CONFIG["metadata"]["version"]
    assert PARAMETERS["KubernetesVersion"]["Default"] == version
    bed = subprocess.run([ROOT / "e2e/cluster.sh", "assets"], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"/kubernetes-{re.escape(version)}\.\d+/bin\n$", bed)
    # deployer/tests names the versions whose source it cites.
    pattern = r"kubernetes\W{1,4}v?1\.[0-9]+"
    again = subprocess.run(["git", "grep", "-niE", pattern, "--", ":!deployer/tests"], cwd=ROOT, capture_output=True, text=True)
    assert again.stdout == ""


def test_a_stack_of_the_template_has_the_nodes_that_cluster_yaml_describes(aws):
    made = create(aws)
    assert {it["ResourceStatus"] for it in made.values()} == {"CREATE_COMPLETE"}
    cluster = aws("eks").describe_cluster(name=CONFIG["metadata"]["name"])["cluster"]
    assert cluster["version"] == CONFIG["metadata"]["version"]
    (group,) = aws("eks").list_nodegroups(clusterName=cluster["name"])["nodegroups"]
    nodes = aws("eks").describe_nodegroup(clusterName=cluster["name"], nodegroupName=group)["nodegroup"]
    assert nodes["scalingConfig"] == {"desiredSize": 2, "minSize": GROUP["minSize"], "maxSize": GROUP["maxSize"]}
    assert nodes["instanceTypes"] == [GROUP["instanceType"]]
    assert nodes["labels"] == GROUP["labels"]
    subnets = aws("ec2").describe_subnets(SubnetIds=nodes["subnets"])["Subnets"]
    assert [it["AvailabilityZone"] for it in subnets] == ZONES["Zones"].split(","), "a lost zone leaves a node"


def eksctl_user_data():
    """The parts that eksctl 0.231 hands to a node, by type: pkg/nodebootstrap/al2023.go."""
    return {
        "text/x-shellscript": ["#!/bin/bash\n" + command for command in GROUP["preBootstrapCommands"]],
        "application/node.eks.aws": [yaml.safe_load(GROUP["overrideBootstrapCommand"])],
    }


def own_user_data():
    """The parts in cluster.json. A part of the message ends in front of the line break of its boundary."""
    separator, lines = RESOURCES["NodeTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Join"]
    parts = {}
    for part in email.message_from_string(separator.join(lines)).get_payload():
        text = part.get_payload()
        parts.setdefault(part.get_content_type(), []).append(text if text.startswith("#!") else yaml.safe_load(text))
    return parts


def of_cluster_yaml():
    return {
        "version of Kubernetes": CONFIG["metadata"]["version"],
        "support type": CONFIG["upgradePolicy"]["supportType"],
        "Auto Mode": CONFIG["autoModeConfig"]["enabled"],
        "public and private endpoint": tuple(CONFIG["vpc"]["clusterEndpoints"].values()),
        "public addresses of nodes": CONFIG["vpc"]["nat"]["gateway"] == "Disable",
        "authentication": CONFIG["accessConfig"]["authenticationMode"],
        "logs": CONFIG["cloudWatch"]["clusterLogging"]["enableTypes"],
        "days of logs": CONFIG["cloudWatch"]["clusterLogging"]["logRetentionInDays"],
        "default add-ons": not CONFIG["addonsConfig"]["disableDefaultAddons"],
        "add-ons": {it["name"] for it in CONFIG["addons"]},
        "identities": [(it["namespace"], it["serviceAccountName"]) for it in CONFIG["iam"]["podIdentityAssociations"]],
        "node group": GROUP["name"],
        "image of nodes": {"AmazonLinux2023": "AL2023_x86_64_STANDARD"}[GROUP["amiFamily"]],
        "type of nodes": GROUP["instanceType"],
        "number of nodes": [GROUP[it] for it in ("desiredCapacity", "minSize", "maxSize")],
        "labels of nodes": GROUP["labels"],
        "disks of nodes": [GROUP["volumeSize"], GROUP["volumeType"], GROUP["volumeEncrypted"]],
        "metadata for pods": not GROUP["disablePodIMDS"],
        "what a node does first": eksctl_user_data(),
    }


def of_cluster_json():
    cluster, nodes = (RESOURCES[it]["Properties"] for it in ("Cluster", "Nodes"))
    launch = RESOURCES["NodeTemplate"]["Properties"]["LaunchTemplateData"]
    disk = launch["BlockDeviceMappings"][0]["Ebs"]
    of_type = lambda kind: [it["Properties"] for it in RESOURCES.values() if it["Type"] == f"AWS::EKS::{kind}"]  # noqa: E731
    return {
        "version of Kubernetes": PARAMETERS[cluster["Version"]["Ref"]]["Default"],
        "support type": cluster["UpgradePolicy"]["SupportType"],
        "Auto Mode": "ComputeConfig" in cluster,
        "public and private endpoint": tuple(
            cluster["ResourcesVpcConfig"][it] for it in ("EndpointPublicAccess", "EndpointPrivateAccess")
        ),
        "public addresses of nodes": all(RESOURCES[it]["Properties"]["MapPublicIpOnLaunch"] for it in ("SubnetA", "SubnetB")),
        "authentication": cluster["AccessConfig"]["AuthenticationMode"],
        "logs": [it["Type"] for it in cluster["Logging"]["ClusterLogging"]["EnabledTypes"]],
        "days of logs": RESOURCES["Log"]["Properties"]["RetentionInDays"],
        "default add-ons": cluster["BootstrapSelfManagedAddons"],
        "add-ons": {it["AddonName"] for it in of_type("Addon")},
        "identities": [(it["Namespace"], it["ServiceAccount"]) for it in of_type("PodIdentityAssociation")],
        "node group": nodes["NodegroupName"],
        "image of nodes": nodes["AmiType"],
        "type of nodes": PARAMETERS[nodes["InstanceTypes"][0]["Ref"]]["Default"],
        "number of nodes": [PARAMETERS["NodeCount"]["Default"], *(nodes["ScalingConfig"][it] for it in ("MinSize", "MaxSize"))],
        "labels of nodes": nodes["Labels"],
        "disks of nodes": [PARAMETERS[disk["VolumeSize"]["Ref"]]["Default"], disk["VolumeType"], disk["Encrypted"]],
        "metadata for pods": launch["MetadataOptions"]["HttpPutResponseHopLimit"] > 1,
        "what a node does first": own_user_data(),
    }


@pytest.mark.parametrize("question", of_cluster_yaml())
def test_cluster_json_and_cluster_yaml_give_the_same_answer(question):
    assert of_cluster_json()[question] == of_cluster_yaml()[question]


# Answers that neither file may change.
REQUIRED = {
    "support type": "STANDARD",
    "Auto Mode": False,
    "logs": ["audit"],
    "default add-ons": False,
    "metadata for pods": False,
    "labels of nodes": CLASS["scheduling"]["nodeSelector"],
}


@pytest.mark.parametrize("question", REQUIRED)
def test_the_answer_is(question):
    assert of_cluster_yaml()[question] == REQUIRED[question]


def test_disks_are_encrypted():
    assert of_cluster_yaml()["disks of nodes"][2] is True


@pytest.mark.parametrize(
    ("parameters", "has"), [({}, False), ({"JenkinsPrincipalArn": JENKINS}, True)], ids=["without", "with"]
)
def test_jenkins_has_an_access_entry_if_its_principal_is_given(aws, parameters, has):
    assert ("JenkinsAccess" in create(aws, **parameters)) == has


def test_the_runtime_class_of_the_deployment_is_a_runtime_of_the_nodes_containerd():
    deployment = (ROOT / "kubernetes/deployment.yaml.tmp").read_text()
    assert f" runtimeClassName: {CLASS['metadata']['name']} # shim only\n" in deployment
    config = yaml.safe_load(GROUP["overrideBootstrapCommand"])["spec"]["containerd"]["config"]
    runtimes = tomllib.loads(config)["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    assert list(runtimes) == [CLASS["handler"]]
