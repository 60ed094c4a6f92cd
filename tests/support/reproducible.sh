#!/usr/bin/env bash
# Builds the filter once more, from a copy of the sources in another folder, with another home of cargo and another folder
# for what is built, and compares it with $1.
set -euo pipefail
cd "$(dirname "$0")/../.."
built=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/elsewhere/sources" "$folder/home"
cp -R Cargo.toml Cargo.lock rust-toolchain.toml src envoy tests "$folder/elsewhere/sources"
# What was fetched is the same, in another place.
for part in "${CARGO_HOME:-$HOME/.cargo}"/*; do ln -s "$part" "$folder/home/"; done
# Which toolchain it is must not depend on the home of cargo.
RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} CARGO_HOME=$folder/home CARGO_TARGET_DIR=$folder/out \
    "$folder/elsewhere/sources/envoy/build-filter.sh" --quiet
cmp "$built" "$folder/out/wasm32-wasip1/filter/dcr_edge.wasm"
sha256sum "$built"
