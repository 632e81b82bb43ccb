#!/usr/bin/env bash
# Makes the EKS cluster that cluster.yaml describes and what request-info needs on it: the AWS Load Balancer Controller,
# and Spin's shim with RuntimeClass wasmtime-spin-v2. May be run again at any time: what is there is left or brought up
# to date. About 20 minutes the first time, one minute after that.
#
#   createCluster.sh [--jenkins ARN] [--save-templates DIR]
#     --jenkins ARN          lets this IAM role or user into the cluster, as group request-info-deployers
#     --save-templates DIR   keeps the CloudFormation templates that eksctl made
#
# Exit codes: 0 done, 2 wrong usage or a tool is missing, 3 AWS refuses to answer, else that of the step that failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

BALANCER_CHART=3.5.0 SHIM_CHART=0.2.0

jenkins='' templates=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --jenkins | --save-templates) [ $# -gt 1 ] || fail 2 "$1 wants a value; see --help" ;;&
    --jenkins) jenkins=$2; shift 2 ;;
    --save-templates) templates=$2; shift 2 ;;
    *) fail 2 "unknown option $1; see --help" ;;
  esac
done

# What it will cost, in US dollars: list prices of us-east-1 in October 2025, 730 hours a month, traffic not counted.
cost() {
  awk -v nodes="$(setting desiredCapacity)" -v gigabytes="$(setting volumeSize)" 'BEGIN {
    plane = 0.10 * 730; node = nodes * 0.0416 * 730; disk = nodes * gigabytes * 0.08
    balancer = 0.0225 * 730; addresses = (nodes + 3) * 0.005 * 730
    printf "about $%.0f a month, that is $%.2f a day, for as long as it stands: control plane $%.0f, %d nodes $%.0f, their\n" \
           "disks $%.0f, the balancer of the Service $%.0f, public addresses $%.0f. An estimate; docs/eks.md has the formula.",
      plane + node + disk + balancer + addresses, (plane + node + disk + balancer + addresses) / 30.4,
      plane, nodes, node, disk, balancer, addresses
  }'
}

make_cluster() {
  local state
  state=$(status)
  case $state in
    absent)
      try "making cluster $name and its nodes: about 15 minutes" \
        "./deleteCluster.sh removes what it left behind; then run this again" \
        eksctl create cluster --config-file "$here/cluster.yaml"
      ;;
    ACTIVE | UPDATING)
      if [ -z "$(stacks)" ]; then # cluster.json's, for example
        say "cluster $name is there, and eksctl did not make it: its nodes, add-ons and roles are left as they are"
        return
      fi
      say "cluster $name is there"
      # Whatever an interrupted first run did not come to; eksctl passes over what exists.
      try "its nodes" "eksctl utils describe-stacks --region $region --cluster $name" \
        eksctl create nodegroup --config-file "$here/cluster.yaml"
      try "its add-ons" "eksctl get addon --region $region --cluster $name" \
        eksctl create addon --config-file "$here/cluster.yaml"
      local association
      association=$(aws eks list-pod-identity-associations --cluster-name "$name" --region "$region" --namespace kube-system \
        --service-account aws-load-balancer-controller --query 'associations[0].associationId' --output text)
      [ "$association" != None ] || try "the balancer controller's role" "run this again" \
        eksctl create podidentityassociation --config-file "$here/cluster.yaml"
      ;;
    *)
      fail 1 "cluster $name is $state" "wait until that is over: aws eks describe-cluster --name $name --region $region" \
        "a FAILED one goes by ./deleteCluster.sh; then run this again"
      ;;
  esac
}

# Always by this context, whatever kubectl's current one is.
admit_us() {
  try "writing context $name to the kubeconfig" "see above" \
    aws eks update-kubeconfig --name "$name" --region "$region" --alias "$name" --user-alias "$name"
}

balancer_controller() {
  local vpc
  # Pods are kept from the instances' metadata, so it cannot find these two out by itself.
  vpc=$(aws eks describe-cluster --name "$name" --region "$region" --query cluster.resourcesVpcConfig.vpcId --output text)
  try "AWS Load Balancer Controller $BALANCER_CHART" \
    "kubectl --context $name -n kube-system logs deployment/aws-load-balancer-controller" \
    helm upgrade --install aws-load-balancer-controller aws-load-balancer-controller --repo https://aws.github.io/eks-charts \
    --version "$BALANCER_CHART" --kube-context "$name" --namespace kube-system \
    --set "clusterName=$name,region=$region,vpcId=$vpc,serviceAccount.name=aws-load-balancer-controller" --wait --timeout 5m
}

runtime_class() {
  try "runtime-class-manager $SHIM_CHART" "kubectl --context $name -n runtime-class-manager get pods,events" \
    helm upgrade --install runtime-class-manager oci://ghcr.io/spinframework/charts/runtime-class-manager \
    --version "$SHIM_CHART" --kube-context "$name" --namespace runtime-class-manager --create-namespace --wait --timeout 5m
  try "Spin's shim" "see above" kubectl --context "$name" apply --filename "$here/shim.yaml"
  try "waiting until each node has it" \
    "kubectl --context $name describe shim spin-v2; kubectl --context $name -n runtime-class-manager get jobs,pods" \
    kubectl --context "$name" wait node --selector spin=true --for 'jsonpath={.metadata.labels.spin-v2}=provisioned' --timeout 5m
  try "RuntimeClass wasmtime-spin-v2" "kubectl --context $name describe shim spin-v2" \
    kubectl --context "$name" get runtimeclass wasmtime-spin-v2
}

admit_jenkins() {
  local answer
  if answer=$(aws eks describe-access-entry --cluster-name "$name" --region "$region" --principal-arn "$jenkins" 2>&1); then
    say "$jenkins has its access entry"
  elif [[ $answer == *ResourceNotFoundException* ]]; then
    try "access entry of $jenkins" "is there such a role or user? aws iam get-role, aws iam get-user" \
      aws eks create-access-entry --cluster-name "$name" --region "$region" --principal-arn "$jenkins" \
      --kubernetes-groups request-info-deployers
  else
    fail 3 "cannot ask for the access entry of $jenkins:" "$answer"
  fi
}

save_templates() {
  local all stack
  all=$(stacks)
  mkdir -p "$templates"
  for stack in $all; do
    aws cloudformation get-template --region "$region" --stack-name "$stack" --query TemplateBody --output json \
      >"$templates/$stack.json"
    say "saved $templates/$stack.json"
  done
}

need eksctl aws kubectl helm
who=$(account)
say "cluster $name, Kubernetes $(setting version), $(setting desiredCapacity) nodes, in $region of account $who:"
say "$(cost)"
make_cluster
admit_us
balancer_controller
runtime_class
[ -z "$jenkins" ] || admit_jenkins
[ -z "$templates" ] || save_templates
say "done: kubectl --context $name get nodes; ./deleteCluster.sh takes it all away. Next: docs/eks.md"
