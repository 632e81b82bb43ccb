"""Stand-ins for aws, eksctl, helm and kubectl: createCluster.sh and deleteCluster.sh find this file under each name.

They record their calls and play a small AWS, whose state is the JSON file $STATE/aws. aws answers in the shapes of its API
(botocore 1.44), filters them with the real JMESPath, and prints text as aws-cli 1.46 does. eksctl says and does what eksctl
0.231 does, read in its source: pkg/actions/nodegroup/create.go and pkg/ctl/cmdutils/filter (a node group with a stack is
excluded, even if the stack failed), pkg/actions/addon/create.go,
pkg/actions/podidentityassociation, pkg/ctl/delete/cluster.go, pkg/eks/versions_manager.go.
"""

import fnmatch
import json
import os
import re
import sys
from pathlib import Path

import jmespath

STATE = Path(os.environ["STATE"])
NAME = "request-info"
ROLE = f"eksctl-{NAME}-podidentityrole-kube-system-aws-load-balancer-controller"


class World:
    """The state of AWS: `cluster` (describe-cluster's, or None), `stacks` by name, and lists of names."""

    def __init__(self):
        self.file = STATE / "aws"
        self.it = json.loads(self.file.read_text())

    def __getattr__(self, name):
        return self.it[name]

    def keep(self):
        self.file.write_text(json.dumps(self.it))

    def make_stack(self, name, status="CREATE_COMPLETE"):
        tags = [{"Key": "alpha.eksctl.io/cluster-name", "Value": NAME}]
        self.stacks[name] = {"StackName": name, "StackStatus": status, "Tags": tags}


def end(message, code=1):
    print(message, file=sys.stderr)
    sys.exit(code)


def missing():
    end("An error occurred (ResourceNotFoundException) when calling the operation: No cluster found.", 254)


def text(value):
    """As `--output text` prints it: scalars on one line, then everything else."""
    if not isinstance(value, list):
        return [str(value)]
    scalars = [str(it) for it in value if not isinstance(it, list)]
    return (["\t".join(scalars)] if scalars else []) + [line for it in value if isinstance(it, list) for line in text(it)]


def aws(world, option, call):
    answer = {}
    if call == "sts get-caller-identity":
        answer = {"Account": "123456789012"}
    elif call == "eks describe-cluster":
        answer = {"cluster": world.cluster or missing()}
    elif call == "eks update-cluster-config":
        key, _, value = option["--upgrade-policy"].partition("=")
        world.cluster["upgradePolicy"] = {key: value}
    elif call == "eks list-pod-identity-associations":
        answer = {"associations": [{"associationId": it} for it in world.associations]}
    elif call == "eks describe-access-entry":
        answer = {"accessEntry": {}} if option["--principal-arn"] in world.entries else missing()
    elif call == "eks create-access-entry":
        world.entries.append(option["--principal-arn"])
    elif call == "cloudformation describe-stacks":
        answer = {"Stacks": list(world.stacks.values())}
    elif call == "cloudformation delete-stack":
        world.stacks.pop(option["--stack-name"])
    elif call == "cloudformation get-template":
        answer = {"TemplateBody": {"Resources": {}}}
    else:
        assert call in ("eks update-kubeconfig", "eks wait", "cloudformation wait"), call
    if query := option.get("--query"):
        found = jmespath.search(query, answer)
        print("\n".join(text(found)) if option["--output"] == "text" else json.dumps(found))


def already_exists(stack):
    return f"AlreadyExistsException: Stack [{stack}] already exists"


def eksctl(world, option, call):
    import yaml

    config = yaml.safe_load(sys.stdin) if option.get("--config-file") == "-" else None
    if call == "delete cluster":
        if not world.cluster:
            end(f"Error: unable to describe cluster control plane: ResourceNotFoundException: No cluster found for name: {NAME}.")
        world.it |= {"cluster": None, "stacks": {}, "associations": [], "add_ons": []}
        return
    if call == "create cluster":
        make_cluster(world, config)
    elif not world.cluster:
        end(f"Error: unable to describe cluster control plane: ResourceNotFoundException: No cluster found for name: {NAME}.")
    elif call == "create nodegroup":
        make_nodes(world, config["managedNodeGroups"])
    elif call == "delete nodegroup":
        world.stacks.pop(f"eksctl-{NAME}-nodegroup-{option['--name']}")
    elif call == "create addon":
        for addon in [option["--name"]] if "--name" in option else [it["name"] for it in config["addons"]]:
            make_add_on(world, addon, waits=config is not None)
    elif call == "update addon":
        assert option["--name"] in world.add_ons
        world.updated.append(option["--name"])
    elif call == "create podidentityassociation":
        if "eks-pod-identity-agent" not in world.add_ons:
            end('Error: "eks-pod-identity-agent" addon must be installed to create pod identity associations')
        if ROLE in world.stacks:
            end(f"Error: creating IAM role for pod identity association: {already_exists(ROLE)}")
        world.make_stack(ROLE)
        world.associations.append("a-1")
    elif call == "upgrade cluster":
        upgrade(world, config["metadata"]["version"])
    elif call == "utils update-cluster-logging":
        types = config["cloudWatch"]["clusterLogging"]["enableTypes"]
        world.cluster["logging"] = {"clusterLogging": [{"types": types, "enabled": True}]}
    else:
        raise AssertionError(call)


def make_cluster(world, config):
    stack = f"eksctl-{NAME}-cluster"
    if stack in world.stacks:
        print(f'creating CloudFormation stack "{stack}": {already_exists(stack)}', file=sys.stderr)
        print(f"to cleanup resources, run 'eksctl delete cluster --region=us-east-1 --name={NAME}'", file=sys.stderr)
        end(f'Error: failed to create cluster "{NAME}"')
    world.make_stack(stack)
    world.it["cluster"] = {
        "status": "ACTIVE",
        "version": config["metadata"]["version"],
        "upgradePolicy": config["upgradePolicy"],
        "logging": {"clusterLogging": [{"types": config["cloudWatch"]["clusterLogging"]["enableTypes"], "enabled": True}]},
        "resourcesVpcConfig": {"vpcId": "vpc-1"},
    }
    world.add_ons.extend(it["name"] for it in config["addons"])
    make_nodes(world, config["managedNodeGroups"])
    world.make_stack(ROLE)
    world.associations.append("a-1")


def make_nodes(world, described):
    for name in (it["name"] for it in described):
        stack = f"eksctl-{NAME}-nodegroup-{name}"
        if stack in world.stacks:
            print(f"1 existing nodegroup(s) ({name}) will be excluded", file=sys.stderr)
        elif "vpc-cni" not in world.add_ons:
            world.make_stack(stack, "ROLLBACK_COMPLETE")
            end("Error: NodeCreationFailure: Unhealthy nodes in the kubernetes cluster")
        else:
            world.make_stack(stack)


def make_add_on(world, addon, waits):
    nodes = any("-nodegroup-" in it["StackName"] for it in world.stacks.values() if it["StackStatus"] == "CREATE_COMPLETE")
    if addon in world.add_ons:
        print(f'"{addon}" addon is already present on the cluster, as an EKS managed addon, skipping creation', file=sys.stderr)
    elif addon == "coredns" and waits and not nodes:
        end(f'Error: timed out waiting for addon "{addon}" to become active, status: "DEGRADED"')
    else:
        world.add_ons.append(addon)


def upgrade(world, version):
    running = world.cluster["version"]
    steps = int(version.partition(".")[2]) - int(running.partition(".")[2])
    if steps > 1:
        end(f'Error: upgrading more than one version at a time is not supported. Found upgrade from "{running}" to "{version}".')
    print("no cluster version update required" if not steps else f"upgraded to {version}", file=sys.stderr)
    world.cluster["version"] = version


def kubectl(world, option, call):
    if "get services" in call:
        print("".join(f"web {it}\n" for it in world.services), end="")
    elif "delete service" in call:
        world.services.remove(call.split()[-1])


def main():
    tool, words = Path(sys.argv[0]).name, sys.argv[1:]
    line = " ".join([tool, *words])
    with (STATE / "calls").open("a") as calls:
        calls.write(line + "\n")
    if fnmatch.fnmatchcase(line, os.environ["FAILING"]):
        end(f"{tool}: no luck today", 42)
    option = {it: following for it, following in zip(words, [*words[1:], ""], strict=True) if it.startswith("--")}
    plain = " ".join(it for before, it in zip(["", *words], words, strict=False) if not re.match("-", it) and not re.match("--", before))
    world = World()
    if tool in ("aws", "eksctl"):
        globals()[tool](world, option, " ".join(words[:2]))
    elif tool == "kubectl":
        kubectl(world, option, plain)
    world.keep()


main()
