#!/usr/bin/env bash
# Prints the SBOM of a program of this workspace, a CycloneDX document: sbom.sh DIRECTORY TARGET
#
# cargo-cyclonedx describes every member of a workspace, with the features that any of them enables, and writes beside each
# Cargo.toml. So it gets a copy of the workspace with only this member. For the component, the result is exactly the crates of
# `cargo tree --edges normal`, which a test checks. For the host it names seven more, which only unused features would need:
# `cargo metadata`, its source, includes them.
# The document has no time and no path of this machine, so every run gives the same.
set -euo pipefail
member=$1 target=$2

copy=$(mktemp --directory)
trap 'rm -r "$copy"' EXIT
cp -R Cargo.lock "$member" "$copy"
# Dependencies that only tests need are not in the program, and may be other members.
awk '/^\[/ { tests = /^\[dev-dependencies/ } !tests' "$member/Cargo.toml" >"$copy/$member/Cargo.toml"
sed -E "s/^members = .*/members = [\"$member\"]/; /^default-members/d" Cargo.toml >"$copy/Cargo.toml"
SOURCE_DATE_EPOCH=0 cargo cyclonedx --quiet --manifest-path "$copy/$member/Cargo.toml" --target "$target" --no-build-deps \
  --format json --spec-version 1.5 --override-filename program.cdx
sed "s|file://$copy/|file:///|g" "$copy/$member/program.cdx.json"
