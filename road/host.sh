#!/usr/bin/env bash
# Builds the host for a processor, linked statically because its image has nothing else, and prints where it is:
# host.sh TARGET, a target of rustc. One that is not this machine's needs that target and a linker for it.
set -euo pipefail
target=$1
native=$(rustc -vV | sed -n 's/^host: //p')
host=${CARGO_TARGET_DIR:-target}/$target/release/request-info-host

fail() {
  echo "host: the host for $target cannot be built here, because $*" >&2
  exit 1
}

if [ "$target" != "$native" ]; then
  processor=${target%%-*}
  [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || rustup target add "$target" >/dev/null 2>&1 ||
    fail "rustc has no such target: install it with \`rustup target add $target\`, or where rustc is Debian's, its package" \
      "libstd-rust-dev of that architecture"
  declare -A debian=([aarch64]="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" [x86_64]="gcc-x86-64-linux-gnu libc6-dev-amd64-cross")
  linker=$processor-linux-gnu-gcc
  command -v "$linker" >/dev/null ||
    fail "there is no $linker on PATH to link it: on Debian, install it with \`apt-get install ${debian[$processor]}\`"
  variable=${target//-/_}
  export "CARGO_TARGET_${variable^^}_LINKER=$linker"
fi
[ -e "$host" ] || echo "building the host for $target (about 5 minutes on two cores, once)" >&2
RUSTFLAGS='-C target-feature=+crt-static' \
  cargo build --locked --quiet --release --target "$target" --package request-info-host
echo "$host"
