#!/usr/bin/env bash
# Builds IMAGE:TAG-amd64 and IMAGE:TAG-arm64, which push.sh combines: image.sh RUNTIME IMAGE TAG COMMIT
#
# For the shim, both builds copy the same directory, whose times are the commit's: Wasm is the same for every processor, and so
# are the layers. A standalone image also has the host and the component's machine code, both for its processor.
# The build runs nothing in the image, so it needs no emulation.
set -euo pipefail
runtime=$1 image=$2 tag=$3 commit=$4
component=target/wasm32-wasip2/component/request_info.wasm
root=target/image

# shellcheck source=road/targets.sh
source road/targets.sh
host() { road/build.sh request-info-host standalone "$@"; }
if [ "$runtime" = standalone ]; then # first, because not every machine can build it
  host "${target[@]}" >/dev/null
  native=$(host "$(rustc -vV | sed -n 's/^host: //p')")
fi

umask 022
rm -rf "$root"
mkdir -p "$root/.spin"
install -D --mode=644 "$component" "$root/$component"
install --mode=644 spin.toml "$root"
road/sbom.sh component wasm32-wasip2 >"$root/request-info.cdx.json"
time=$(git show --no-patch --format=%ct "$commit" 2>/dev/null) || time=0

# add_host ARCHITECTURE: adds what only a standalone image has.
add_host() {
  install --mode=755 "$(host "${target[$1]}")" "$root/request-info-host"
  road/sbom.sh host "${target[$1]}" >"$root/request-info-host.cdx.json"
  "$native" compile --target "${target[$1]}" --from "$root/spin.toml"
}

for architecture in amd64 arm64; do
  name=$image:$tag-$architecture
  [ "$runtime" = shim ] || add_host "$architecture"
  find "$root" -exec touch --date="@$time" {} +
  # Without the cache, in which the classic builder would find the other platform's steps. The variable is for BuildKit, which
  # would otherwise make each image an index with its attestations.
  BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --no-cache --platform "linux/$architecture" --target "$runtime" \
    --build-arg "COMMIT=$commit" --tag "$name" .
  built=$(docker image inspect --format '{{.Architecture}}' "$name")
  [ "$built" = "$architecture" ] || {
    echo "image: Docker built $name for $built: its builder ignores --platform; use a newer Docker, or BuildKit" >&2
    exit 1
  }
done
