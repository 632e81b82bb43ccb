# The functions that createCluster.sh and deleteCluster.sh share. They source this file with $here set.
# shellcheck shell=bash disable=SC2154

say() { printf '%s\n' "$*" >&2; }

# fail CODE LINE...
fail() {
  local code=$1
  shift
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit "$code"
}

# try WHAT REMEDY COMMAND...: runs COMMAND. If it fails, the script ends with its exit code and the remedy.
try() {
  local what=$1 remedy=$2 code=0
  shift 2
  say "$what"
  "$@" || code=$?
  [ "$code" -eq 0 ] || fail "$code" "$what: \`$1\` exited with $code; its output is above" "$remedy"
}

# need TOOL...: ends the script with a list of all missing tools
need() {
  local tool missing=()
  for tool in "$@"; do
    command -v "$tool" >/dev/null && continue
    case $tool in
      aws) missing+=("aws: pip install awscli, or apt-get install awscli") ;;
      eksctl) missing+=("eksctl: https://docs.aws.amazon.com/eks/latest/eksctl/installation.html") ;;
      kubectl) missing+=("kubectl $(setting version): https://kubernetes.io/docs/tasks/tools") ;;
      helm) missing+=("helm, 3.8 or later: https://helm.sh/docs/intro/install") ;;
    esac
  done
  [ ${#missing[@]} -eq 0 ] || fail 2 "not on PATH:" "${missing[@]}"
}

# setting KEY: the value of the first KEY in cluster.yaml, so that eksctl and these scripts read the same
setting() { sed -n "s/^ *\(- \)\{0,1\}$1: *\"\{0,1\}\([^\" ]*\).*/\2/p" "$here/cluster.yaml" | head -1; }

name=$(setting name) region=$(setting region)

# Prints the AWS account, and ends the script if there are no credentials.
account() {
  aws sts get-caller-identity --region "$region" --query Account --output text ||
    fail 3 "there are no valid AWS credentials" "aws configure, or aws sso login and AWS_PROFILE, then run this again"
}

# Prints CREATING, ACTIVE, DELETING, FAILED, UPDATING, or absent if the cluster does not exist.
status() {
  local answer
  if answer=$(aws eks describe-cluster --name "$name" --region "$region" --query cluster.status --output text 2>&1); then
    echo "$answer"
  elif [[ $answer == *ResourceNotFoundException* ]]; then
    echo absent
  else
    fail 3 "cannot look up cluster $name in $region:" "$answer"
  fi
}

# Prints the CloudFormation stacks that eksctl made for the cluster with their statuses, one a line. It finds them by their
# tag, because a name may begin alike: eksctl-request-info-2-cluster belongs to another cluster.
stacks() {
  aws cloudformation describe-stacks --region "$region" --output text \
    --query "Stacks[?Tags[?Key=='alpha.eksctl.io/cluster-name' && Value=='$name']].[StackName,StackStatus]" ||
    fail 3 "cannot list the stacks of cluster $name in $region"
}

# state_of STACK STACKS: its status in the list of stacks(), or nothing
state_of() { awk -v stack="$1" '$1 == stack {print $2}' <<<"$2"; }

# delete_stacks STACKS: in the order of the list, but the cluster's stack last, because it holds the network of the others
delete_stacks() {
  local stack last=eksctl-$name-cluster
  for stack in $(awk -v last="$last" '$1 != last {print $1}' <<<"$1") $(awk -v last="$last" '$1 == last {print $1}' <<<"$1"); do
    try "deleting stack $stack" "aws cloudformation describe-stack-events --region $region --stack-name $stack" \
      aws cloudformation delete-stack --region "$region" --stack-name "$stack"
    try "waiting until it is gone" "aws cloudformation describe-stack-events --region $region --stack-name $stack" \
      aws cloudformation wait stack-delete-complete --region "$region" --stack-name "$stack"
  done
}
