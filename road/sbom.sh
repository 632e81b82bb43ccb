#!/usr/bin/env bash
# Prints what a program of this workspace is made of, as a CycloneDX document: sbom.sh DIRECTORY TARGET
#
# cargo-cyclonedx describes every member of a workspace, with the features that any of them asks for, and writes beside
# each Cargo.toml. So it is given a copy of the workspace whose only member is this one. For the component, what comes
# out are the crates of `cargo tree --edges normal`, exactly, which a test holds it to. For the host it names seven more,
# which features could bring that nothing asks for: `cargo metadata`, from which it reads, counts them in.
# The document holds no time and no path of this machine, so that it is the same each time.
set -euo pipefail
member=$1 target=$2

copy=$(mktemp --directory)
trap 'rm -r "$copy"' EXIT
cp -R Cargo.lock "$member" "$copy"
sed -E "s/^members = .*/members = [\"$member\"]/; /^default-members/d" Cargo.toml >"$copy/Cargo.toml"
SOURCE_DATE_EPOCH=0 cargo cyclonedx --quiet --manifest-path "$copy/$member/Cargo.toml" --target "$target" --no-build-deps \
  --format json --spec-version 1.5 --override-filename program.cdx
sed "s|file://$copy/|file:///|g" "$copy/$member/program.cdx.json"
