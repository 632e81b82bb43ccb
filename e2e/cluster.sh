#!/usr/bin/env bash
# A real Kubernetes on one Linux machine: etcd, API server, controllers, scheduler, and two nodes, each a network
# namespace with its own containerd, kubelet and kube-proxy; a registry, a Docker engine, and an HAProxy instead of
# AWS's Network Load Balancer. It needs root, Go and Debian's packages, and no network once the binaries are built.
#
#   cluster.sh packages [CALLED=PACKAGE]  installs missing packages (Debian, Ubuntu), and those given, for example mvn=maven
#   cluster.sh binaries                   builds Kubernetes, once, in about 6 minutes
#   cluster.sh assets                     prints the directory of these binaries
#   cluster.sh run COMMAND [ARG...]       runs COMMAND inside a fresh cluster, and removes the cluster when it ends
#   cluster.sh shell                      a shell inside a fresh cluster
#   cluster.sh load-balancer PORT HEALTH  inside: HAProxy on $EDGE:80 for a Service's nodePort and healthCheckNodePort,
#                                         checking each node every $INTERVAL (10s); two equal answers change its state
#   cluster.sh restart NAME               inside: starts a component again that has ended, for example `apiserver`
#
# COMMAND finds KUBECONFIG, DOCKER_HOST, kubectl on PATH, the registry at $HOST:5000, the visitors' network namespace
# `edge`, and in $RUN each component's NAME.log and NAME.pid, and the API server's audit.log. Clusters can run side by side.
# RuntimeClass wasmtime-spin-v2 is Spin's shim if that is on PATH, else spin-runtime beside this file.
set -euo pipefail

SELF=$(realpath "$0")
PATCH=4 # of the Kubernetes that cluster.yaml asks of EKS
KUBERNETES=$(sed -n 's/^  version: "\(.*\)"/\1/p' "${SELF%/*}/../infrastructure/cluster.yaml").$PATCH
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/request-info/kubernetes-$KUBERNETES
BIN=$CACHE/bin
HOST=10.89.0.1 EDGE=10.89.0.100
PORT=6443 ETCD_PORT=2379 PEER_PORT=2380
TOKENS='proxy,system:kube-proxy,4
node-a,system:node:node-a,5,"system:nodes"
node-b,system:node:node-b,6,"system:nodes"'
# The audit policy: who wrote what and when, and the contents of pods.
AUDIT='[
  {level: RequestResponse, verbs: [create, update, patch, delete], resources: [{group: "", resources: [pods, pods/status]}]},
  {level: Metadata, verbs: [create, update, patch, delete], resources: [{group: "", resources: [configmaps]}, {group: apps, resources: [deployments]}]},
  {level: None}]'
declare -A ADDRESS=([node-a]=10.89.0.11 [node-b]=10.89.0.12)
declare -A PODS=([node-a]=10.244.1.0/24 [node-b]=10.244.2.0/24)

# The commands, and the packages that contain them. /usr/sbin is not on every user's PATH.
PATH=$PATH:/usr/sbin:/sbin
declare -A PACKAGE=([containerd]=containerd [runc]=runc [dockerd]=docker.io [docker]=docker.io [docker-registry]=docker-registry
  [iptables]=iptables [conntrack]=conntrack [haproxy]=haproxy [ip]=iproute2 [sysctl]=procps [openssl]=openssl [curl]=curl [jq]=jq
  [cc]=gcc [unshare]=util-linux [/usr/lib/cni/ptp]=containernetworking-plugins)

# shellcheck source=e2e/control-plane.sh
. "${SELF%/*}/control-plane.sh" # the functions that start programs and the control plane

missing() { # the packages that are not installed
  local called
  for called in "${!PACKAGE[@]}"; do type -P "$called" >/dev/null || echo "${PACKAGE[$called]}"; done | sort -u
}

packages() { # packages [CALLED=PACKAGE...]: installs those of PACKAGE and these
  local more missing
  for more; do PACKAGE[${more%=*}]=${more#*=}; done
  mapfile -t missing < <(missing)
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "packages are installed by root: sudo $0 packages"
  echo "cluster.sh: installing ${missing[*]}; this takes a minute" >&2
  local words
  words=$({ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq "${missing[@]}"; } 2>&1) ||
    die "apt-get could not install ${missing[*]}:"$'\n'"$words"
}

# k8s.io/kubernetes replaces its staging modules by paths, so a module that requires it must pin them itself.
binaries() (
  [ ! -d "$BIN" ] || exit 0
  type -P go >/dev/null || die "Kubernetes is built from its Go modules, but go is not on PATH: install Go 1.25 or newer"
  mkdir -p "$CACHE"
  exec 9>"$CACHE/lock"
  flock 9
  [ ! -d "$BIN" ] || exit 0 # another process has built it
  echo "cluster.sh: building Kubernetes $KUBERNETES and its etcd from their Go modules, once; about 6 minutes on two cores" >&2
  local build etcd go_mod minor=${KUBERNETES#*.} name version=k8s.io/component-base/version
  build=$(mktemp -d "$CACHE/build.XXXXXX")
  trap 'rm -rf "$build"' EXIT
  trap 'exit 1' INT TERM
  cd "$build"
  go_mod=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  etcd=$(sed -n 's/^\tgo.etcd.io\/etcd\/client\/v3 //p' "$go_mod") # the version of the client that Kubernetes requires, so that one go.mod is enough
  {
    printf 'module kubernetes\n\n'
    sed -n '/^go /p' "$go_mod"
    printf 'require (\n\tk8s.io/kubernetes v%s\n\tgo.etcd.io/etcd/server/v3 %s\n)\n\nreplace (\n' "$KUBERNETES" "$etcd"
    sed -n 's/^\t*\(k8s.io\/[^ ]*\) => .\/staging.*/\1/p' "$go_mod" | sort -u | while read -r name; do
      printf '\t%s => %s v0.%s\n' "$name" "$name" "$minor"
    done
    printf ')\n\ntool (\n\tgo.etcd.io/etcd/server/v3\n'
    printf '\tk8s.io/kubernetes/cmd/%s\n' kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl
    printf ')\n'
  } >go.mod
  go mod tidy >tidy.log 2>&1 || { cat tidy.log >&2; die "the Go modules of Kubernetes could not be fetched; is the module proxy reachable?"; }
  CGO_ENABLED=0 go build -trimpath -o built/ \
    -ldflags "-s -w -X $version.gitVersion=v$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}" tool
  mv built/server built/etcd
  mv built "$BIN"
)

network() {
  local name node other
  ip link add rq0 type bridge
  ip addr add $HOST/24 dev rq0
  ip link set rq0 up
  for name in node-a node-b edge; do
    ip netns add $name
    ip link add "rq-$name" type veth peer name eth0 netns $name
    ip link set "rq-$name" master rq0 up
    ip -n $name addr add "${ADDRESS[$name]:-$EDGE}/24" dev eth0
    ip -n $name link set eth0 up
    ip -n $name link set lo up
    ip -n $name route add default via $HOST
    nsenter --net=/run/netns/$name sysctl -qw net.ipv4.ip_forward=1
  done
  for node in node-a node-b; do
    ip route add "${PODS[$node]}" via "${ADDRESS[$node]}"
    for other in node-a node-b; do
      [ $node = $other ] || ip -n $node route add "${PODS[$other]}" via "${ADDRESS[$other]}"
    done
  done
}

registry_and_docker() {
  printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: %s/registry}, delete: {enabled: true}}\nhttp: {addr: "%s:5000"}\n' \
    "$RUN" $HOST >"$RUN/registry.yaml"
  start registry docker-registry serve "$RUN/registry.yaml"
  start dockerd dockerd --data-root "$RUN/docker" --exec-root "$RUN/docker-exec" -H "$DOCKER_HOST" --pidfile "$RUN/docker.pid" \
    --iptables=false --bridge=none --cgroup-parent "/$CGROUP/docker" --insecure-registry $HOST:5000
}

pause_image() { # the pod sandbox's image, built here because the cluster cannot reach a public registry
  local context=$RUN/pause
  mkdir "$context"
  printf '#include <unistd.h>\nint main(void) { for (;;) pause(); }\n' | cc -static -O2 -x c -o "$context/pause" -
  printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' >"$context/Dockerfile"
  await dockerd docker version
  docker build -q -t localhost/pause:1 "$context" >/dev/null 2>"$RUN/pause.log" || { cat "$RUN/pause.log" >&2; die "docker built no pause image"; }
  docker save -o "$RUN/pause.tar" localhost/pause:1
}

# The nodes' cgroups, in every hierarchy of cgroup v1 or in the one tree of v2. All pods together get the share of eight other
# processes, because they would get almost nothing on a busy machine.
cgroups() {
  local name tree file controller
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p "/sys/fs/cgroup/$CGROUP/"{node-a,node-b}
    for tree in /sys/fs/cgroup "/sys/fs/cgroup/$CGROUP"; do
      grep -owE 'cpu|cpuset|hugetlb|io|memory|pids' "$tree/cgroup.controllers" | while read -r controller; do
        echo "+$controller" >"$tree/cgroup.subtree_control" ||
          die "controller $controller cannot be passed on in $tree: use a virtual machine, or a container with --cgroupns=host"
      done
    done
    echo 800 >"/sys/fs/cgroup/$CGROUP/cpu.weight"
    return
  fi
  for tree in /sys/fs/cgroup/*/; do
    [ -e "$tree/cgroup.procs" ] || continue
    mkdir -p "$tree/$CGROUP/"{node-a,node-b}
    [ ! -e "$tree/cpu.shares" ] || echo 8192 >"$tree/$CGROUP/cpu.shares"
    for file in cpuset.cpus cpuset.mems; do # v1 leaves these empty in a new group, in which nothing can start then
      [ -e "$tree/$file" ] || continue
      for name in "$CGROUP" "$CGROUP/node-a" "$CGROUP/node-b"; do cat "$tree/$file" >"$tree/$name/$file"; done
    done
  done
}

container_runtime() {
  local name=$1 state=$RUN/$1
  mkdir -p "$state/cni"
  cat >"$state/cni/10-pods.conflist" <<X
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": {"type": "host-local",
 "dataDir": "$state/ipam", "ranges": [[{"subnet": "${PODS[$name]}"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
X
  local spin_handler='runtime_type = "io.containerd.spin.v2"'
  type -P containerd-shim-spin-v2 >/dev/null || spin_handler="runtime_type = \"io.containerd.runc.v2\"
  [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.spin-v2.options]
    BinaryName = \"$(dirname "$SELF")/spin-runtime\""
  # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc may not lower it and dies with "can't get final child's PID"
  cat >"$state/containerd.toml" <<X
version = 2
root = "$state/containerd"
state = "$state/state"
[grpc]
  address = "$state/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$state/cni"
  [plugins."io.containerd.grpc.v1.cri".registry.mirrors."$HOST:5000"]
    endpoint = ["http://$HOST:5000"]
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.spin-v2]
    $spin_handler
X
  cat >"$state/kubelet.yaml" <<X
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://$state/containerd.sock
address: ${ADDRESS[$name]}
podLogsDir: $state/logs
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/$name
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
enforceNodeAllocatable: []
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi}
nodeLeaseDurationSeconds: 10
clusterDNS: [10.96.0.10]
X
  start "containerd-$name" nsenter "--net=/run/netns/$name" containerd -c "$state/containerd.toml"
}

node() {
  local name=$1 state=$RUN/$1 netns=--net=/run/netns/$1 # not `ip netns exec`: that hides the cgroup mounts
  await "containerd-$name" ctr -a "$state/containerd.sock" version
  ctr -a "$state/containerd.sock" -n k8s.io images import "$RUN/pause.tar" >/dev/null
  start "kubelet-$name" nsenter "$netns" kubelet --config="$state/kubelet.yaml" --kubeconfig="$RUN/$name.kubeconfig" \
    --root-dir="$state/kubelet" --cert-dir="$state/pki" --hostname-override="$name" --node-ip="${ADDRESS[$name]}" \
    --node-labels=spin=true
  start "proxy-$name" nsenter "$netns" kube-proxy --kubeconfig="$RUN/proxy.kubeconfig" --hostname-override="$name" --proxy-mode=iptables \
    --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

load_balancer() { # load_balancer NODEPORT HEALTHCHECKNODEPORT
  local name
  cat >"$RUN/haproxy.cfg" <<X
defaults
  mode tcp
  timeout connect 10s
  retries 0
  timeout client 60s
  timeout server 60s
frontend web
  bind $EDGE:80
  default_backend nodes
backend nodes
  balance roundrobin
  option httpchk GET /healthz
$(for name in node-a node-b; do echo "  server $name ${ADDRESS[$name]}:$1 check port $2 inter ${INTERVAL:-10s} fall 2 rise 2"; done)
X
  start haproxy nsenter --net=/run/netns/edge haproxy -W -db -f "$RUN/haproxy.cfg"
}

cluster() { # inside the namespaces, as their first process: when it ends, the kernel ends all other processes in them
  local name
  export HOST EDGE KUBECONFIG=$RUN/admin.kubeconfig DOCKER_HOST=unix://$RUN/docker.sock PATH=${SELF%/*}/bin:$BIN:$PATH TMPDIR=$RUN/tmp
  mkdir "$TMPDIR"
  mount -t tmpfs tmpfs /run # so that /run/netns and /run/containerd belong to this cluster
  for name in etc opt usr/libexec var/lib var/log; do # what containerd, dockerd, kubelet and CNI write there disappears with $RUN
    mkdir -p "$RUN/overlay/$name/"{upper,work}
    mount -t overlay -o "lowerdir=/$name,upperdir=$RUN/overlay/$name/upper,workdir=$RUN/overlay/$name/work" overlay "/$name"
  done
  mount --make-rshared /
  ip link set lo up
  network
  cgroups
  # First, because it takes the longest. A lost node is noticed after 20 s instead of 50 s, and its pods are deleted 5 s
  # later instead of 5 min.
  control_plane --default-not-ready-toleration-seconds=5 --default-unreachable-toleration-seconds=5
  for name in proxy node-a node-b; do kubeconfig $name; done
  registry_and_docker
  for name in node-a node-b; do container_runtime $name; done
  pause_image
  controllers --node-monitor-period=1s --node-monitor-grace-period=20s
  for name in node-a node-b; do node $name; done
  kubectl create -f "${SELF%/*}/../kubernetes/runtimeclass.yaml" >/dev/null
  await registry curl -sf http://$HOST:5000/v2/
  for name in node-a node-b; do
    await "kubelet-$name" kubectl wait --for=condition=Ready node/$name --timeout=1s
  done
  await manager kubectl get serviceaccount default # no pod is admitted without it
  "$@"
  exit # otherwise bash would continue to read this file, which may have been edited
}

run() {
  [ $# -gt 0 ] || die "run what? $0 run COMMAND [ARG...]"
  [ "$(id -u)" = 0 ] || die "nodes need network namespaces, mounts and cgroups, and those need root: sudo -E $0 run $*"
  local missing
  mapfile -t missing < <(missing)
  [ ${#missing[@]} = 0 ] || die "not installed: ${missing[*]}; \`$0 packages\` installs them"
  unshare --mount --net --pid --fork true 2>/dev/null || die "this root may not make namespaces: use a virtual machine, or a container with --privileged"
  binaries
  RUN=$(mktemp -d /var/tmp/request-info.XXXXXX) # not on a tmpfs, because overlayfs needs a real file system below it
  CGROUP=${RUN##*/}
  export RUN CGROUP
  # The janitor reads a pipe that this shell and all processes of the cluster hold open, so it begins when the last of them
  # has ended, even if they were killed. A trap of this shell could not do that.
  exec 8> >(exec setsid "$SELF" sweep)
  janitor=$!
  trap 'kill -KILL ${cluster:-} 2>/dev/null || true; exec 8>&-; wait $janitor' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  # In the background, because a shell reacts to a signal at once only in `wait`. --pdeathsig and --kill-child end the cluster
  # when this shell is killed.
  env --default-signal=INT,QUIT setpriv --pdeathsig KILL \
    unshare --mount --net --pid --fork --mount-proc --kill-child "$SELF" cluster "$@" <&0 &
  cluster=$!
  wait "$cluster"
  exit # as in `cluster`
}

sweep() { # a process that has just been killed may hold its cgroup and write for a moment
  local deadline=$((SECONDS + 10)) tree
  trap '' INT TERM HUP
  cat >/dev/null
  for tree in "/sys/fs/cgroup/$CGROUP" /sys/fs/cgroup/*/"$CGROUP"; do
    until [ ! -d "$tree" ] || find "$tree" -depth -type d -exec rmdir {} + 2>/dev/null; do
      [ $SECONDS -lt $deadline ] || die "the cgroup $tree is still in use and was not removed"
      sleep .1
    done
  done
  until rm -rf "$RUN" 2>/dev/null; do
    [ $SECONDS -lt $deadline ] || die "$RUN is still in use and was not removed"
    sleep .1
  done
}

shell() { run "$SELF" prompt; }

prompt() {
  cat <<X
Kubernetes $KUBERNETES, two nodes, gone when this shell ends. Try:
  kubectl get nodes -o wide
  make image push deploy IMAGE=$HOST:5000/request-info
  $0 load-balancer PORT HEALTH    a Service's nodePort and healthCheckNodePort; then, as a visitor:
  ip netns exec edge curl $EDGE/
  ls $RUN/*.log
X
  exec bash
}

case ${1:-} in
  packages | binaries | run | shell | restart | cluster | prompt | sweep) "$@" ;;
  assets) echo "$BIN" ;;
  load-balancer) shift; load_balancer "$@" ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac
