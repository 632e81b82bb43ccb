#!/usr/bin/env bash
# Checks that each file of a release is what its name says: check-release.sh DIRECTORY
#
# It checks the checksum, format, processor and static linking of every file. It also runs the deployer for this machine's
# processor, which must print the version in its name. It needs readelf (from binutils, which a C compiler needs too) and jq.
set -euo pipefail
cd "$1"
version=${PWD##*/release-}
wrong=0
declare -A machine=([amd64]=X86-64 [arm64]=AArch64)

expect() { # expect FILE WHAT EXPECTED FOUND
  [ "$3" = "$4" ] || {
    echo "release: $1: $2 is '$4' instead of '$3'" >&2
    wrong=1
  }
}

sha256sum --check --quiet SHA256SUMS || wrong=1
expect SHA256SUMS "the list of files" "$(find . -type f ! -name SHA256SUMS -printf '%f ' | tr ' ' '\n' | sort | xargs)" \
  "$(sed 's/^[0-9a-f]*  //' SHA256SUMS | sort | xargs)"

wasm=request-info-$version.wasm
# "\0asm", then the version and the layer of a component (Component Model, Binary.md).
expect "$wasm" "its preamble" "00 61 73 6d 0d 00 01 00" "$(od -An -tx1 -N8 "$wasm" | xargs)"

for architecture in "${!machine[@]}"; do
  program=deployer-$version-linux-$architecture
  expect "$program" "the processor" "${machine[$architecture]}" "$(readelf --file-header "$program" | sed -n 's/^ *Machine: *//p' | grep -oE 'X86-64|AArch64')"
  expect "$program" "the dynamic linker" "" "$(readelf --program-headers --wide "$program" | sed -n 's/.*interpreter: \(.*\)]/\1/p')"
  [ "$architecture" != "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')" ] ||
    expect "$program" "what --version prints" "deployer $version" "$("./$program" --version)"
done

for list in *.cdx.json; do
  described=${list#request-info-} component=request-info
  [ "$described" != "$list" ] || component=deployer
  expect "$list" "what it describes" "CycloneDX $component $version" "$(jq --raw-output \
    '[.bomFormat, .metadata.component.name, .metadata.component.version] | join(" ")' "$list")"
done

[ $wrong = 1 ] || echo "$PWD holds $(find . -type f | wc -l) files, and each is what its name says"
exit $wrong
