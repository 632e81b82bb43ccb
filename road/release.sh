#!/usr/bin/env bash
# Builds the files of a release in target/release-VERSION: release.sh COMMIT
#
#   request-info-VERSION.wasm            the component, as target/wasm32-wasip2/component has it
#   deployer-VERSION-linux-amd64, -arm64  static programs
#   *.cdx.json                           the SBOM of each
#   SHA256SUMS                           for `sha256sum --check`
#
# VERSION is the workspace's. CHANGELOG.md must have a section for it, which tells users what is new.
set -euo pipefail
shopt -s inherit_errexit
commit=$1
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
release=target/release-$version
# shellcheck source=road/targets.sh
source road/targets.sh

grep -q "^## $version " CHANGELOG.md || {
  echo "release: CHANGELOG.md has no section for $version, the version in Cargo.toml: add \`## $version (DATE)\`" >&2
  exit 1
}

[ "$commit" = "$(git rev-parse HEAD)" ] && [ -z "$(git status --porcelain --untracked-files=no)" ] || {
  echo "release: the tree is not commit $commit: check it out, and commit or remove your changes" >&2
  exit 1
}

umask 022
rm -rf "$release"
mkdir -p "$release"
install --mode=644 target/wasm32-wasip2/component/request_info.wasm "$release/request-info-$version.wasm"
road/sbom.sh component wasm32-wasip2 >"$release/request-info-$version.cdx.json"
for architecture in "${!target[@]}"; do
  name=deployer-$version-linux-$architecture
  program=$(road/build.sh deployer release "${target[$architecture]}")
  install --mode=755 "$program" "$release/$name"
  road/sbom.sh deployer "${target[$architecture]}" >"$release/$name.cdx.json"
done
(cd "$release" && sha256sum -- * >SHA256SUMS)
# Each file has the commit's time, so that every build of the release is the same.
find "$release" -exec touch --date="@$(git show --no-patch --format=%ct "$commit")" {} +
road/check-release.sh "$release"
