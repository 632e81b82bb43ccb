#!/usr/bin/env bash
# push.sh IMAGE TAG COMMIT: pushes what image.sh built as one image for all architectures, IMAGE:TAG, unless the registry already
# has that tag. It moves `latest` forward and writes the digest to target/reports/image.json.
#
# If REGISTRY_USER and REGISTRY_PASSWORD are set, it logs in with them, else with Docker's own configuration.
set -euo pipefail
shopt -s inherit_errexit
image=$1 tag=$2 commit=$3
report=target/reports/image.json

fail() {
  echo "push: $*" >&2
  exit 1
}

# Docker keeps a password in its configuration, and the parts of an index beside it. Both are removed with this directory.
configure() {
  local own=${DOCKER_CONFIG:-$HOME/.docker} file
  DOCKER_CONFIG=$(mktemp --directory)
  export DOCKER_CONFIG
  trap 'rm -r "$DOCKER_CONFIG"' EXIT
  for file in config.json contexts; do
    [ ! -e "$own/$file" ] || cp -R "$own/$file" "$DOCKER_CONFIG"
  done
  [ -n "${REGISTRY_USER:-}" ] || return 0
  rm -f "$DOCKER_CONFIG/config.json" # a helper that it names would keep the password
  # A name's first part is a registry if it looks like a host (distribution/reference, splitDockerDomain). Docker Hub's
  # is left out.
  local registry=${image%%/*}
  case $registry in docker.io | index.docker.io) registry='' ;; *.* | *:* | localhost) ;; *) registry='' ;; esac
  docker login --username "$REGISTRY_USER" --password-stdin ${registry:+"$registry"} <<<"${REGISTRY_PASSWORD:-}" ||
    fail "the login to ${registry:-Docker Hub} as $REGISTRY_USER failed, so nothing was pushed; Docker's output is above"
}

# Whether the registry has IMAGE:$1. The image is pulled, because the daemon then passes on the registry's answer. "manifest
# unknown" and "name unknown" are the registry's codes for a missing image (distribution registry/api/errcode). A daemon with
# containerd's image store (29) turns a 404 into "failed to resolve reference … not found". `docker manifest inspect` cannot
# be used, because it says "no such manifest" also after a refused login and some 5xx (docker/cli registryclient/fetcher.go,
# continueOnError). After any other answer it is unknown whether the registry has the image, and nothing is pushed.
in_registry() {
  local said
  if said=$(timeout 60 docker pull --platform linux/amd64 "$image:$1" 2>&1); then
    digest=$(sed -n 's/^Digest: //p' <<<"$said")
    return 0
  fi
  case $said in
    *"not found: manifest unknown"* | *"not found: name unknown"*) return 1 ;;
    *"failed to resolve reference \""*"$image:$1: not found") return 1 ;;
  esac
  fail "it is not known whether the registry has $image:$1, so nothing was pushed. Docker says: ${said:-nothing for 60 s}"
}

# Makes IMAGE:$1 from the manifests with the digests that follow.
push_index() {
  docker manifest create "$image:$1" "${@:2}" >/dev/null && docker manifest push "$image:$1"
}

push_commit() {
  local architecture said manifests=()
  for architecture in amd64 arm64; do
    said=$(docker push "$image:$tag-$architecture") ||
      fail "$image:$tag-$architecture could not be pushed, so there is no $image:$tag; Docker's output is above"
    manifests+=("$image@$(sed -n 's/.* digest: \(sha256:[0-9a-f]*\) .*/\1/p' <<<"$said")")
  done
  digest=$(push_index "$tag" "${manifests[@]}") ||
    fail "the images for amd64 and arm64 are pushed, but there is no $image:$tag of the two; Docker's output is above"
}

# Unless it names this commit, a newer one, or one that is not an ancestor.
move_latest() {
  local there manifests
  if in_registry latest; then
    there=$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.revision"}}' "$image:latest")
    [ "$there" != "$commit" ] || return 0
    git merge-base --is-ancestor "$there" "$commit" 2>/dev/null || {
      echo "push: latest stays at commit ${there:-unknown}, which is not older than $tag" >&2
      return 0
    }
  fi
  mapfile -t manifests < <(docker manifest inspect "$image:$tag" | sed -n 's|.*"digest": "\(.*\)".*|'"$image"'@\1|p')
  push_index latest "${manifests[@]}" >/dev/null ||
    fail "$image:$tag is pushed, but latest could not be moved to it; Docker's output is above"
}

mkdir -p "${report%/*}"
rm -f "$report"
[ -z "$(git status --porcelain --untracked-files=no)" ] || fail "the tree differs from commit $tag: commit first"
configure
if in_registry "$tag"; then
  echo "push: $image:$tag is in the registry already; it was not pushed again" >&2
else
  push_commit
fi
pushed=$digest
move_latest
printf '{"image": "%s:%s", "digest": "%s"}\n' "$image" "$tag" "$pushed" >"$report"
echo "push: $image:$tag@$pushed" >&2
