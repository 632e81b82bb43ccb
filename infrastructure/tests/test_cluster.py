"""cluster.json, the CloudFormation template, and cluster.yaml, which eksctl reads: each by itself, and that they agree."""

import json
import re
import subprocess
import sys
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
SHIM = yaml.safe_load((HERE.parent / "shim.yaml").read_text())
DEPLOYMENT = (ROOT / "kubernetes/deployment.yaml.tmp").read_text()
JENKINS = "arn:aws:iam::123456789012:role/jenkins"

eks_in_moto.teach()


@pytest.fixture
def aws():
    """Clients of an AWS of our own, on a free port of the loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    session = boto3.Session(
        aws_access_key_id="test", aws_secret_access_key="test", region_name=CONFIG["metadata"]["region"]
    )
    yield lambda service: session.client(service, endpoint_url=f"http://{host}:{port}")
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    server.stop()


def create(aws, template=TEMPLATE, **parameters):
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
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
    assert json.loads(TEMPLATE)["Parameters"]["KubernetesVersion"]["Default"] == version
    bed = subprocess.run([ROOT / "e2e/cluster.sh", "assets"], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"/kubernetes-{re.escape(version)}\.\d+/bin\n$", bed)
    # deployer/tests says of which version it cites the source.
    pattern = r"kubernetes\W{1,4}v?1\.[0-9]+"
    again = subprocess.run(["git", "grep", "-niE", pattern, "--", ":!deployer/tests"], cwd=ROOT, capture_output=True, text=True)
    assert again.stdout == ""


def test_a_stack_of_the_template_has_the_nodes_that_cluster_yaml_describes(aws):
    made = create(aws)
    assert {it["ResourceStatus"] for it in made.values()} == {"CREATE_COMPLETE"}
    (wanted,) = CONFIG["managedNodeGroups"]
    cluster = aws("eks").describe_cluster(name=CONFIG["metadata"]["name"])["cluster"]
    assert cluster["version"] == CONFIG["metadata"]["version"]
    (group,) = aws("eks").list_nodegroups(clusterName=cluster["name"])["nodegroups"]
    nodes = aws("eks").describe_nodegroup(clusterName=cluster["name"], nodegroupName=group)["nodegroup"]
    assert nodes["nodegroupName"] == wanted["name"]
    assert nodes["scalingConfig"] == {"desiredSize": 2, "minSize": wanted["minSize"], "maxSize": wanted["maxSize"]}
    assert wanted["desiredCapacity"] == 2
    assert nodes["instanceTypes"] == [wanted["instanceType"]] == ["t3.medium"]
    assert nodes["labels"] == wanted["labels"] == {"spin": "true"}
    subnets = aws("ec2").describe_subnets(SubnetIds=nodes["subnets"])["Subnets"]
    assert len({it["AvailabilityZone"] for it in subnets}) == 2, "a lost zone leaves a node"


def test_both_ways_make_the_same_of_the_rest():
    resources = json.loads(TEMPLATE)["Resources"]
    template = resources["NodeTemplate"]["Properties"]["LaunchTemplateData"]
    (wanted,) = CONFIG["managedNodeGroups"]
    parameters = json.loads(TEMPLATE)["Parameters"]
    disk = template["BlockDeviceMappings"][0]["Ebs"]
    assert (parameters["NodeVolumeGigabytes"]["Default"], disk["VolumeType"]) == (
        wanted["volumeSize"],
        wanted["volumeType"],
    )
    assert (template["MetadataOptions"]["HttpPutResponseHopLimit"] == 1) == wanted["disablePodIMDS"]
    public = [it["Properties"]["MapPublicIpOnLaunch"] for it in resources.values() if it["Type"] == "AWS::EC2::Subnet"]
    assert all(public) == (CONFIG["vpc"]["nat"]["gateway"] == "Disable"), (
        "without a NAT gateway a node goes out by its own address"
    )
    addons = {it["Properties"]["AddonName"] for it in resources.values() if it["Type"] == "AWS::EKS::Addon"}
    assert addons == {it["name"] for it in CONFIG["addons"]}
    (association,) = CONFIG["iam"]["podIdentityAssociations"]
    identity = resources["BalancerIdentity"]["Properties"]
    assert (identity["Namespace"], identity["ServiceAccount"]) == (
        association["namespace"],
        association["serviceAccountName"],
    )
    assert (
        resources["Cluster"]["Properties"]["AccessConfig"]["AuthenticationMode"]
        == CONFIG["accessConfig"]["authenticationMode"]
    )


@pytest.mark.parametrize(
    ("parameters", "has"), [({}, False), ({"JenkinsPrincipalArn": JENKINS}, True)], ids=["without", "with"]
)
def test_jenkins_has_an_access_entry_where_its_principal_is_given(aws, parameters, has):
    assert ("JenkinsAccess" in create(aws, **parameters)) == has


def test_the_shim_goes_to_the_labelled_nodes_and_makes_the_runtime_class_that_the_deployment_names():
    (group,) = CONFIG["managedNodeGroups"]
    assert SHIM["spec"]["nodeSelector"] == group["labels"]
    assert f"runtimeClassName: {SHIM['spec']['runtimeClass']['name']}\n" in DEPLOYMENT
    assert {it["arch"]: it["sha256"] for it in SHIM["spec"]["fetchStrategy"]["platforms"]} == {
        "x86_64": "eec8df96fa3a4fe5dbc57ffb706461692c055299dd6d22dff9444863a2a12281",
        "aarch64": "a923f08d91c110d2cda29fbc380273e6d0a97aa0bab455c55f613c8d5a8bfbe4",
    }
