#!/usr/bin/env bash
# Provides rustc's wasm32-wasip2 target with rustup. If rustup's server cannot be reached, on Debian as root, it is built from
# the packages rust-src (of the same version as rustc) and wasi-libc. Prints nothing if the target exists.
set -euo pipefail

target=wasm32-wasip2
sysroot=$(rustc --print sysroot)
release=$(rustc --version | cut -d' ' -f2)
lib=$sysroot/lib/rustlib/$target/lib
libc=(libc.a crt1-command.o crt1-reactor.o crt1.o)

fail() {
  echo "wasm-target.sh: $1; install it with \`rustup target add $target\`, or the package of your distribution" >&2
  exit 1
}

# Copied last, so that it exists only if everything else does.
[ ! -f "$lib/self-contained/crt1-command.o" ] || exit 0

echo "providing Rust's $target target (a few seconds by rustup, else a minute from Debian's rust-src; once)" >&2
if command -v rustup >/dev/null; then
  rustup target add "$target" >/dev/null 2>&1 || true
  [ ! -f "$lib/self-contained/crt1-command.o" ] || exit 0 # rustup may manage another rustc than the one on PATH
fi

sources=/etc/apt/sources.list.d/debian.sources
if [ ! -f $sources ]; then fail "rustc $release has no $target, and this system is not Debian, which has a package for it"; fi
if [ "$(id -u)" != 0 ] || [ ! -w "$sysroot" ]; then fail "rustc $release has no $target, and only root may add it to $sysroot"; fi

work=$(mktemp -d)
trap 'rm -rf "$work"; rm -f "$sysroot/lib/rustlib/src/rust"' EXIT
archive=$(sed -n 's/^URIs: *//p' $sources | head -1)
for suite in trixie-backports bookworm-backports sid; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main"
done >"$work/sources.list"
mkdir -p "$work/lists/partial"
apt=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update -qq

newest() { apt-cache "${apt[@]}" madison "$1" | awk -F'|' -v want="$2" '{gsub(/ /,"",$2)} index($2,want)==1 && !found++ {print $2}'; }
source_version=$(newest rust-src "$release")
[ -n "$source_version" ] || fail "Debian has no rust-src for rustc $release"
cd "$work"
apt-get "${apt[@]}" download -qq "rust-src=$source_version" "wasi-libc=$(newest wasi-libc '')"
for package in *.deb; do dpkg -x "$package" root; done

# The standard library is built the way rustup ships it: as the dependency of an empty crate, with panics that can
# abort or unwind, and with bitcode for link-time optimisation.
mkdir -p "$sysroot/lib/rustlib/src" empty/src
ln -sfn "$work/root/usr/src/rustc-$release" "$sysroot/lib/rustlib/src/rust"
printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >empty/Cargo.toml
: >empty/src/lib.rs
(cd empty && CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS=-Cembed-bitcode=yes RUSTC_BOOTSTRAP=1 \
  cargo build -q -Zbuild-std=std,panic_abort,panic_unwind --target "$target" --release --target-dir "$work/build")
mkdir -p "$lib/self-contained"
find "$work/build/$target/release/deps" -name '*.rlib' ! -name 'libempty*' -exec cp {} "$lib/" \;
for file in "${libc[@]}"; do cp "$work/root/usr/lib/$target/$file" "$lib/self-contained/.$file"; done
for file in "${libc[@]}"; do mv "$lib/self-contained/.$file" "$lib/self-contained/$file"; done
echo "$target is built from Debian's rust-src $source_version" >&2
