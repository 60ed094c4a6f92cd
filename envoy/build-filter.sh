#!/usr/bin/env bash
# Builds the filter into $CARGO_TARGET_DIR (target)/wasm32-wasip1/filter/dcr_edge.wasm: the same bytes wherever the sources
# lie, so that anybody can check a file against them. What the messages of panics say of files would differ.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo_home=${CARGO_HOME:-$HOME/.cargo}
library=$(rustc --print sysroot)/lib/rustlib/src/rust
commit=$(rustc --version --verbose | sed -n 's/^commit-hash: //p')
flags="\"--remap-path-prefix=$PWD=/src\", \"--remap-path-prefix=$cargo_home=/cargo\""
flags+=", \"--remap-path-prefix=$library=/rustc/$commit\""
# Flags of the environment would come before these, and take their place.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
exec cargo rustc --locked --lib --crate-type cdylib --target wasm32-wasip1 --profile filter \
    --config "target.wasm32-wasip1.rustflags=[$flags]" --config "target.wasm32-wasip1.linker=\"$PWD/envoy/link-filter.sh\"" "$@"
