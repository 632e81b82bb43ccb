#!/usr/bin/env bash
# Creates the EKS cluster that cluster.yaml describes, and on it what request-info needs: the AWS Load Balancer Controller
# and RuntimeClass wasmtime-spin-v2. It may be run again at any time: it finishes what an interrupted run began, and
# reports what differs from cluster.yaml. The times that it prints are estimates; none was measured on AWS.
#
#   createCluster.sh [--update] [--jenkins ARN] [--save-templates DIR]
#     --update               changes the cluster to match cluster.yaml: first the control plane, then the add-ons, then a
#                            new node group, to which the pods of the old one move
#     --jenkins ARN          lets this IAM role or user into the cluster, as group request-info-deployers, and writes
#                            jenkins/kubeconfig
#     --save-templates DIR   keeps the CloudFormation templates that eksctl made
#
# Exit codes: 0 done, 2 wrong usage or a missing tool, 3 AWS refuses to answer, 4 the cluster differs from cluster.yaml,
# otherwise the exit code of the step that failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

BALANCER_CHART=3.5.0

# A changed node needs a new node group, so the group's name contains a checksum of the node's settings.
nodes=$(sed -n '/^managedNodeGroups:/,$p' "$here/cluster.yaml")
base=$(sed -n 's/^  - name: //p' <<<"$nodes")
group=$base-$({ setting version; sed '/^ *#/d' <<<"$nodes"; } | sha256sum | cut -c1-8)
config() { sed "/^managedNodeGroups:/,\$s/^  - name: .*/  - name: $group/" "$here/cluster.yaml"; }

by_template="if it was made with cluster.json: \`aws cloudformation deploy\` as in docs/eks.md changes it"

jenkins='' templates='' update=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --jenkins | --save-templates) [ $# -gt 1 ] || fail 2 "$1 needs a value; see --help" ;;&
    --update) update=1; shift ;;
    --jenkins) jenkins=$2; shift 2 ;;
    --save-templates) templates=$2; shift 2 ;;
    *) fail 2 "unknown option $1; see --help" ;;
  esac
done

# The cost in US dollars, by list prices of us-east-1 in October 2025, for 730 hours a month and without traffic.
cost() {
  awk -v nodes="$(setting desiredCapacity)" -v gigabytes="$(setting volumeSize)" 'BEGIN {
    plane = 0.10 * 730; node = nodes * 0.0416 * 730; disk = nodes * gigabytes * 0.08
    balancer = 0.0225 * 730; addresses = (nodes + 2) * 0.005 * 730
    audit = 5 * 0.50 # gigabytes
    sum = plane + node + disk + balancer + addresses + audit
    printf "about $%.0f a month, that is $%.2f a day, while it exists: control plane $%.0f, %d nodes $%.0f, their\n" \
           "disks $%.0f, the balancer of the Service $%.0f, public addresses $%.0f, the audit log $%.0f.\n" \
           "An estimate; docs/eks.md has the formula.", sum, sum / 30.4, plane, nodes, node, disk, balancer, addresses, audit
  }'
}

make_cluster() {
  local state all
  state=$(status)
  all=$(stacks)
  case $state in
    absent)
      clear_failed "$all"
      try "making cluster $name and its nodes: about 15 minutes" "run this again: it finishes what was begun" \
        eksctl create cluster --config-file - --write-kubeconfig=false < <(config)
      ;;
    ACTIVE)
      if [ -n "$all" ]; then
        finish_cluster "$all"
      else # cluster.json's, for example
        say "cluster $name exists, but eksctl did not make it: its nodes, add-ons and roles are not changed"
      fi
      ;;
    *)
      fail 1 "cluster $name is $state" "wait until that is over: aws eks describe-cluster --name $name --region $region" \
        "if it is FAILED: ./deleteCluster.sh deletes it; then run this again"
      ;;
  esac
}

failed() { [[ $1 =~ ^(ROLLBACK_COMPLETE|(CREATE|ROLLBACK|DELETE)_FAILED)$ ]]; }

# If an earlier attempt left a stack but no cluster, eksctl neither reuses nor deletes that stack.
clear_failed() {
  local state
  state=$(state_of "eksctl-$name-cluster" "$1")
  [ -z "$state" ] || failed "$state" || fail 1 "there is no cluster $name, and stack eksctl-$name-cluster is $state" \
    "if that is IN_PROGRESS: run this again when it is over" "otherwise: ./deleteCluster.sh deletes what is left"
  delete_stacks "$1"
}

# Finishes what an interrupted run began. eksctl skips an add-on that exists.
finish_cluster() {
  local addon association running stack state role=eksctl-$name-podidentityrole-kube-system-aws-load-balancer-controller
  say "cluster $name exists"
  while read -r stack state; do
    [[ $state != *_IN_PROGRESS ]] || fail 1 "stack $stack is $state" "run this again when that is over"
    # eksctl believes that a node group is complete if its stack exists, even if the stack failed.
    [[ $stack != "eksctl-$name-nodegroup-"* ]] || ! failed "$state" || delete_stacks "$stack"
  done <<<"$1"
  # A node becomes ready only with the network's add-on, and coredns only on a node.
  for addon in vpc-cni kube-proxy eks-pod-identity-agent; do add_on create "$addon"; done
  running=$(node_groups)
  [ -n "$running" ] || make_nodes
  add_on create coredns
  association=$(aws eks list-pod-identity-associations --cluster-name "$name" --region "$region" --namespace kube-system \
    --service-account aws-load-balancer-controller --query 'associations[0].associationId' --output text)
  [ "$association" = None ] || return 0
  [ -z "$(state_of "$role" "$1")" ] || delete_stacks "$role" # eksctl would refuse to make it again
  try "the balancer controller's role" "run this again" eksctl create podidentityassociation --config-file - < <(config)
}

# add_on create|update NAME [OPTION...]
add_on() {
  local verb=$1 addon=$2
  shift 2
  try "add-on $addon" "eksctl get addon --region $region --cluster $name" \
    eksctl "$verb" addon --region "$region" --cluster "$name" --name "$addon" "$@"
}

make_nodes() {
  try "node group $group: about 4 minutes" "docs/eks.md, Troubleshooting, says where a node's log is" \
    eksctl create nodegroup --config-file - < <(config)
}

# The names of the node groups that cluster.yaml describes now or described earlier
node_groups() { stacks | sed -n "s/^eksctl-$name-nodegroup-\($base\(-[0-9a-f]\{8\}\)\{0,1\}\)[[:space:]].*/\1/p"; }

# What differs from cluster.yaml, one difference a line
differences() {
  local answer version support running
  answer=$(aws eks describe-cluster --name "$name" --region "$region" --output text \
    --query 'cluster.[version,upgradePolicy.supportType,logging.clusterLogging[?enabled].types[]]')
  read -r version support _ <<<"$answer"
  [ "$version" = "$(setting version)" ] || echo "Kubernetes $version runs, cluster.yaml says $(setting version)"
  [ "$support" = "$(setting supportType)" ] || echo "the support type is $support, cluster.yaml says $(setting supportType)"
  [[ $answer == *audit* ]] || echo "no audit log is written"
  running=$(node_groups)
  [ "${running:-$group}" = "$group" ] || echo "the nodes are of group ${running//$'\n'/ and }, cluster.yaml describes $group"
}

# In the order that EKS requires: control plane, add-ons, nodes. Skips what is up to date.
update() {
  local addon old running
  running=$(stacks)
  [ -n "$running" ] || fail 1 "eksctl did not make cluster $name, so eksctl cannot update it" "$by_template"
  try "control plane: about 10 minutes if its version changes" \
    "if the versions are more than one minor version apart: set \`version\` in cluster.yaml to the next one first" \
    eksctl upgrade cluster --config-file - --approve < <(config)
  running=$(differences)
  if [[ $running == *"support type"* ]]; then
    try "support type" "see above" aws eks update-cluster-config --name "$name" --region "$region" \
      --upgrade-policy "supportType=$(setting supportType)"
    try "waiting for it" "see above" aws eks wait cluster-active --name "$name" --region "$region"
  fi
  try "audit log" "see above" eksctl utils update-cluster-logging --config-file - --approve < <(config)
  for addon in vpc-cni kube-proxy coredns eks-pod-identity-agent; do add_on update "$addon" --version latest --wait; done
  make_nodes
  running=$(node_groups)
  for old in $running; do
    [ "$old" = "$group" ] || try "draining node group $old, then deleting it" \
      "kubectl --context $name get pods --all-namespaces --output wide lists the pods that are left on its nodes; run this again" \
      eksctl delete nodegroup --region "$region" --cluster "$name" --name "$old" --wait
  done
}

# Uses this context, not kubectl's current one.
admit_us() {
  try "writing context $name to the kubeconfig" "see above" \
    aws eks update-kubeconfig --name "$name" --region "$region" --alias "$name" --user-alias "$name"
}

balancer_controller() {
  local vpc
  # Pods cannot read the instances' metadata, so the controller must be given these two.
  vpc=$(aws eks describe-cluster --name "$name" --region "$region" --query cluster.resourcesVpcConfig.vpcId --output text)
  try "AWS Load Balancer Controller $BALANCER_CHART" \
    "kubectl --context $name -n kube-system logs deployment/aws-load-balancer-controller" \
    helm upgrade --install aws-load-balancer-controller aws-load-balancer-controller --repo https://aws.github.io/eks-charts \
    --version "$BALANCER_CHART" --kube-context "$name" --namespace kube-system \
    --set "clusterName=$name,region=$region,vpcId=$vpc,serviceAccount.name=aws-load-balancer-controller" --wait --timeout 5m
}

runtime_class() {
  try "RuntimeClass wasmtime-spin-v2" "see above" kubectl --context "$name" apply --filename "$here/../kubernetes/runtimeclass.yaml"
}

admit_jenkins() {
  local answer kubeconfig=$here/jenkins/kubeconfig
  if answer=$(aws eks describe-access-entry --cluster-name "$name" --region "$region" --principal-arn "$jenkins" 2>&1); then
    say "$jenkins has its access entry"
  elif [[ $answer == *ResourceNotFoundException* ]]; then
    try "access entry of $jenkins" "does this role or user exist? aws iam get-role, aws iam get-user" \
      aws eks create-access-entry --cluster-name "$name" --region "$region" --principal-arn "$jenkins" \
      --kubernetes-groups request-info-deployers
  else
    fail 3 "cannot look up the access entry of $jenkins:" "$answer"
  fi
  try "writing $kubeconfig" "see above" aws eks update-kubeconfig --name "$name" --region "$region" \
    --alias "$name" --user-alias jenkins --kubeconfig "$kubeconfig"
  # aws writes the name of our profile into the file, but Jenkins does not have that profile.
  try "removing our AWS_PROFILE from it" "see above" \
    kubectl --kubeconfig "$kubeconfig" config set-credentials jenkins --exec-env AWS_PROFILE-
}

save_templates() {
  local all stack
  all=$(stacks)
  mkdir -p "$templates"
  while read -r stack _; do
    [ -n "$stack" ] || continue
    aws cloudformation get-template --region "$region" --stack-name "$stack" --query TemplateBody --output json \
      >"$templates/$stack.json"
    say "saved $templates/$stack.json"
  done <<<"$all"
}

need eksctl aws kubectl helm
who=$(account)
say "cluster $name, Kubernetes $(setting version), $(setting desiredCapacity) nodes, in $region of account $who:"
say "$(cost)"
make_cluster
admit_us
[ -z "$update" ] || update
balancer_controller
runtime_class
[ -z "$jenkins" ] || admit_jenkins
[ -z "$templates" ] || save_templates
differing=$(differences)
[ -z "$differing" ] || fail 4 "the cluster differs from cluster.yaml:" "${differing//$'\n'/$'\n  '}" \
  "./createCluster.sh --update changes the cluster" "$by_template"
say "done: kubectl --context $name get nodes; ./deleteCluster.sh deletes everything. Next: docs/eks.md"
