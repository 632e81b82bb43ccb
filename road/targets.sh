# shellcheck shell=bash disable=SC2034 # those that source it use it
# rustc's targets for Linux, by the names that images have for processors.
declare -A target=([amd64]=x86_64-unknown-linux-gnu [arm64]=aarch64-unknown-linux-gnu)
