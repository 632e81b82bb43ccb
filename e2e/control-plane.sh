#!/usr/bin/env bash
# Kubernetes without nodes: etcd, API server, controllers and scheduler. cluster.sh sources this file and adds nodes. The
# deployer's tests and bench/ run it, as any user, on loopback:
#
#   control-plane.sh DIRECTORY    runs until its standard input ends, in a directory that it makes and removes
#
# The programs are those in KUBEBUILDER_ASSETS, else those of `cluster.sh binaries`. It prints `done` when rollouts can begin.
# Then each line of standard input calls a function below, for example `end apiserver`, and is answered with `done`. All
# other output says why the script has ended.
#
# DIRECTORY holds bin (the programs), their NAME.log and NAME.pid, admin.kubeconfig, certs/apiserver.crt, audit.log and
# etcd.url. The API server reaches pods and kubelets through an HTTP proxy at DIRECTORY/egress, which the caller provides.
# TOKENS adds lines to the API server's token file. AUDIT has the rules of its audit policy, by default one for all requests.
set -euo pipefail

die() { echo "${0##*/}: $*" >&2; exit 1; }

start() { # start NAME COMMAND…: in the background, with its process id and its log in $RUN
  printf '%q ' "${@:2}" >"$RUN/$1.command"
  restart "$1"
}

restart() { # restart NAME: with the command it was started with
  local words
  eval "words=($(cat "$RUN/$1.command"))"
  setsid "${words[@]}" >>"$RUN/$1.log" 2>&1 </dev/null &
  echo $! >"$RUN/$1.pid"
  disown # otherwise bash reports each component that is killed
}

signal() { kill "-$1" "$(cat "$RUN/$2.pid")" 2>/dev/null; } # signal SIGNAL NAME

end() { # end NAME…: returns when they have ended
  local name
  for name; do
    signal KILL "$name" || true
    while signal 0 "$name"; do sleep .02; done
  done
}

await() { # await NAME COMMAND…: until it succeeds, for 90 s at most; then NAME's log says why it did not
  local name=$1 deadline=$((SECONDS + 90))
  shift
  until timeout 10 "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ] || ! signal 0 "$name"; then
      tail -20 "$RUN/$name.log" >&2
      die "$name did not come up; above is the end of its log"
    fi
    sleep .1
  done
}

kubeconfig() { # kubeconfig USER: its token is its name
  cat >"$RUN/$1.kubeconfig" <<X
{"apiVersion": "v1", "kind": "Config", "current-context": "test",
 "clusters": [{"name": "test", "cluster": {"server": "https://$HOST:$PORT", "certificate-authority": "$RUN/certs/apiserver.crt"}}],
 "users": [{"name": "test", "user": {"token": "$1"}}],
 "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]}
X
}

# The API server makes its certificate itself, and signs the tokens of service accounts with the same key.
control_plane() { # control_plane FLAG…: etcd, and the API server with these flags, at $HOST:$PORT
  local etcd=http://127.0.0.1:$ETCD_PORT peers=http://127.0.0.1:$PEER_PORT key=$RUN/certs/apiserver.key
  local all='[{level: Metadata}]' user
  printf '%s\n' 'admin,admin,1,"system:masters"' manager,system:kube-controller-manager,2 scheduler,system:kube-scheduler,3 \
    "${TOKENS:-}" >"$RUN/tokens.csv"
  for user in admin manager scheduler; do kubeconfig $user; done
  cat >"$RUN/audit-policy.yaml" <<X
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules: ${AUDIT:-$all}
X
  start etcd etcd --data-dir="$RUN/etcd" --unsafe-no-fsync --log-level=error \
    --listen-client-urls="$etcd" --advertise-client-urls="$etcd" \
    --listen-peer-urls="$peers" --initial-advertise-peer-urls="$peers" --initial-cluster=default="$peers"
  start apiserver kube-apiserver --etcd-servers="$etcd" --cert-dir="$RUN/certs" --bind-address="$HOST" --secure-port="$PORT" \
    --advertise-address="$HOST" --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC \
    --token-auth-file="$RUN/tokens.csv" --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$key" --service-account-signing-key-file="$key" \
    --audit-policy-file="$RUN/audit-policy.yaml" --audit-log-path="$RUN/audit.log" --audit-log-maxsize=2000 \
    --max-requests-inflight=2000 --max-mutating-requests-inflight=2000 --allow-privileged=true \
    --kubelet-preferred-address-types=InternalIP --profiling=false "$@"
}

await_api_server() { await apiserver kubectl --kubeconfig="$RUN/admin.kubeconfig" get --raw /readyz; }

controllers() { # controllers FLAG…: once the API server is ready, the controllers, with these flags, and the scheduler
  await_api_server
  cat >"$RUN/scheduler.json" <<X
{"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "leaderElection": {"leaderElect": false},
 "clientConnection": {"kubeconfig": "$RUN/scheduler.kubeconfig", "qps": 2000, "burst": 4000}}
X
  start manager kube-controller-manager --kubeconfig="$RUN/manager.kubeconfig" --leader-elect=false --secure-port=0 \
    --use-service-account-credentials --service-account-private-key-file="$RUN/certs/apiserver.key" \
    --root-ca-file="$RUN/certs/apiserver.crt" --kube-api-qps=2000 --kube-api-burst=4000 \
    --concurrent-deployment-syncs=10 --concurrent-replicaset-syncs=10 "$@"
  start scheduler kube-scheduler --config="$RUN/scheduler.json" --secure-port=0
}

resume() { # after `end apiserver`: starts it again, and the others too, which would try to reach it only after half a minute
  end manager scheduler
  restart apiserver
  await_api_server
  restart manager
  restart scheduler
}

free_port() { # free_port VARIABLE: sets it to a port below those that the kernel gives to connections
  until printf -v "$1" %d $((20000 + NEXT++ % 12000)) && ! (: <"/dev/tcp/127.0.0.1/${!1}") 2>/dev/null; do :; done
}

finish() {
  local file
  for file in "$RUN"/*.pid; do [ ! -e "$file" ] || end "$(basename "$file" .pid)"; done
  rm -rf "$RUN"
}

serve() { # serve DIRECTORY
  local list name words
  exec 2>&1
  mkdir "$1"
  RUN=$(realpath "$1") HOST=127.0.0.1 NEXT=$(($$ * 61)) PATH=${KUBEBUILDER_ASSETS:-$("${0%/*}/cluster.sh" assets)}:$PATH
  trap '' PIPE
  trap finish EXIT
  for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubectl; do
    type -P $name >/dev/null ||
      die "there is no $name in ${PATH%%:*}: \`e2e/cluster.sh binaries\` builds it, and so does \`make test\` (6 minutes, once)"
  done
  ln -s "$(realpath "${PATH%%:*}")" "$RUN/bin"
  for name in PORT ETCD_PORT PEER_PORT; do free_port $name; done
  echo "http://127.0.0.1:$ETCD_PORT" >"$RUN/etcd.url"
  cat >"$RUN/egress.json" <<X
{"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration", "egressSelections": [
 {"name": "cluster", "connection": {"proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": "$RUN/egress"}}}}]}
X
  control_plane --endpoint-reconciler-type=none --egress-selector-config-file="$RUN/egress.json"
  # The controllers that rollouts need. The one that declares silent nodes lost must not run, because no kubelet reports here.
  list=deployment-controller,replicaset-controller,serviceaccount-controller
  controllers --controllers=$list,resourcequota-controller,garbage-collector-controller,disruption-controller
  echo 'done'
  while read -r words; do
    eval "$words"
    echo 'done'
  done
  trap - EXIT
  finish
  echo 'done'
}

if [ "$0" = "${BASH_SOURCE[0]}" ]; then
  [ $# = 1 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
  serve "$1"
  exit # otherwise bash would continue to read this file, which may have been edited
fi
