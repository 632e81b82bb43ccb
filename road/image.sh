#!/usr/bin/env bash
# Builds IMAGE:TAG-amd64 and IMAGE:TAG-arm64, which `push.sh` makes one of: image.sh IMAGE TAG COMMIT
#
# Wasm is the same for every processor, and so are the layers: both builds copy one directory, whose times are the
# commit's. Nothing in the image is run by the build, so it needs no emulation.
set -euo pipefail
image=$1 tag=$2 commit=$3
component=target/wasm32-wasip2/component/request_info.wasm
root=target/image

umask 022
rm -rf "$root"
mkdir -p "$root/.spin"
install -D --mode=644 "$component" "$root/$component"
install --mode=644 spin.toml "$root"
road/sbom.sh component wasm32-wasip2 >"$root/request-info.cdx.json"
time=$(git show --no-patch --format=%ct "$commit" 2>/dev/null) || time=0
find "$root" -exec touch --date="@$time" {} +

for architecture in amd64 arm64; do
  name=$image:$tag-$architecture
  # Without the cache, where the classic builder finds the other platform's steps. The variable is for BuildKit, which
  # would make an index of each image, to put its attestations in.
  BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --no-cache --platform "linux/$architecture" \
    --build-arg "COMMIT=$commit" --tag "$name" .
  built=$(docker image inspect --format '{{.Architecture}}' "$name")
  [ "$built" = "$architecture" ] || {
    echo "image: Docker built $name for $built: its builder does not honour --platform; a newer Docker, or BuildKit, does" >&2
    exit 1
  }
done
