#!/usr/bin/env bash
# Builds IMAGE:TAG-amd64 and IMAGE:TAG-arm64, which `push.sh` makes one of: image.sh RUNTIME IMAGE TAG COMMIT
#
# For the shim, both builds copy one directory, whose times are the commit's: Wasm is the same for every processor, and
# so are the layers. A standalone image also holds the host and the component compiled, both for its processor.
# Nothing in the image is run by the build, so it needs no emulation.
set -euo pipefail
runtime=$1 image=$2 tag=$3 commit=$4
component=target/wasm32-wasip2/component/request_info.wasm
root=target/image

declare -A target=([amd64]=x86_64-unknown-linux-gnu [arm64]=aarch64-unknown-linux-gnu) host
if [ "$runtime" = standalone ]; then # first, because a machine may not be able to
  for architecture in amd64 arm64; do host[$architecture]=$(road/host.sh "${target[$architecture]}"); done
  native=$(road/host.sh "$(rustc -vV | sed -n 's/^host: //p')")
fi

umask 022
rm -rf "$root"
mkdir -p "$root/.spin"
install -D --mode=644 "$component" "$root/$component"
install --mode=644 spin.toml "$root"
road/sbom.sh component wasm32-wasip2 >"$root/request-info.cdx.json"
time=$(git show --no-patch --format=%ct "$commit" 2>/dev/null) || time=0

# add_host ARCHITECTURE: what a standalone image holds beside the rest.
add_host() {
  install --mode=755 "${host[$1]}" "$root/request-info-host"
  road/sbom.sh host "${target[$1]}" >"$root/request-info-host.cdx.json"
  "$native" compile --architecture "$1" --from "$root/spin.toml"
}

for architecture in amd64 arm64; do
  name=$image:$tag-$architecture
  [ "$runtime" = shim ] || add_host "$architecture"
  find "$root" -exec touch --date="@$time" {} +
  # Without the cache, where the classic builder finds the other platform's steps. The variable is for BuildKit, which
  # would make an index of each image, to put its attestations in.
  BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --no-cache --platform "linux/$architecture" --target "$runtime" \
    --build-arg "COMMIT=$commit" --tag "$name" .
  built=$(docker image inspect --format '{{.Architecture}}' "$name")
  [ "$built" = "$architecture" ] || {
    echo "image: Docker built $name for $built: its builder does not honour --platform; a newer Docker, or BuildKit, does" >&2
    exit 1
  }
done
