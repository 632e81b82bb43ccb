#!/usr/bin/env bash
# Deletes what createCluster.sh made. It deletes the balancers of Services first, because they block the deletion of the VPC.
# It may be run again.
#
#   deleteCluster.sh [--yes]
#     --yes   does not ask; without it, you must type the cluster's name
#
# Exit codes: 0 nothing is left, 2 wrong usage or a missing tool, 3 AWS refuses to answer, otherwise the exit code of the
# step that failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

yes=''
case ${1:-} in
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  --yes) yes=1 ;;
  '') ;;
  *) fail 2 "unknown option $1; see --help" ;;
esac

need eksctl aws kubectl
who=$(account)
state=$(status)
left=$(stacks)
if [ "$state" = absent ] && [ -z "$left" ]; then
  say "nothing to delete: no cluster $name and no stack of eksctl's in $region of account $who"
  exit 0
fi

say "cluster $name ($state) in $region of account $who, with everything that runs on it:"
say "${left:-no stack of eksctl}"
if [ -z "$yes" ]; then
  printf 'type the name of the cluster to delete it: ' >&2
  read -r answer || answer=''
  [ "$answer" = "$name" ] || fail 2 "not deleted: the name was not typed" "in a script, use --yes"
fi

if [ "$state" = ACTIVE ]; then
  # A temporary kubeconfig, so that the caller's does not change.
  KUBECONFIG=$(mktemp)
  export KUBECONFIG
  trap 'rm -f "$KUBECONFIG"' EXIT
  try "getting access to the cluster" "see above" aws eks update-kubeconfig --name "$name" --region "$region" --alias "$name"
  services=$(kubectl --context "$name" get services --all-namespaces \
    --output 'jsonpath={range .items[?(@.spec.type=="LoadBalancer")]}{.metadata.namespace} {.metadata.name}{"\n"}{end}')
  while read -r namespace service; do
    [ -n "$service" ] || continue
    # Waits until the controller has removed the balancer.
    try "balancer of Service $namespace/$service" \
      "kubectl --context $name -n kube-system logs deployment/aws-load-balancer-controller shows why it was not removed" \
      kubectl --context "$name" --namespace "$namespace" delete service "$service" --timeout 5m
  done <<<"$services"
fi
if [ "$state" = absent ]; then # eksctl deletes no stack without its cluster
  delete_stacks "$left"
  say "done: the stacks of cluster $name are gone"
  exit 0
fi
[ -n "$left" ] || fail 1 "eksctl did not make cluster $name, so eksctl cannot delete it" \
  "if cluster.json made it: aws cloudformation delete-stack --region $region --stack-name $name"
# An eviction would wait for PodDisruptionBudgets that can no longer be met.
try "deleting cluster $name: about 12 minutes" "eksctl utils describe-stacks --region $region --cluster $name; then run this again" \
  eksctl delete cluster --config-file "$here/cluster.yaml" --disable-nodegroup-eviction --wait
say "done: cluster $name is gone"
