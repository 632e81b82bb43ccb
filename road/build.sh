#!/usr/bin/env bash
# Builds a program of this workspace, linked statically, and prints where it is, a line for each target:
# build.sh PACKAGE PROFILE TARGET…
#
# TARGET is a target of rustc. A target that is not this machine's needs its standard library and a linker. Several targets are
# built at the same time, because the last step of the profile `standalone` uses one core for minutes.
set -euo pipefail
package=$1 profile=$2
shift 2
native=$(rustc -vV | sed -n 's/^host: //p')
programs=() arguments=()

fail() {
  echo "build: $package for $target cannot be built here, because $*" >&2
  exit 1
}

for target in "$@"; do
  if [ "$target" != "$native" ]; then
    processor=${target%%-*}
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || rustup target add "$target" >/dev/null 2>&1 ||
      fail "rustc has no such target: install it with \`rustup target add $target\`, or if rustc is Debian's, the package" \
        "libstd-rust-dev of that architecture"
    declare -A debian=([aarch64]="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" [x86_64]="gcc-x86-64-linux-gnu libc6-dev-amd64-cross")
    linker=$processor-linux-gnu-gcc
    command -v "$linker" >/dev/null ||
      fail "there is no $linker on PATH to link it: on Debian, install it with \`apt-get install ${debian[$processor]}\`"
    variable=${target//-/_}
    export "CARGO_TARGET_${variable^^}_LINKER=$linker"
  fi
  program=${CARGO_TARGET_DIR:-target}/$target/$profile/$package
  [ -e "$program" ] || echo "building $package for $target (2 to 8 minutes on two cores, once)" >&2
  programs+=("$program") arguments+=(--target "$target")
done
[ -t 2 ] && quiet=() || quiet=(--quiet) # on a terminal, cargo shows its progress
RUSTFLAGS='-C target-feature=+crt-static' \
  cargo build --locked "${quiet[@]}" --profile "$profile" --package "$package" "${arguments[@]}"
printf '%s\n' "${programs[@]}"
